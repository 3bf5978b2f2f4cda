//! A loaded model: an architecture, its weights, and maybe an adapter.

use super::architecture::{Architecture, Network};
use super::language_model::{LanguageModel, MemoryFootprint};
use super::lora::Adapter;
use super::parts::Part;
use super::sequence::{Completion, KlReference, Prompt, ResponseEnd, SamplingParams, Sequence, TokenLoss, TokenStats};
use super::weights::{self, NamedWeights};
use crate::Result;
use crate::comm::Communicator;
use crate::io::files::FileChecksum;
use crate::nn::{LazyLogits, Parameter, Tape};
use candle_core::{DType, Device};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// The weights that are a model's own and not an adapter's, which models may share.
pub(super) type Base = Arc<Vec<Arc<Parameter>>>;

/// A model of any family. [`super::load`] and [`super::ModelLoader`] make it.
pub struct Model {
    architecture: Arc<dyn Architecture>,
    device: Device,
    pub(super) network: Network,
    parameters: Vec<Arc<Parameter>>,
    base: Base,
    adapter: Option<Arc<Adapter>>,
    fused: bool,
    pub(super) gradient_checkpointing: bool,
    pub(super) gradient_buffers: usize,
    /// Seed of the dropout of the current step, and backward passes made in it.
    dropout: Mutex<Option<(u64, u64)>>,
}

impl Model {
    pub(super) fn assemble(
        architecture: Arc<dyn Architecture>,
        device: &Device,
        base: Base,
        adapter: Option<Arc<Adapter>>,
    ) -> Result<Self> {
        let adapters = adapter.as_ref().map(|a| a.by_module()).unwrap_or_default();
        let mut weights = NamedWeights::of(base.to_vec(), adapters);
        let network = architecture.build(&mut weights)?;
        let mut parameters = weights.finish(architecture.parameter_shapes().into_iter().map(|(name, _)| name))?;
        if let Some(adapter) = &adapter {
            parameters.iter().for_each(|p| p.set_trainable(false));
            parameters.extend(adapter.parameters().map(Arc::clone));
        }
        Ok(Model {
            architecture,
            device: device.clone(),
            network,
            parameters,
            base,
            adapter,
            fused: true,
            gradient_checkpointing: false,
            gradient_buffers: 1,
            dropout: Mutex::new(None),
        })
    }

    /// The same weights, frozen, with an adapter that trains.
    pub fn with_adapter(self, adapter: Adapter) -> Result<Self> {
        self.base.iter().for_each(|p| p.set_trainable(false));
        let (fused, gradient_checkpointing, gradient_buffers) =
            (self.fused, self.gradient_checkpointing, self.gradient_buffers);
        let model = Self::assemble(self.architecture, &self.device, self.base, Some(Arc::new(adapter)))?;
        Ok(Model { fused, gradient_checkpointing, gradient_buffers, ..model })
    }

    /// The same weights, not copied, without the adapter.
    pub fn without_adapter(&self) -> Result<Self> {
        let model = Self::assemble(Arc::clone(&self.architecture), &self.device, Arc::clone(&self.base), None)?;
        Ok(Model { fused: self.fused, ..model })
    }

    /// Whether an adapter is on.
    pub fn is_adapted(&self) -> bool {
        self.adapter.is_some()
    }

    /// Probability with which the adapter drops elements of its input in training, if one is on.
    pub fn dropout(&self) -> f32 {
        self.adapter.as_ref().map_or(0.0, |adapter| adapter.dropout())
    }

    /// The step's dropout seed and the number of this backward pass in it; `None` before the first [`LanguageModel::begin_step`].
    pub(super) fn next_dropout_pass(&self) -> Option<(u64, u64)> {
        let mut state = self.dropout.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        state.as_mut().map(|(seed, passes)| {
            *passes += 1;
            (*seed, *passes)
        })
    }

    /// Use the reference implementations in candle ops, as other devices do, instead of the fused CPU kernels.
    pub fn without_fused_kernels(mut self) -> Self {
        self.fused = false;
        self
    }

    /// Keep only each layer's input for the backward pass, which computes the layer again: about a third more time for a
    /// fraction of the activations. The results are the same to the last bit.
    pub fn with_gradient_checkpointing(mut self, on: bool) -> Self {
        self.gradient_checkpointing = on;
        self
    }

    /// Sum the gradients of a batch in at least so many sets, where the kernels of the CPU do the work: several ranks compute a set each, and
    /// a single process keeps them all. Another number of sets gives other last digits.
    pub fn with_gradient_buffers(mut self, sets: usize) -> Self {
        self.gradient_buffers = sets;
        self
    }

    /// Whether fused kernels are used where the device has them.
    pub fn fused(&self) -> bool {
        self.fused
    }

    /// The architecture.
    pub fn architecture(&self) -> &dyn Architecture {
        self.architecture.as_ref()
    }

    /// Where the weights are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    pub(super) fn tape(&self, recording: bool) -> Tape {
        let tape = if recording { Tape::new() } else { Tape::no_grad() };
        if self.fused { tape } else { tape.reference() }
    }
}

impl LanguageModel for Model {
    fn parameters(&self) -> &[Arc<Parameter>] {
        &self.parameters
    }

    fn part(&self, parameter: &str) -> Part {
        self.architecture.part(parameter)
    }

    fn score(&self, batch: &[Sequence], temperature: f32) -> Result<TokenStats> {
        self.score_shards(batch, temperature)
    }

    fn distributed_backward(
        &self,
        comm: &dyn Communicator,
        batch: &[Sequence],
        temperature: f32,
        kl_reference: Option<&KlReference<'_>>,
        loss: &dyn TokenLoss,
    ) -> Result<()> {
        self.backward_shards(comm, batch, temperature, kl_reference, loss)
    }

    fn begin_step(&self, seed: u64) {
        *self.dropout.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some((seed, 0));
    }

    fn lazy_logits(&self, batch: &[Sequence]) -> Result<LazyLogits> {
        self.logits_of_shard(batch)
    }

    fn generate_from(
        &self,
        first: usize,
        prompts: &[Arc<Prompt>],
        samples: usize,
        sampling: &SamplingParams,
        end: ResponseEnd<'_>,
        banned: &[u32],
    ) -> Result<Vec<Vec<Completion>>> {
        self.decode_prompts(first, prompts, samples, sampling, end, banned)
    }

    fn save_weights(&self, dir: &Path) -> Result<Vec<FileChecksum>> {
        match &self.adapter {
            Some(adapter) => Ok(vec![adapter.write(dir)?]),
            None => weights::write(dir, &self.parameters, DType::F32),
        }
    }

    fn memory_footprint(&self) -> Option<&dyn MemoryFootprint> {
        Some(self)
    }
}
