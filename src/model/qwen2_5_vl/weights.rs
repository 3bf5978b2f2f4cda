//! Weights on disk: safetensors, one file or sharded, under published or newer names, f32, bf16 or f16.

use super::config::Config;
use super::names::{parameter_shapes, published_name};
use crate::files::Written;
use crate::nn::{Affine, Parameter};
use crate::tensors::{self, Source, TensorFile, Values};
use crate::{Error, Result, files};
use candle_core::{DType, Device, Var};
use rayon::prelude::*;
use safetensors::tensor::{Dtype, TensorInfo};
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest shard, in bytes (the published checkpoints' limit is about the same).
const SHARD_BYTES: usize = 4_000_000_000;

/// The file that maps tensors to shards.
const INDEX: &str = "model.safetensors.index.json";

/// The weight files of a checkpoint directory, their headers checked against its configuration; no weight is read yet.
pub(crate) struct Stored {
    /// The files.
    pub paths: Vec<PathBuf>,
    /// What the configuration asks for, in the order of the architecture.
    pub tensors: Vec<StoredTensor>,
    files: Vec<TensorFile>,
}

/// One tensor of a [`Stored`].
pub(crate) struct StoredTensor {
    /// Published name.
    pub name: String,
    /// Shape, as the configuration asks for it.
    pub shape: Vec<usize>,
    /// f32, bf16 or f16.
    pub dtype: Dtype,
    /// Its place in the file, which is the `file`-th.
    info: TensorInfo,
    file: usize,
}

impl Stored {
    /// # Errors
    /// See [`Weights::read`].
    pub fn open(dir: &Path, config: &Config) -> Result<Self> {
        let paths = weight_files(dir)?;
        let files = paths.iter().map(|path| TensorFile::open(path)).collect::<Result<Vec<_>>>()?;
        let mut found: HashMap<String, (String, usize, &TensorInfo)> = HashMap::new();
        for (file, content) in files.iter().enumerate() {
            found.extend(content.tensors().map(|(name, info)| (published_name(&name), (name, file, info))));
        }
        let mut tensors = Vec::new();
        for (name, shape) in parameter_shapes(config) {
            let Some((stored_name, file, info)) = found.remove(&name) else {
                return Err(Error::input(format!("{}: the weights lack `{name}` {shape:?}", dir.display())));
            };
            if info.shape != shape {
                return Err(Error::input(format!(
                    "{}: `{stored_name}` has shape {:?}, but config.json asks for {shape:?}",
                    dir.display(),
                    info.shape
                )));
            }
            let dtype = info.dtype;
            if !matches!(dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16) {
                return Err(Error::input(format!(
                    "{}: `{stored_name}` is {dtype:?}; only f32, bf16 and f16 weights can be read",
                    dir.display()
                )));
            }
            tensors.push(StoredTensor { name, shape, dtype, info: info.clone(), file });
        }
        // A tied checkpoint may store the head again; older ones store rotary frequencies.
        found.retain(|name, _| name != "lm_head.weight" && !name.ends_with("inv_freq"));
        if let Some(name) = found.keys().min() {
            let more = if found.len() > 1 { format!(" and {} more", found.len() - 1) } else { String::new() };
            return Err(Error::input(format!(
                "{}: the weights hold `{name}`{more} that config.json does not ask for",
                dir.display()
            )));
        }
        Ok(Stored { paths, tensors, files })
    }

    /// The numbers of one of its tensors, as f32.
    pub fn values(&self, tensor: &StoredTensor) -> Result<Vec<f32>> {
        let mut values = vec![0.0; tensor.shape.iter().product()];
        self.files[tensor.file].read(&tensor.info, &mut values)?;
        Ok(values)
    }

    /// Read a tensor straight to where it stays.
    fn load(&self, tensor: &StoredTensor, device: &Device) -> Result<Arc<Parameter>> {
        let value = Var::from_vec(self.values(tensor)?, tensor.shape.as_slice(), device)?;
        Ok(Arc::new(Parameter::new(tensor.name.clone(), value)))
    }
}

/// Weights by published name, to be taken by the parts of the model.
pub struct Weights {
    found: HashMap<String, Arc<Parameter>>,
    taken: Vec<Arc<Parameter>>,
}

impl Weights {
    /// Read the weights of a checkpoint directory, as f32, to `device`.
    ///
    /// # Errors
    /// An input error that names the file and the tensor: missing or unreadable files, a missing or unexpected tensor, another
    /// shape than `config` asks for, an unsupported dtype.
    pub fn read(dir: &Path, config: &Config, device: &Device) -> Result<Self> {
        let stored = Stored::open(dir, config)?;
        let load = |tensor| stored.load(tensor, device);
        let parameters: Vec<Arc<Parameter>> = match device {
            Device::Cpu => stored.tensors.par_iter().map(load).collect::<Result<_>>()?,
            _ => stored.tensors.iter().map(load).collect::<Result<_>>()?,
        };
        let found = parameters.into_iter().map(|p| (p.name.clone(), p)).collect();
        Ok(Weights { found, taken: Vec::new() })
    }

    /// The weight called `name`.
    pub fn take(&mut self, name: &str) -> Result<Arc<Parameter>> {
        let weight = self
            .found
            .remove(name)
            .ok_or_else(|| Error::failed(format!("weight `{name}` asked for twice or unknown")))?;
        self.taken.push(Arc::clone(&weight));
        Ok(weight)
    }

    /// The map with weight `name.weight` and, if `biased`, bias `name.bias`.
    pub fn affine(&mut self, name: &str, biased: bool) -> Result<Affine> {
        let weight = self.take(&format!("{name}.weight"))?;
        let bias = if biased { Some(self.take(&format!("{name}.bias"))?) } else { None };
        Ok(Affine { weight, bias })
    }

    /// All weights that were taken, in the order of the architecture.
    pub fn finish(self, config: &Config) -> Result<Vec<Arc<Parameter>>> {
        if let Some(name) = self.found.keys().min() {
            return Err(Error::failed(format!("weight `{name}` has no place in the model")));
        }
        let mut by_name: HashMap<String, Arc<Parameter>> =
            self.taken.into_iter().map(|p| (p.name.clone(), p)).collect();
        Ok(parameter_shapes(config).into_iter().filter_map(|(name, _)| by_name.remove(&name)).collect())
    }
}

/// The safetensors files of a checkpoint directory.
fn weight_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let single = dir.join("model.safetensors");
    if single.is_file() {
        return Ok(vec![single]);
    }
    let index = dir.join(INDEX);
    if !index.is_file() {
        return Err(Error::input(format!(
            "{}: neither model.safetensors nor {INDEX} found; a Hugging Face checkpoint directory with safetensors weights is \
             needed",
            dir.display()
        )));
    }
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let map = files::read_json::<Index>(&index)?.weight_map;
    let mut names: Vec<&String> = map.values().collect();
    names.sort();
    names.dedup();
    let paths: Vec<PathBuf> = names.iter().map(|name| dir.join(name)).collect();
    match paths.iter().find(|path| !path.is_file()) {
        Some(missing) => {
            Err(Error::input(format!("{} names {}, which is not there", index.display(), missing.display())))
        }
        None => Ok(paths),
    }
}

/// Write weights under their published names: `model.safetensors`, or shards and their index when they are large.
/// `dtype` is f32, bf16 or f16. Returns what the weight files are meant to hold.
pub fn write(dir: &Path, parameters: &[Arc<Parameter>], dtype: DType) -> Result<Vec<Written>> {
    write_sharded(dir, parameters, dtype, SHARD_BYTES)
}

fn write_sharded(dir: &Path, parameters: &[Arc<Parameter>], dtype: DType, shard_bytes: usize) -> Result<Vec<Written>> {
    let stored = match dtype {
        DType::F32 => Dtype::F32,
        DType::BF16 => Dtype::BF16,
        DType::F16 => Dtype::F16,
        other => return Err(Error::input(format!("weights cannot be written as {other:?}; use f32, bf16 or f16"))),
    };
    let size = |p: &Parameter| p.var.elem_count() * dtype.size_in_bytes();
    let mut shards: Vec<Vec<&Parameter>> = vec![Vec::new()];
    let mut filled = 0;
    for parameter in parameters {
        if filled > 0 && filled + size(parameter) > shard_bytes {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += size(parameter);
        if let Some(shard) = shards.last_mut() {
            shard.push(parameter);
        }
    }
    let count = shards.len();
    let (mut map, mut written) = (BTreeMap::new(), Vec::with_capacity(count));
    for (i, shard) in shards.iter().enumerate() {
        let name = match count {
            1 => "model.safetensors".to_string(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
        };
        written.push(write_shard(&dir.join(&name), shard, stored)?);
        map.extend(shard.iter().map(|p| (p.name.clone(), name.clone())));
    }
    if count > 1 {
        let total: usize = parameters.iter().map(|p| size(p)).sum();
        files::write_json(&dir.join(INDEX), &json!({"metadata": {"total_size": total}, "weight_map": map}))?;
    }
    Ok(written)
}

fn write_shard(path: &Path, parameters: &[&Parameter], dtype: Dtype) -> Result<Written> {
    let sources = parameters.iter().map(|p| Source {
        name: p.name.clone(),
        shape: p.var.dims().to_vec(),
        values: Values::Tensor(p.var.as_tensor()),
    });
    // transformers refuses a file that does not say which framework's layout it has.
    tensors::write(path, sources.collect(), dtype, &[("format", "pt".to_string())])
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Tensor;
    use candle_core::safetensors::MmapedSafetensors;

    #[test]
    fn a_sharded_checkpoint_holds_every_weight_once_and_its_index_names_them() {
        let dir = tempfile::tempdir().unwrap();
        let parameter = |name: &str, n: usize| {
            let data: Vec<f32> = (0..n).map(|i| i as f32 + 0.5).collect();
            Arc::new(Parameter::new(name, Var::from_tensor(&Tensor::from_vec(data, n, &Device::Cpu).unwrap()).unwrap()))
        };
        let parameters = [parameter("a", 10), parameter("b", 10), parameter("c", 3)];
        write_sharded(dir.path(), &parameters, DType::BF16, 26).unwrap();
        let files = weight_files(dir.path()).unwrap();
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
