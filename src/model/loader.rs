//! From a checkpoint directory to a [`Model`].

use super::architecture::Architecture;
use super::checkpoint_config::read_architecture;
use super::compute_dtype::ComputeDtype;
use super::language_model::LanguageModel as _;
use super::lora::{self, Adapter};
use super::parts::Part;
use super::transformer::{Base, Model};
use super::weights::{self, CheckpointFiles};
use crate::Result;
use crate::machine::MemoryLocation;
use crate::nn::Parameter;
use candle_core::{Device, DeviceLocation};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

/// Load the model in a checkpoint directory, f32, all of its weights trainable; of a directory with an adapter (PEFT) the base, frozen,
/// with the adapter, which is trainable. The family is found by `config.json`.
///
/// # Errors
/// An input error that names the file and the field or tensor that is wrong.
pub fn load(dir: &Path, device: &Device) -> Result<Model> {
    ModelLoader::new(device, ComputeDtype::F32).trainable(dir, &[])
}

/// Loads models to one device, for matrix products of one type. Models with the same frozen base share its weights: while one of them
/// lives, and, of the adapter loaded last, as long as the loader lives.
pub struct ModelLoader {
    device: Device,
    compute: ComputeDtype,
    bases: Mutex<Bases>,
}

#[derive(Default)]
struct Bases {
    /// By directory, those that a model may still hold.
    known: Vec<(PathBuf, Weak<Vec<Arc<Parameter>>>)>,
    /// The base of the last adapter: where one adapter is looked at, others of the same base often follow.
    last: Option<Base>,
}

impl ModelLoader {
    /// Nothing is loaded yet.
    pub fn new(device: &Device, compute: ComputeDtype) -> Self {
        ModelLoader { device: device.clone(), compute, bases: Mutex::default() }
    }

    /// The type of the products.
    pub fn compute(&self) -> ComputeDtype {
        self.compute
    }

    /// Where models are loaded to.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// A model that trains, but for what `freeze` names (see [`Part::is_named_by`]): frozen weights stored in bf16 may be held so. Of a
    /// directory with an adapter only the adapter trains.
    ///
    /// # Errors
    /// An input error that names the file and the field or tensor that is wrong.
    pub fn trainable(&self, dir: &Path, freeze: &[String]) -> Result<Model> {
        if lora::is_adapter(dir) {
            return self.adapted(dir);
        }
        let architecture = read_architecture(dir)?;
        let files = CheckpointFiles::open(dir, architecture.as_ref())?;
        let frozen = |name: &str| is_frozen(architecture.as_ref(), name, freeze);
        let storage = weights::storage_for_trained(&files, place_of(&self.device), self.compute, &frozen)?;
        let base = weights::load(&files, &self.device, &storage)?;
        if self.compute == ComputeDtype::Bf16 {
            weights::enable_bf16_matmul(&base)?;
        }
        Model::assemble(architecture, &self.device, Arc::new(base), None)
    }

    /// A model that does not train. Its weights may be held in bf16 (see [`weights::WeightStorage`]).
    ///
    /// # Errors
    /// As [`ModelLoader::trainable`].
    pub fn frozen(&self, dir: &Path) -> Result<Model> {
        let model = match lora::is_adapter(dir) {
            true => self.adapted(dir)?,
            false => {
                let architecture = read_architecture(dir)?;
                let base = self.base(dir, architecture.as_ref())?;
                Model::assemble(architecture, &self.device, base, None)?
            }
        };
        model.parameters().iter().for_each(|p| p.set_trainable(false));
        Ok(model)
    }

    fn adapted(&self, dir: &Path) -> Result<Model> {
        let base_dir = lora::base_of(dir)?;
        let architecture = read_architecture(&base_dir)?;
        let adapter = Adapter::read(dir, architecture.as_ref(), &self.device)?;
        let base = self.base(&base_dir, architecture.as_ref())?;
        self.bases.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).last = Some(Arc::clone(&base));
        Model::assemble(architecture, &self.device, base, Some(Arc::new(adapter)))
    }

    /// The frozen weights of a checkpoint directory: those that a model has already, or read.
    fn base(&self, dir: &Path, architecture: &dyn Architecture) -> Result<Base> {
        let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
        // Held while reading, so that two models that are loaded at once read one base.
        let mut bases = self.bases.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        bases.known.retain(|(_, weights)| weights.strong_count() > 0);
        if let Some(base) = bases.known.iter().find(|(known, _)| *known == dir).and_then(|(_, base)| base.upgrade()) {
            return Ok(base);
        }
        let files = CheckpointFiles::open(&dir, architecture)?;
        let storage = weights::storage_for_frozen(&files, place_of(&self.device), self.compute)?;
        let base = Arc::new(weights::load(&files, &self.device, &|_| storage)?);
        if self.compute == ComputeDtype::Bf16 {
            weights::enable_bf16_matmul(&base)?;
        }
        base.iter().for_each(|p| p.set_trainable(false));
        bases.known.push((dir, Arc::downgrade(&base)));
        Ok(base)
    }
}

/// Which weights of a model on the meta device would train.
#[derive(Debug, Clone, Copy)]
pub enum MetaTraining<'a> {
    /// None.
    Frozen,
    /// All but what this names.
    AllBut(&'a [String]),
}

/// As PyTorch's meta device: a model with the shapes and types that [`ModelLoader`] would give it at `place`, whose weights are zeros that
/// take no memory. For memory plans. Of a directory with an adapter, the base is frozen, and the adapter on it is read.
///
/// # Errors
/// As [`ModelLoader::trainable`].
pub fn meta(dir: &Path, place: MemoryLocation, compute: ComputeDtype, training: MetaTraining<'_>) -> Result<Model> {
    let adapted = lora::is_adapter(dir);
    let base_dir = if adapted { lora::base_of(dir)? } else { dir.to_path_buf() };
    let architecture = read_architecture(&base_dir)?;
    let files = CheckpointFiles::open(&base_dir, architecture.as_ref())?;
    let adapter = match adapted {
        true => Some(Arc::new(Adapter::read(dir, architecture.as_ref(), &Device::Cpu)?)),
        false => None,
    };
    let frozen = |name: &str| match training {
        MetaTraining::Frozen => true,
        MetaTraining::AllBut(freeze) => adapted || is_frozen(architecture.as_ref(), name, freeze),
    };
    let storage = weights::storage_for_trained(&files, place, compute, &frozen)?;
    let base = Arc::new(weights::meta(&files, &storage, compute)?);
    let model = Model::assemble(Arc::clone(&architecture), &Device::Cpu, base, adapter)?;
    // Other devices have no fused kernels.
    Ok(if place == MemoryLocation::Cpu { model } else { model.without_fused_kernels() })
}

fn is_frozen(architecture: &dyn Architecture, name: &str, freeze: &[String]) -> bool {
    let part: Part = architecture.part(name);
    freeze.iter().any(|pattern| part.is_named_by(pattern, name))
}

fn place_of(device: &Device) -> MemoryLocation {
    match device.location() {
        DeviceLocation::Cpu => MemoryLocation::Cpu,
        DeviceLocation::Cuda { gpu_id: index } | DeviceLocation::Metal { gpu_id: index } => MemoryLocation::Gpu(index),
    }
}
