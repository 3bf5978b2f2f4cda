//! The adapter of a model in memory.

use super::config;
use super::settings::LoraSettings;
use super::targets::LoraModule;
use crate::model::architecture::Architecture;
use crate::nn::{Lora, Parameter};
use crate::{Error, Result, rng};
use candle_core::{Device, Var};
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
        let values = |module: &LoraModule| -> Vec<f32> {
            let mut rng = rng::stream(seed, &format!("lora {}", module.name), &[]);
            let bound = 1.0 / (module.width as f32).sqrt();
            (0..settings.rank * module.width).map(|_| rng.random_range(-bound..bound)).collect()
        };
        let mut about = config::describe(settings, architecture, base);
        about["revision"] = revision.into();
        Ok(Adapter { about, parts: parts(settings, architecture, device, values)?, warning: None })
    }

    /// As [`Adapter::fresh`] on the meta device: of zeros that take no memory. For memory plans.
    ///
    /// # Errors
    /// As [`Adapter::fresh`].
    pub fn meta(settings: &LoraSettings, architecture: &dyn Architecture) -> Result<Adapter> {
        let zeros = |module: &LoraModule| vec![0.0; settings.rank * module.width];
        Ok(Adapter { about: Value::Null, parts: parts(settings, architecture, &Device::Cpu, zeros)?, warning: None })
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

/// The matrices of each module that `settings` names: A of `values`, B of zeros.
fn parts(
    settings: &LoraSettings,
    architecture: &dyn Architecture,
    device: &Device,
    values: impl Fn(&LoraModule) -> Vec<f32>,
) -> Result<Vec<(LoraModule, Lora)>> {
    let (rank, scale) = (settings.rank, settings.scale(settings.rank));
    let modules = settings.target.select(architecture)?;
    let highest = modules.iter().map(|module| module.out.min(module.width)).max().unwrap_or(0);
    if rank > highest {
        return Err(Error::input(format!(
            "lora.rank = {rank}: must be at most {highest}; no matrix that the adapter is for has a higher rank"
        )));
    }
    let part = |module: LoraModule| -> Result<(LoraModule, Lora)> {
        let a = Var::from_vec(values(&module), (rank, module.width), device)?;
        let b = Var::from_vec(vec![0f32; module.out * rank], (module.out, rank), device)?;
        let lora = pair(&module, a, b, scale, settings.dropout as f32);
        Ok((module, lora))
    };
    modules.into_iter().map(part).collect()
}

/// The matrices of a module as parameters.
pub(super) fn pair(module: &LoraModule, a: Var, b: Var, scale: f64, dropout: f32) -> Lora {
    let parameter = |kind: &str, var: Var| Arc::new(Parameter::new(format!("{}.lora_{kind}.weight", module.name), var));
    // FNV-1a of the name: the same for the same module in every run.
    let layer_hash = module
        .name
        .bytes()
        .fold(0xCBF2_9CE4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3));
    Lora { a: parameter("A", a), b: parameter("B", b), scale: scale as f32, dropout, layer_hash }
}
