//! Weights on disk: safetensors, one file or sharded, under published or newer names, f32, bf16 or f16.

use super::config::Config;
use super::index::{INDEX, weight_files};
use super::names::{parameter_shapes, published_name};
use crate::io::files;
use crate::io::files::FileChecksum;
use crate::machine::{self, Place};
use crate::model::tensor_file::{self, Source, TensorFile, Values};
use crate::model::{Compute, lora};
use crate::nn::{Linear, Lora, Parameter};
use crate::{Error, Result};
use candle_core::{DType, Device, Var};
use half::bf16;
use half::slice::HalfFloatSliceExt;
use half::vec::HalfBitsVecExt;
use rayon::prelude::*;
use safetensors::tensor::{Dtype, TensorInfo};
use serde_json::json;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The embedding matrix, and the output head, which a tied checkpoint may store again.
const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";
/// Numbers of a piece in which these two are compared.
const PIECE: usize = 1 << 20;

/// Largest shard, in bytes (the published checkpoints' limit is about the same).
const SHARD_BYTES: usize = 4_000_000_000;

/// The weight files of a checkpoint directory, their headers checked against its configuration; no weight is read yet.
pub(crate) struct Stored {
    /// The files.
    pub paths: Vec<PathBuf>,
    /// What the configuration asks for, in the order of the architecture.
    pub tensors: Vec<StoredTensor>,
    files: Vec<TensorFile>,
    /// The head of a tied checkpoint that stores it again.
    head: Option<StoredTensor>,
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
        if lora::is_adapter(dir) {
            return Err(Error::input(format!(
                "{} holds an adapter, not a whole model; merge it into its base first: jigsaw model merge-lora",
                dir.display()
            )));
        }
        let (paths, index) = weight_files(dir)?;
        let files = paths.iter().map(|path| TensorFile::open(path)).collect::<Result<Vec<_>>>()?;
        let mut found: HashMap<String, (String, usize, &TensorInfo)> = HashMap::new();
        for (file, content) in files.iter().enumerate() {
            for (name, info) in content.tensors() {
                let published = published_name(&name);
                if let Some((first, other, _)) = found.get(&published) {
                    return Err(Error::input(format!(
                        "`{published}` is stored twice: as `{first}` in {} and as `{name}` in {}; take out the one that is not meant",
                        paths[*other].display(),
                        paths[file].display()
                    )));
                }
                found.insert(published, (name, file, info));
            }
        }
        if let Some(index) = &index {
            for content in &files {
                content.tensors().try_for_each(|(name, _)| index.check(&name, content.path()))?;
            }
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
        // A tied checkpoint may store the head again; it keeps the name that it is stored by.
        let head = found.remove(HEAD).map(|(name, file, info)| {
            let (shape, dtype, info) = (info.shape.clone(), info.dtype, info.clone());
            StoredTensor { name, shape, dtype, info, file }
        });
        // Older checkpoints store rotary frequencies.
        found.retain(|name, _| !name.ends_with("inv_freq"));
        if let Some(name) = found.keys().min() {
            let more = if found.len() > 1 { format!(" and {} more", found.len() - 1) } else { String::new() };
            return Err(Error::input(format!(
                "{}: the weights hold `{name}`{more} that config.json does not ask for",
                dir.display()
            )));
        }
        Ok(Stored { paths, tensors, files, head })
    }

    /// See that the head of a tied checkpoint that stores it again is the embedding matrix: reads both in pieces if it does, else nothing.
    ///
    /// # Errors
    /// An input error that names the two: transformers would not tie them.
    pub fn check_head(&self) -> Result<()> {
        let (Some(head), Some(embedding)) = (&self.head, self.tensors.iter().find(|t| t.name == EMBEDDING)) else {
            return Ok(());
        };
        let differs = || {
            Err(Error::input(format!(
                "{}: `{}` differs from `{EMBEDDING}`, but tie_word_embeddings in config.json says that they are one; set it to false if the \
                 head is a matrix of its own, or take `{}` out if it is not",
                self.paths[head.file].display(),
                head.name,
                head.name
            )))
        };
        if head.shape != embedding.shape {
            return differs();
        }
        let count: usize = head.shape.iter().product();
        let piece = |tensor: &StoredTensor, start: usize| -> Result<Vec<f32>> {
            let (length, width) = (PIECE.min(count - start), tensor.dtype.bitsize() / 8);
            let begin = tensor.info.data_offsets.0 + start * width;
            let (shape, data_offsets) = (vec![length], (begin, begin + length * width));
            let mut values = vec![0.0; length];
            self.files[tensor.file].read(&TensorInfo { dtype: tensor.dtype, shape, data_offsets }, &mut values)?;
            Ok(values)
        };
        (0..count.div_ceil(PIECE)).into_par_iter().try_for_each(|i| {
            let (head, embedding) = (piece(head, i * PIECE)?, piece(embedding, i * PIECE)?);
            let same = head.iter().zip(&embedding).all(|(a, b)| a.to_bits() == b.to_bits());
            if same { Ok(()) } else { differs() }
        })
    }

    /// Name and shape of every tensor.
    pub fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        self.tensors.iter().map(|t| (t.name.clone(), t.shape.clone())).collect()
    }

    /// The numbers of one of its tensors, as f32.
    pub fn values(&self, tensor: &StoredTensor) -> Result<Vec<f32>> {
        let mut values = vec![0.0; tensor.shape.iter().product()];
        self.files[tensor.file].read(&tensor.info, &mut values)?;
        Ok(values)
    }

    /// Read a tensor straight to where it stays.
    fn load(&self, tensor: &StoredTensor, device: &Device, storage: Storage) -> Result<Arc<Parameter>> {
        let shape = tensor.shape.as_slice();
        let value = match storage {
            _ if tensor.is_bf16_in(storage) => match tensor.dtype {
                Dtype::BF16 => Var::from_vec(self.files[tensor.file].read_bf16(&tensor.info)?, shape, device)?,
                _ => Var::from_vec(rounded(&self.values(tensor)?), shape, device)?,
            },
            Storage::Lossless if is_matrix(shape) => {
                let values = self.values(tensor)?;
                match values.par_iter().all(|v| v.to_bits() & 0xFFFF == 0) {
                    true => Var::from_vec(rounded(&values), shape, device)?,
                    false => Var::from_vec(values, shape, device)?,
                }
            }
            _ => Var::from_vec(self.values(tensor)?, shape, device)?,
        };
        Ok(Arc::new(Parameter::new(tensor.name.clone(), value)))
    }

    /// Bytes of the weights in memory.
    pub fn bytes(&self, storage: Storage) -> usize {
        let width = |t: &StoredTensor| if t.is_bf16_in(storage) { 2 } else { 4 };
        self.tensors.iter().map(|t| width(t) * t.shape.iter().product::<usize>()).sum()
    }
}

impl StoredTensor {
    /// Norms and biases are few; they are kept in f32 always.
    fn is_bf16_in(&self, storage: Storage) -> bool {
        let kept = match storage {
            Storage::F32 => false,
            Storage::Stored | Storage::Lossless => self.dtype == Dtype::BF16,
            Storage::Bf16 => true,
        };
        kept && is_matrix(&self.shape)
    }
}

/// Whether it is a factor of products.
fn is_matrix(shape: &[usize]) -> bool {
    shape.len() >= 2
}

/// The nearest numbers in bf16.
fn rounded(values: &[f32]) -> Vec<bf16> {
    let mut all = vec![bf16::ZERO; values.len()];
    all.par_chunks_mut(PIECE).zip(values.par_chunks(PIECE)).for_each(|(to, from)| to.convert_from_f32_slice(from));
    all
}

/// Let every matrix be multiplied in bf16: those in f32 get a working copy.
pub(crate) fn enable_bf16_matmul(parameters: &[Arc<Parameter>]) -> Result<()> {
    parameters.iter().filter(|p| is_matrix(p.var.dims())).try_for_each(|p| p.enable_bf16_matmul())
}

/// In which type weights are held in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// As f32: needed to train them.
    F32,
    /// Matrices stored in bf16 as bf16, everything else as f32. The kernels widen a block at a time; the results are the same.
    Stored,
    /// As bf16 also those that are stored in more and have no more than bf16 holds.
    Lossless,
    /// All matrices as bf16, rounded where they are stored in more.
    Bf16,
}

/// Environment variable that chooses how frozen weights are held: `f32` or `bf16`.
pub const FROZEN_VARIABLE: &str = "JIGSAW_FROZEN_WEIGHTS";

impl Storage {
    /// # Errors
    /// An input error if [`FROZEN_VARIABLE`] holds another word than f32 or bf16, or asks for f32 where products are to be in bf16.
    pub(crate) fn check_compute(compute: Compute) -> Result<()> {
        match (std::env::var(FROZEN_VARIABLE).ok().as_deref(), compute) {
            (Some("f32"), Compute::Bf16) => Err(Error::input(format!(
                "{FROZEN_VARIABLE}=f32 contradicts train.compute = \"bf16\"; drop one of them"
            ))),
            (None | Some("" | "f32" | "bf16"), _) => Ok(()),
            (Some(other), _) => Err(Error::input(format!("{FROZEN_VARIABLE}={other}: must be f32 or bf16"))),
        }
    }

    /// For weights that do not train: bf16 if they are to be multiplied in it; else what [`FROZEN_VARIABLE`] asks for, or f32 if that takes
    /// at most half of the memory that is available, of the machine or of the GPU.
    ///
    /// # Errors
    /// An input error if the variable holds another word, or asks for f32 where products are to be in bf16.
    pub(crate) fn for_frozen(stored: &Stored, place: Place, compute: Compute) -> Result<Storage> {
        Storage::check_compute(compute)?;
        match (std::env::var(FROZEN_VARIABLE).ok().as_deref(), compute) {
            (None | Some("" | "bf16"), Compute::Bf16) => return Ok(Storage::Bf16),
            (Some("f32"), _) => return Ok(Storage::F32),
            (Some("bf16"), _) => return Ok(Storage::Stored),
            _ => {}
        }
        let free = match place {
            Place::Cpu => machine::available_memory(),
            Place::Gpu(index) => machine::gpu_memory(index),
        };
        let fits = free.is_none_or(|free| stored.bytes(Storage::F32) <= free / 2);
        Ok(if fits { Storage::F32 } else { Storage::Stored })
    }

    /// By name, for weights of which those that `frozen` knows do not train. Where all are frozen, as beside an adapter, see
    /// [`Storage::for_frozen`]; where some train, the others are saved with them, and none is rounded.
    pub(crate) fn for_trained(
        stored: &Stored,
        place: Place,
        compute: Compute,
        frozen: &(dyn Fn(&str) -> bool + Sync),
    ) -> Result<impl Fn(&str) -> Storage + Sync + use<>> {
        let count = stored.tensors.iter().filter(|t| frozen(&t.name)).count();
        let held = match (count, compute) {
            (0, _) => Storage::F32,
            (n, Compute::Bf16) if n < stored.tensors.len() => Storage::Lossless,
            _ => Storage::for_frozen(stored, place, compute)?,
        };
        let names: HashSet<String> = stored.tensors.iter().map(|t| t.name.clone()).filter(|n| frozen(n)).collect();
        Ok(move |name: &str| if names.contains(name) { held } else { Storage::F32 })
    }
}

/// Weights by published name, to be taken by the parts of the model.
pub struct Weights {
    found: HashMap<String, Arc<Parameter>>,
    taken: Vec<Arc<Parameter>>,
    adapters: HashMap<String, Lora>,
}

/// Read all weights of a checkpoint directory, in the order of the architecture, each held as `storage` says of its name.
pub(crate) fn load(
    stored: &Stored,
    device: &Device,
    storage: &(dyn Fn(&str) -> Storage + Sync),
) -> Result<Vec<Arc<Parameter>>> {
    stored.check_head()?;
    let load = |tensor: &StoredTensor| stored.load(tensor, device, storage(&tensor.name));
    match device {
        Device::Cpu => stored.tensors.par_iter().map(load).collect(),
        _ => stored.tensors.iter().map(load).collect(),
    }
}

/// Weights of zeros that take no memory until they are written to: for plans.
/// `compute` says whether matrices in f32 have working copies.
pub(crate) fn hollow(
    stored: &Stored,
    storage: &dyn Fn(&str) -> Storage,
    compute: Compute,
) -> Result<Vec<Arc<Parameter>>> {
    let zeros = |tensor: &StoredTensor| -> Result<Arc<Parameter>> {
        let (shape, count) = (tensor.shape.as_slice(), tensor.shape.iter().product());
        // Zeros of a primitive type come from the system without being written.
        let half = || Var::from_vec(vec![0u16; count].reinterpret_into::<bf16>(), shape, &Device::Cpu);
        if tensor.is_bf16_in(storage(&tensor.name)) {
            return Ok(Arc::new(Parameter::new(tensor.name.clone(), half()?)));
        }
        let parameter = Parameter::new(tensor.name.clone(), Var::from_vec(vec![0f32; count], shape, &Device::Cpu)?);
        if compute == Compute::Bf16 && is_matrix(shape) {
            parameter.set_bf16_copy(half()?)?;
        }
        Ok(Arc::new(parameter))
    };
    stored.tensors.iter().map(zeros).collect()
}

impl Weights {
    /// Read the weights of a checkpoint directory, as f32, to `device`.
    ///
    /// # Errors
    /// An input error that names the file and the tensor: missing or unreadable files, a missing or unexpected tensor, one that is stored
    /// twice or not where the index has it, another shape than `config` asks for, an unsupported dtype, a head that is tied and differs.
    pub fn read(dir: &Path, config: &Config, device: &Device) -> Result<Self> {
        Ok(Weights::of(load(&Stored::open(dir, config)?, device, &|_| Storage::F32)?, HashMap::new()))
    }

    /// Of weights already read, with adapters by the name of their linear map.
    pub fn of(parameters: Vec<Arc<Parameter>>, adapters: HashMap<String, Lora>) -> Self {
        let found = parameters.into_iter().map(|p| (p.name.clone(), p)).collect();
        Weights { found, taken: Vec::new(), adapters }
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
    pub fn linear(&mut self, name: &str, biased: bool) -> Result<Linear> {
        let weight = self.take(&format!("{name}.weight"))?;
        let bias = if biased { Some(self.take(&format!("{name}.bias"))?) } else { None };
        Ok(Linear { weight, bias, lora: self.adapters.remove(name) })
    }

    /// All weights that were taken, in the order of the architecture.
    pub fn finish(self, config: &Config) -> Result<Vec<Arc<Parameter>>> {
        if let Some(name) = self.found.keys().min() {
            return Err(Error::failed(format!("weight `{name}` has no place in the model")));
        }
        if let Some(name) = self.adapters.keys().min() {
            return Err(Error::failed(format!("the adapter of `{name}` has no place in the model")));
        }
        let mut by_name: HashMap<String, Arc<Parameter>> =
            self.taken.into_iter().map(|p| (p.name.clone(), p)).collect();
        Ok(parameter_shapes(config).into_iter().filter_map(|(name, _)| by_name.remove(&name)).collect())
    }
}

/// Write weights under their published names: `model.safetensors`, or shards and their index when they are large.
/// `dtype` is f32, bf16 or f16. Returns what the weight files are meant to hold.
pub fn write(dir: &Path, parameters: &[Arc<Parameter>], dtype: DType) -> Result<Vec<FileChecksum>> {
    let sources = parameters.iter().map(|p| Source {
        name: p.name.clone(),
        shape: p.var.dims().to_vec(),
        values: Values::Tensor(p.var.as_tensor()),
    });
    write_sharded(dir, sources.collect(), dtype, SHARD_BYTES)
}

/// As [`write`], of weights that are made one at a time: `make(i)` gives the numbers of the `i`-th of `shapes`.
pub(crate) fn write_made(
    dir: &Path,
    shapes: &[(String, Vec<usize>)],
    dtype: DType,
    make: &dyn Fn(usize) -> Result<Vec<f32>>,
) -> Result<Vec<FileChecksum>> {
    let makers: Vec<_> = (0..shapes.len()).map(|i| move || make(i)).collect();
    let sources = shapes.iter().zip(&makers).map(|((name, shape), make)| Source {
        name: name.clone(),
        shape: shape.clone(),
        values: Values::Made(make),
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
        written.push(tensor_file::write(&dir.join(&name), shard, stored, &[("format", "pt".to_string())])?);
    }
    if count > 1 {
        files::write_json(&dir.join(INDEX), &json!({"metadata": {"total_size": total}, "weight_map": map}))?;
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::convert::{Precision, convert};
    use crate::model::init::{Preset, write_checkpoint};
    use candle_core::Tensor;
    use candle_core::safetensors::MmapedSafetensors;

    #[test]
    fn a_tied_head_that_is_stored_again_must_be_the_embedding_matrix() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("model");
        write_checkpoint(&at, Preset::Tiny, 1).unwrap();
        let config = Config::from_dir(&at).unwrap();
        assert!(config.tie_word_embeddings);
        let file = at.join("model.safetensors");
        let mut all = candle_core::safetensors::load(&file, &Device::Cpu).unwrap();
        let embedding = all[EMBEDDING].to_dtype(DType::F32).unwrap();
        let (rows, width) = embedding.dims2().unwrap();
        let mut with = |head: Tensor, name: &str| {
            all.insert(name.into(), head);
            candle_core::safetensors::save(&all, &file).unwrap();
            all.remove(name);
            let stored = Stored::open(&at, &config).unwrap();
            let told = load(&stored, &Device::Cpu, &|_| Storage::F32).map(drop);
            assert_eq!(told.is_ok(), stored.check_head().is_ok());
            let out = tempfile::tempdir().unwrap();
            assert_eq!(told.is_ok(), convert(&at, out.path(), Precision::F32, false).is_ok());
            told
        };
        with(embedding.clone(), HEAD).unwrap();
        let mut values = embedding.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        *values.last_mut().unwrap() += 1.0;
        let other = Tensor::from_vec(values, (rows, width), &Device::Cpu).unwrap();
        for (head, name) in
            [(other.clone(), HEAD), (other, "model.lm_head.weight"), (embedding.narrow(0, 1, rows - 1).unwrap(), HEAD)]
        {
            let error = with(head, name).unwrap_err();
            let said = error.to_string();
            assert!(error.exit_code() == 2 && said.contains("model.safetensors"), "{said}");
            assert!(said.contains(&format!("`{name}` differs from `{EMBEDDING}`")), "{said}");
            assert!(said.contains("set it to false"), "{said}");
        }
    }

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
            values: if p.name == "b" { Values::Made(make) } else { Values::Tensor(p.var.as_tensor()) },
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
