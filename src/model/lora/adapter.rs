//! The adapter of a model in memory.

use super::config;
use super::settings::LoraSettings;
use super::targets::LoraModule;
use crate::model::architecture::Architecture;
use crate::nn::{Lora, Parameter};
use crate::{Result, rng};
use candle_core::{Device, Tensor, Var};
use rand::RngExt;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// The adapter of a model: a pair of matrices for each of its modules.
pub struct Adapter {
    /// What `adapter_config.json` says.
    pub(super) about: Value,
    /// Of each adapted module, by the order of the architecture.
    pub(super) parts: Vec<(LoraModule, Lora)>,
    /// A warning about the adapter, for the user.
    pub(super) warning: Option<String>,
}

impl Adapter {
    /// A fresh one for a model of this architecture: A uniform in `±1/sqrt(in)`, B zero, as PEFT begins, so that the model is the base.
    /// `base` is its directory, or its name on the Hub and the revision.
    ///
    /// # Errors
    /// See [`Targets::select`](super::Targets::select).
    pub fn fresh(
        settings: &LoraSettings,
        architecture: &dyn Architecture,
        (base, revision): (&str, Option<&str>),
        seed: u64,
        device: &Device,
    ) -> Result<Adapter> {
        let scale = settings.scale(settings.rank);
        let mut parts = Vec::new();
        for module in settings.target.select(architecture)? {
            let mut rng = rng::stream(seed, &format!("lora {}", module.name), &[]);
            let bound = 1.0 / (module.width as f32).sqrt();
            let count = settings.rank * module.width;
            let values: Vec<f32> = (0..count).map(|_| rng.random_range(-bound..bound)).collect();
            let a = Tensor::from_vec(values, (settings.rank, module.width), device)?;
            let b = Tensor::zeros((module.out, settings.rank), candle_core::DType::F32, device)?;
            let lora = pair(&module, a, b, scale, settings.dropout as f32)?;
            parts.push((module, lora));
        }
        let mut about = config::describe(settings, architecture, base);
        about["revision"] = revision.into();
        Ok(Adapter { about, parts, warning: None })
    }

    /// A warning for the user about an adapter that was read: it lacks matrices for modules that `target_modules` names.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// Probability with which elements of its input are dropped in training (`lora_dropout`).
    pub(crate) fn dropout(&self) -> f32 {
        self.parts.first().map_or(0.0, |(_, lora)| lora.dropout)
    }

    /// Adapters by the name of their module.
    pub(crate) fn by_module(&self) -> HashMap<String, Lora> {
        self.parts.iter().map(|(module, lora)| (module.name.clone(), lora.clone())).collect()
    }

    /// Its matrices, A before B of each module.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = &Arc<Parameter>> {
        self.parts.iter().flat_map(|(_, lora)| [&lora.a, &lora.b])
    }
}

/// The matrices of a module as parameters.
pub(super) fn pair(module: &LoraModule, a: Tensor, b: Tensor, scale: f64, dropout: f32) -> Result<Lora> {
    let parameter = |kind: &str, tensor: &Tensor| -> Result<Arc<Parameter>> {
        Ok(Arc::new(Parameter::new(format!("{}.lora_{kind}.weight", module.name), Var::from_tensor(tensor)?)))
    };
    // FNV-1a of the name: the same for the same module in every run.
    let layer_hash = module
        .name
        .bytes()
        .fold(0xCBF2_9CE4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3));
    Ok(Lora { a: parameter("A", &a)?, b: parameter("B", &b)?, scale: scale as f32, dropout, layer_hash })
}
