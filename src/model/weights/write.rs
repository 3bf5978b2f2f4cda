//! Weights to disk: safetensors, one file or shards with their index.

use super::index::INDEX;
use crate::io::files::{self, FileChecksum};
use crate::model::safetensors_file::{self, Source, Values};
use crate::nn::Parameter;
use crate::{Error, Result};
use candle_core::DType;
use safetensors::tensor::Dtype;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Largest shard, in bytes (the published checkpoints' limit is about the same).
const SHARD_BYTES: usize = 4_000_000_000;

/// Write weights under their published names: `model.safetensors`, or shards and their index when they are large.
/// `dtype` is f32, bf16 or f16. Returns what the weight files should hold.
pub fn write(dir: &Path, parameters: &[Arc<Parameter>], dtype: DType) -> Result<Vec<FileChecksum>> {
    let sources = parameters.iter().map(|p| Source {
        name: p.name.clone(),
        shape: p.var.dims().to_vec(),
        values: Values::Tensor(p.var.as_tensor()),
    });
    write_sharded(dir, sources.collect(), dtype, SHARD_BYTES)
}

/// As [`write`], of weights that are made one at a time: `make(i)` gives the numbers of the `i`-th of `shapes`.
pub(crate) fn write_with(
    dir: &Path,
    shapes: &[(String, Vec<usize>)],
    dtype: DType,
    make: &dyn Fn(usize) -> Result<Vec<f32>>,
) -> Result<Vec<FileChecksum>> {
    let makers: Vec<_> = (0..shapes.len()).map(|i| move || make(i)).collect();
    let sources = shapes.iter().zip(&makers).map(|((name, shape), make)| Source {
        name: name.clone(),
        shape: shape.clone(),
        values: Values::Computed(make),
    });
    write_sharded(dir, sources.collect(), dtype, SHARD_BYTES)
}

fn write_sharded(dir: &Path, sources: Vec<Source<'_>>, dtype: DType, shard_bytes: usize) -> Result<Vec<FileChecksum>> {
    let stored = match dtype {
        DType::F32 => Dtype::F32,
        DType::BF16 => Dtype::BF16,
        DType::F16 => Dtype::F16,
        other => return Err(Error::input(format!("weights cannot be written as {other:?}; use f32, bf16 or f16"))),
    };
    let size = |source: &Source<'_>| source.shape.iter().product::<usize>() * dtype.size_in_bytes();
    let total: usize = sources.iter().map(size).sum();
    let mut shards: Vec<Vec<Source<'_>>> = vec![Vec::new()];
    let mut filled = 0;
    for source in sources {
        if filled > 0 && filled + size(&source) > shard_bytes {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += size(&source);
        if let Some(shard) = shards.last_mut() {
            shard.push(source);
        }
    }
    let count = shards.len();
    let (mut map, mut written) = (BTreeMap::new(), Vec::with_capacity(count));
    for (i, shard) in shards.into_iter().enumerate() {
        let name = match count {
            1 => "model.safetensors".to_string(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
        };
        map.extend(shard.iter().map(|source| (source.name.clone(), name.clone())));
        // transformers refuses a file that does not say which framework's layout it has.
        written.push(safetensors_file::write(&dir.join(&name), shard, stored, &[("format", "pt".to_string())])?);
    }
    if count > 1 {
        files::write_json(&dir.join(INDEX), &json!({"metadata": {"total_size": total}, "weight_map": map}))?;
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::weights::index::weight_files;
    use candle_core::safetensors::MmapedSafetensors;
    use candle_core::{Device, Tensor, Var};

    #[test]
    fn a_sharded_checkpoint_holds_every_weight_once_and_its_index_names_them() {
        let dir = tempfile::tempdir().unwrap();
        let parameter = |name: &str, n: usize| {
            let data: Vec<f32> = (0..n).map(|i| i as f32 + 0.5).collect();
            Arc::new(Parameter::new(name, Var::from_tensor(&Tensor::from_vec(data, n, &Device::Cpu).unwrap()).unwrap()))
        };
        let parameters = [parameter("a", 10), parameter("b", 10), parameter("c", 3)];
        let make = |i: usize| parameters[i].var.to_vec1::<f32>().map_err(Into::into);
        let makers: Vec<_> = (0..3).map(|i| move || make(i)).collect();
        let sources = parameters.iter().zip(&makers).map(|(p, make)| Source {
            name: p.name.clone(),
            shape: p.var.dims().to_vec(),
            values: if p.name == "b" { Values::Computed(make) } else { Values::Tensor(p.var.as_tensor()) },
        });
        write_sharded(dir.path(), sources.collect(), DType::BF16, 26).unwrap();
        let (files, index) = weight_files(dir.path()).unwrap();
        assert_eq!(index.unwrap().shards().len(), 2);
        assert_eq!(files.len(), 2);
        let mapped = unsafe { MmapedSafetensors::multi(&files) }.unwrap();
        for p in &parameters {
            let got = mapped.load(&p.name, &Device::Cpu).unwrap();
            assert_eq!(got.dtype(), DType::BF16);
            let got = got.to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(got, p.var.to_vec1::<f32>().unwrap(), "{}", p.name);
        }
    }
}
