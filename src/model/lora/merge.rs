//! An adapter merged into its base: `W + scale * B A`, a checkpoint like any other.

use super::adapter::Adapter;
use super::config::base_of;
use crate::io::files;
use crate::model::architecture::Architecture;
use crate::model::checkpoint_config::read_architecture;
use crate::model::convert_dtype::write_like;
use crate::model::file_names::is_adapter;
use crate::model::new_checkpoint::{Written, check_output};
use crate::model::weight_dtype::WeightDtype;
use crate::model::weights::{CheckpointFiles, StoredTensor};
use crate::nn::{Lora, Matrix, MatrixMut, matmul, numbers};
use crate::{Error, Result};
use candle_core::Device;
use std::collections::HashMap;
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
    let weights = MergedWeights::open(dir)?;
    let merged = |i: usize| weights.values(&weights.stored.tensors[i]);
    let written = write_like(&base_of(dir)?, &weights.stored, (out, overwrite), dtype, &merged)?;
    Ok((written, weights.warning))
}

/// The weights of a checkpoint directory as they compute: of an adapter those of its base with the adapter merged in.
pub(crate) struct MergedWeights {
    /// The architecture of the model.
    pub architecture: std::sync::Arc<dyn Architecture>,
    /// The weight files of the model, or of the adapter's base.
    pub stored: CheckpointFiles,
    /// Adapters by the name of their module; none of a whole model.
    adapters: HashMap<String, Lora>,
    /// A warning for the user about the adapter.
    warning: Option<String>,
}

impl MergedWeights {
    /// Open a checkpoint directory or an adapter; no weight of the model is read yet.
    ///
    /// # Errors
    /// See [`CheckpointFiles::open`] and [`Adapter::read`].
    pub fn open(dir: &Path) -> Result<MergedWeights> {
        if !is_adapter(dir) {
            let architecture = read_architecture(dir)?;
            let stored = CheckpointFiles::open(dir, architecture.as_ref())?;
            return Ok(MergedWeights { architecture, stored, adapters: HashMap::new(), warning: None });
        }
        let base = base_of(dir)?;
        let architecture = read_architecture(&base)?;
        let adapter = Adapter::read(dir, architecture.as_ref(), &Device::Cpu)?;
        let stored = CheckpointFiles::open(&base, architecture.as_ref())?;
        let warning = adapter.warning().map(String::from);
        Ok(MergedWeights { architecture, stored, adapters: adapter.by_module(), warning })
    }

    /// The numbers of one of its tensors.
    pub fn values(&self, tensor: &StoredTensor) -> Result<Vec<f32>> {
        let mut values = self.stored.values(tensor)?;
        if let Some(lora) = tensor.name.strip_suffix(".weight").and_then(|module| self.adapters.get(module)) {
            let ((rank, width), (rows, _)) = (lora.a.var.dims2()?, lora.b.var.dims2()?);
            let mut scaled = numbers(lora.b.var.as_tensor())?.to_vec();
            scaled.iter_mut().for_each(|b| *b *= lora.scale);
            let a = numbers(lora.a.var.as_tensor())?;
            let (b, a) = (Matrix::new(&scaled, rows, rank, rank), Matrix::new(&a, rank, width, width));
            matmul(MatrixMut::new(&mut values, rows, width, width), b, a, true, true);
        }
        Ok(values)
    }
}
