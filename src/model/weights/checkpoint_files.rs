//! The weight files of a checkpoint, checked against its configuration before any weight is read.

use super::index::weight_files;
use super::storage::WeightStorage;
use crate::model::architecture::Architecture;
use crate::model::lora;
use crate::model::safetensors_file::TensorFile;
use crate::nn::Parameter;
use crate::{Error, Result};
use candle_core::{Device, Var};
use half::bf16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;
use safetensors::tensor::{Dtype, TensorInfo};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The embedding matrix, and the output head, which a tied checkpoint may store again.
/// How the name of the token embeddings ends in every family.
const EMBEDDING: &str = ".embed_tokens.weight";
const HEAD: &str = "lm_head.weight";
/// Elements that are compared or converted at a time.
const CHUNK: usize = 1 << 20;

/// The weight files of a checkpoint directory, their headers checked against its configuration; no weight is read yet.
pub(crate) struct CheckpointFiles {
    /// The files.
    pub paths: Vec<PathBuf>,
    /// What the configuration asks for, in the order of the architecture.
    pub tensors: Vec<StoredTensor>,
    files: Vec<TensorFile>,
    /// The head of a tied checkpoint that stores it again.
    head: Option<StoredTensor>,
}

/// One tensor of a [`CheckpointFiles`].
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

impl CheckpointFiles {
    /// # Errors
    /// See [`super::read`].
    pub fn open(dir: &Path, architecture: &dyn Architecture) -> Result<Self> {
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
                let published = architecture.published_name(&name);
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
        for (name, shape) in architecture.parameter_shapes() {
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
        Ok(CheckpointFiles { paths, tensors, files, head })
    }

    /// See that the head of a tied checkpoint that stores it again is the embedding matrix: reads both in pieces if it does, else nothing.
    ///
    /// # Errors
    /// An input error that names the two: transformers would not tie them.
    pub fn check_head(&self) -> Result<()> {
        let (Some(head), Some(embedding)) = (&self.head, self.tensors.iter().find(|t| t.name.ends_with(EMBEDDING)))
        else {
            return Ok(());
        };
        let differs = || {
            Err(Error::input(format!(
                "{}: `{}` differs from `{}`, but tie_word_embeddings in config.json says that they are one; set it to false if the \
                 head is a matrix of its own, or take `{}` out if it is not",
                self.paths[head.file].display(),
                head.name,
                embedding.name,
                head.name
            )))
        };
        if head.shape != embedding.shape {
            return differs();
        }
        let count: usize = head.shape.iter().product();
        let chunk = |tensor: &StoredTensor, start: usize| -> Result<Vec<f32>> {
            let (length, width) = (CHUNK.min(count - start), tensor.dtype.bitsize() / 8);
            let begin = tensor.info.data_offsets.0 + start * width;
            let (shape, data_offsets) = (vec![length], (begin, begin + length * width));
            let mut values = vec![0.0; length];
            self.files[tensor.file].read(&TensorInfo { dtype: tensor.dtype, shape, data_offsets }, &mut values)?;
            Ok(values)
        };
        (0..count.div_ceil(CHUNK)).into_par_iter().try_for_each(|i| {
            let (head, embedding) = (chunk(head, i * CHUNK)?, chunk(embedding, i * CHUNK)?);
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
    pub(super) fn load(
        &self,
        tensor: &StoredTensor,
        device: &Device,
        storage: WeightStorage,
    ) -> Result<Arc<Parameter>> {
        let shape = tensor.shape.as_slice();
        let value = match storage {
            _ if tensor.is_bf16_in(storage) => match tensor.dtype {
                Dtype::BF16 => Var::from_vec(self.files[tensor.file].read_bf16(&tensor.info)?, shape, device)?,
                _ => Var::from_vec(rounded(&self.values(tensor)?), shape, device)?,
            },
            WeightStorage::Lossless if is_matrix(shape) => {
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
    pub fn bytes(&self, storage: WeightStorage) -> usize {
        let width = |t: &StoredTensor| if t.is_bf16_in(storage) { 2 } else { 4 };
        self.tensors.iter().map(|t| width(t) * t.shape.iter().product::<usize>()).sum()
    }
}

impl StoredTensor {
    /// Norms and biases are few; they are kept in f32 always.
    pub(super) fn is_bf16_in(&self, storage: WeightStorage) -> bool {
        let kept = match storage {
            WeightStorage::F32 => false,
            WeightStorage::Stored | WeightStorage::Lossless => self.dtype == Dtype::BF16,
            WeightStorage::Bf16 => true,
        };
        kept && is_matrix(&self.shape)
    }
}

/// Whether it is a factor of matrix products.
pub(super) fn is_matrix(shape: &[usize]) -> bool {
    shape.len() >= 2
}

/// The nearest numbers in bf16.
fn rounded(values: &[f32]) -> Vec<bf16> {
    let mut all = vec![bf16::ZERO; values.len()];
    all.par_chunks_mut(CHUNK).zip(values.par_chunks(CHUNK)).for_each(|(to, from)| to.convert_from_f32_slice(from));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::convert_dtype::convert;
    use crate::model::init::{Preset, write_checkpoint};
    use crate::model::read_architecture;
    use crate::model::weight_dtype::WeightDtype;
    use crate::model::weights::load;
    use candle_core::{DType, Tensor};

    #[test]
    fn a_tied_head_that_is_stored_again_must_be_the_embedding_matrix() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("model");
        write_checkpoint(&at, Preset::Tiny, 1).unwrap();
        let config = read_architecture(&at).unwrap();
        assert!(config.decoder().tied);
        let file = at.join("model.safetensors");
        let mut all = candle_core::safetensors::load(&file, &Device::Cpu).unwrap();
        let embedding = all["model.embed_tokens.weight"].to_dtype(DType::F32).unwrap();
        let (rows, width) = embedding.dims2().unwrap();
        let mut with = |head: Tensor, name: &str| {
            all.insert(name.into(), head);
            candle_core::safetensors::save(&all, &file).unwrap();
            all.remove(name);
            let stored = CheckpointFiles::open(&at, config.as_ref()).unwrap();
            let told = load(&stored, &Device::Cpu, &|_| WeightStorage::F32).map(drop);
            assert_eq!(told.is_ok(), stored.check_head().is_ok());
            let out = tempfile::tempdir().unwrap();
            assert_eq!(told.is_ok(), convert(&at, out.path(), WeightDtype::F32, false).is_ok());
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
            assert!(said.contains(&format!("`{name}` differs from `model.embed_tokens.weight`")), "{said}");
            assert!(said.contains("set it to false"), "{said}");
        }
    }
}
