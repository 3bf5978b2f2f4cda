//! Weights on disk: safetensors, one file or sharded, under published or newer names, f32, bf16 or f16.

use super::config::Config;
use super::names::{parameter_shapes, published_name};
use crate::nn::{Affine, Parameter, read};
use crate::{Error, Result, files};
use candle_core::safetensors::MmapedSafetensors;
use candle_core::{DType, Device, Var};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorView};
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
    mapped: MmapedSafetensors,
}

/// One tensor of a [`Stored`].
pub(crate) struct StoredTensor {
    /// Published name.
    pub name: String,
    /// Shape, as the configuration asks for it.
    pub shape: Vec<usize>,
    /// f32, bf16 or f16.
    pub dtype: Dtype,
    stored_name: String,
}

impl Stored {
    /// # Errors
    /// See [`Weights::read`].
    pub fn open(dir: &Path, config: &Config) -> Result<Self> {
        let paths = weight_files(dir)?;
        // SAFETY: the files are only read, and not changed by this program while mapped.
        let mapped = unsafe { MmapedSafetensors::multi(&paths) }.map_err(|e| broken(dir, e))?;
        let mut found: HashMap<String, (String, Dtype, Vec<usize>)> = mapped
            .tensors()
            .into_iter()
            .map(|(name, view)| (published_name(&name), (name, view.dtype(), view.shape().to_vec())))
            .collect();
        let mut tensors = Vec::new();
        for (name, shape) in parameter_shapes(config) {
            let Some((stored_name, dtype, stored_shape)) = found.remove(&name) else {
                return Err(Error::input(format!("{}: the weights lack `{name}` {shape:?}", dir.display())));
            };
            if stored_shape != shape {
                return Err(Error::input(format!(
                    "{}: `{stored_name}` has shape {stored_shape:?}, but config.json asks for {shape:?}",
                    dir.display()
                )));
            }
            if !matches!(dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16) {
                return Err(Error::input(format!(
                    "{}: `{stored_name}` is {dtype:?}; only f32, bf16 and f16 weights can be read",
                    dir.display()
                )));
            }
            tensors.push(StoredTensor { name, shape, dtype, stored_name });
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
        Ok(Stored { paths, tensors, mapped })
    }
}

fn broken(dir: &Path, e: candle_core::Error) -> Error {
    Error::input(format!("cannot read the weights in {}: {e} (is a file incomplete?)", dir.display()))
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
        let mut found = HashMap::new();
        for tensor in &stored.tensors {
            let value = stored.mapped.load(&tensor.stored_name, &Device::Cpu).map_err(|e| broken(dir, e))?;
            let value = Var::from_tensor(&value.to_dtype(DType::F32)?.to_device(device)?)?;
            found.insert(tensor.name.clone(), Arc::new(Parameter::new(tensor.name.clone(), value)));
        }
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
/// `dtype` is f32, bf16 or f16.
pub fn write(dir: &Path, parameters: &[Arc<Parameter>], dtype: DType) -> Result<()> {
    write_sharded(dir, parameters, dtype, SHARD_BYTES)
}

fn write_sharded(dir: &Path, parameters: &[Arc<Parameter>], dtype: DType, shard_bytes: usize) -> Result<()> {
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
    let mut map = BTreeMap::new();
    for (i, shard) in shards.iter().enumerate() {
        let name = match count {
            1 => "model.safetensors".to_string(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
        };
        write_shard(&dir.join(&name), shard, dtype, stored)?;
        map.extend(shard.iter().map(|p| (p.name.clone(), name.clone())));
    }
    if count > 1 {
        let total: usize = parameters.iter().map(|p| size(p)).sum();
        files::write_json(&dir.join(INDEX), &json!({"metadata": {"total_size": total}, "weight_map": map}))?;
    }
    Ok(())
}

fn write_shard(path: &Path, parameters: &[&Parameter], dtype: DType, stored: Dtype) -> Result<()> {
    let failed = |e: safetensors::SafeTensorError| Error::failed(format!("cannot write {}: {e}", path.display()));
    let mut bytes: Vec<Vec<u8>> = Vec::new();
    for parameter in parameters {
        let tensor = parameter.var.to_device(&Device::Cpu)?;
        let data = read(&tensor)?;
        bytes.push(match dtype {
            DType::BF16 => data.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
            DType::F16 => data.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
            _ => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        });
    }
    let views = parameters
        .iter()
        .zip(&bytes)
        .map(|(p, bytes)| Ok((p.name.as_str(), TensorView::new(stored, p.var.dims().to_vec(), bytes)?)))
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(failed)?;
    // transformers refuses a file that does not say which framework's layout it has.
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    files::write_safetensors(path, views, metadata)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Tensor;

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
