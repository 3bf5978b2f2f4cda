//! An adapter merged into its base: `W + scale * B A`, a checkpoint like any other.

use super::adapter::Adapter;
use super::config::base_of;
use crate::io::files;
use crate::model::checkpoint_config::read_architecture;
use crate::model::convert_dtype::write_like;
use crate::model::file_names::is_adapter;
use crate::model::new_checkpoint::{Written, check_output};
use crate::model::weight_dtype::WeightDtype;
use crate::model::weights::CheckpointFiles;
use crate::nn::{Matrix, MatrixMut, matmul, read};
use crate::{Error, Result};
use candle_core::Device;
use std::path::Path;

/// Write the base of the adapter `dir` with the adapter merged in to `out`, which must be new or empty, or with `overwrite` a checkpoint, in `dtype`. The sums are
/// formed in f32 and rounded once. One tensor is held at a time. Returns also a warning for the user, if there is one.
///
/// # Errors
/// An input error if `dir` is no adapter, its base is not there, or `out` holds something else.
pub fn merge(dir: &Path, out: &Path, dtype: WeightDtype, overwrite: bool) -> Result<(Written, Option<String>)> {
    if !is_adapter(dir) {
        return Err(Error::input(format!("{} holds no adapter (adapter_config.json)", dir.display())));
    }
    if files::is_inside(dir, out) {
        return Err(Error::input(format!(
            "{} is read here, and cannot be written over; choose another --out",
            out.display()
        )));
    }
    check_output(out)?;
    let base = base_of(dir)?;
    let architecture = read_architecture(&base)?;
    let adapter = Adapter::read(dir, architecture.as_ref(), &Device::Cpu)?;
    let warning = adapter.warning().map(String::from);
    let adapter = adapter.by_module();
    let stored = CheckpointFiles::open(&base, architecture.as_ref())?;
    let merged = |i: usize| -> Result<Vec<f32>> {
        let tensor = &stored.tensors[i];
        let mut values = stored.values(tensor)?;
        if let Some(lora) = tensor.name.strip_suffix(".weight").and_then(|module| adapter.get(module)) {
            let ((rank, width), (rows, _)) = (lora.a.var.dims2()?, lora.b.var.dims2()?);
            let mut scaled = read(lora.b.var.as_tensor())?.to_vec();
            scaled.iter_mut().for_each(|b| *b *= lora.scale);
            let a = read(lora.a.var.as_tensor())?;
            let (b, a) = (Matrix::new(&scaled, rows, rank, rank), Matrix::new(&a, rank, width, width));
            matmul(MatrixMut::new(&mut values, rows, width, width), b, a, true, true);
        }
        Ok(values)
    };
    Ok((write_like(&base, &stored, (out, overwrite), dtype, &merged)?, warning))
}
