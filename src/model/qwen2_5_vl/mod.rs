//! Qwen2.5-VL: configuration, vision tower, decoder, position ids, training and decoding paths.

mod cache;
pub mod config;
mod generate;
pub(crate) mod index;
mod layout;
mod memory;
pub mod names;
mod predict;
pub mod rope;
mod shards;
mod text;
mod vision;
pub mod weights;

pub use config::Config;
pub use predict::Predicted;

use crate::io::files::Written;
use crate::machine::Place;
use crate::model::lora::{self, Adapter};
use crate::model::{Compute, LanguageModel, LossFn, Prompt, Sequence, TokenGrads, TokenStats};
use crate::nn::{
    GradOrder, GradTarget, Linear, Parameter, ParameterGrads, RowSource, Tape, Value, embed, join_ordered, kl_from,
    linear, parallel_map, read, token_stats,
};
use crate::{Error, Result, rng};
use candle_core::{DType, Device, DeviceLocation, Tensor};
use layout::{Layout, Row};
use rand::Rng as _;
use rayon::prelude::*;
use shards::SideBySide;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use text::Decoder;
use vision::VisionTower;
use weights::{Storage, Stored, Weights};

/// The base of the adapter that was loaded last, which stays in memory for the next one.
static LAST_BASE: Mutex<Option<Base>> = Mutex::new(None);

/// The frozen weights of a checkpoint directory: those of a model that has them already, or read.
fn frozen_base(dir: &Path, config: &Config, device: &Device, compute: Compute) -> Result<Base> {
    let place = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
    let device_name = format!("{:?}", device.location());
    // Held while reading, so that two models that are loaded at once read one base.
    let mut bases = BASES.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    bases.retain(|known| known.weights.strong_count() > 0);
    let known =
        bases.iter().find(|known| known.dir == place && known.device == device_name && known.compute == compute);
    if let Some(base) = known.and_then(|known| known.weights.upgrade()) {
        return Ok(base);
    }
    let stored = Stored::open(dir, config)?;
    let storage = Storage::for_frozen(&stored, place_of(device), compute)?;
    let base = Arc::new(weights::load(&stored, device, &|_| storage)?);
    if compute == Compute::Bf16 {
        weights::enable_bf16_matmul(&base)?;
    }
    base.iter().for_each(|p| p.set_trainable(false));
    bases.push(KnownBase { dir: place, device: device_name, compute, weights: Arc::downgrade(&base) });
    Ok(base)
}

fn place_of(device: &Device) -> Place {
    match device.location() {
        DeviceLocation::Cpu => Place::Cpu,
        DeviceLocation::Cuda { gpu_id: index } | DeviceLocation::Metal { gpu_id: index } => Place::Gpu(index),
    }
}

/// A Qwen2.5-VL model: weights and configuration.
pub struct Model {
    config: Config,
    device: Device,
    vision: VisionTower,
    decoder: Decoder,
    parameters: Vec<Arc<Parameter>>,
    base: Base,
    adapter: Option<Arc<Adapter>>,
    fused: bool,
    recompute: bool,
    /// Seed of the dropout of the current step, and backward passes made in it.
    dropout: Mutex<Option<(u64, u64)>>,
}

/// The weights that are a model's own and not an adapter's, which models may share.
type Base = Arc<Vec<Arc<Parameter>>>;

/// Frozen bases in memory, by directory and device, as long as a model uses them.
static BASES: Mutex<Vec<KnownBase>> = Mutex::new(Vec::new());

/// A base that may still be in memory.
struct KnownBase {
    dir: PathBuf,
    device: String,
    compute: Compute,
    weights: Weak<Vec<Arc<Parameter>>>,
}

impl Model {
    /// Read a checkpoint directory: `config.json` and `model*.safetensors`; its weights can train. Of a directory with an adapter (PEFT)
    /// the adapter can train, and the base is as [`Model::load_frozen`] has it.
    pub fn load(dir: &Path, device: &Device) -> Result<Self> {
        Self::load_to_train(dir, device, Compute::F32, |_| false)
    }

    /// As [`Model::load`], multiplied in `compute`. Weights whose names `frozen` knows are not going to train: stored in bf16, they may be
    /// held so.
    pub fn load_to_train(
        dir: &Path,
        device: &Device,
        compute: Compute,
        frozen: impl Fn(&str) -> bool + Sync,
    ) -> Result<Self> {
        if lora::is_adapter(dir) {
            return Self::load_adapter(dir, device, compute);
        }
        let config = Config::from_dir(dir)?;
        let stored = Stored::open(dir, &config)?;
        let storage = Storage::for_trained(&stored, place_of(device), compute, &frozen)?;
        let base = weights::load(&stored, device, &storage)?;
        if compute == Compute::Bf16 {
            weights::enable_bf16_matmul(&base)?;
        }
        Self::assemble(config, device, Arc::new(base), None)
    }

    /// As [`Model::load`], of weights that do not train: they may be held in bf16 ([`weights::Storage`]), and models loaded from the same
    /// directory while one of them lives share them.
    pub fn load_frozen(dir: &Path, device: &Device) -> Result<Self> {
        Self::load_frozen_in(dir, device, Compute::F32)
    }

    /// As [`Model::load_frozen`], multiplied in `compute`.
    pub fn load_frozen_in(dir: &Path, device: &Device, compute: Compute) -> Result<Self> {
        let model = match lora::is_adapter(dir) {
            true => Self::load_adapter(dir, device, compute)?,
            false => {
                let config = Config::from_dir(dir)?;
                let base = frozen_base(dir, &config, device, compute)?;
                Self::assemble(config, device, base, None)?
            }
        };
        model.parameters.iter().for_each(|p| p.set_trainable(false));
        Ok(model)
    }

    fn load_adapter(dir: &Path, device: &Device, compute: Compute) -> Result<Self> {
        let base_dir = lora::base_of(dir)?;
        let config = Config::from_dir(&base_dir)?;
        let adapter = Adapter::read(dir, &config, device)?;
        let base = frozen_base(&base_dir, &config, device, compute)?;
        // Where one adapter is looked at, others of the same base often follow.
        *LAST_BASE.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(Arc::clone(&base));
        Self::assemble(config, device, base, Some(Arc::new(adapter)))
    }

    /// A model of the architecture in `dir` whose weights are zeros that take no memory: for plans of what it will hold at `place`. Of a
    /// directory with an adapter, the base is frozen, and the adapter on it is read. `frozen` knows the names of what does not train.
    pub fn hollow(dir: &Path, place: Place, compute: Compute, frozen: impl Fn(&str) -> bool + Sync) -> Result<Self> {
        let adapted = lora::is_adapter(dir);
        let base_dir = if adapted { lora::base_of(dir)? } else { dir.to_path_buf() };
        let config = Config::from_dir(&base_dir)?;
        let stored = Stored::open(&base_dir, &config)?;
        let adapter = adapted.then(|| Adapter::read(dir, &config, &Device::Cpu)).transpose()?.map(Arc::new);
        let storage = Storage::for_trained(&stored, place, compute, &|name: &str| adapted || frozen(name))?;
        let mut model =
            Self::assemble(config, &Device::Cpu, Arc::new(weights::hollow(&stored, &storage, compute)?), adapter)?;
        // What runs elsewhere has no fused kernels.
        model.fused = place == Place::Cpu;
        Ok(model)
    }

    /// The same weights, frozen, with an adapter that trains.
    pub fn with_adapter(self, adapter: Adapter) -> Result<Self> {
        self.base.iter().for_each(|p| p.set_trainable(false));
        let (fused, recompute) = (self.fused, self.recompute);
        let model = Self::assemble(self.config, &self.device, self.base, Some(Arc::new(adapter)))?;
        Ok(Model { fused, recompute, ..model })
    }

    /// The same weights, not copied, without the adapter.
    pub fn without_adapter(&self) -> Result<Self> {
        let model = Self::assemble(self.config.clone(), &self.device, Arc::clone(&self.base), None)?;
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

    fn assemble(config: Config, device: &Device, base: Base, adapter: Option<Arc<Adapter>>) -> Result<Self> {
        let adapters = adapter.as_ref().map(|a| a.by_module()).unwrap_or_default();
        let mut weights = Weights::of(base.to_vec(), adapters);
        let vision = VisionTower::new(&config.vision, &mut weights)?;
        let decoder = Decoder::new(&config.text, config.tie_word_embeddings, &mut weights)?;
        let mut parameters = weights.finish(&config)?;
        if let Some(adapter) = &adapter {
            parameters.iter().for_each(|p| p.set_trainable(false));
            parameters.extend(adapter.parameters().map(Arc::clone));
        }
        let (device, dropout) = (device.clone(), Mutex::new(None));
        Ok(Model { config, device, vision, decoder, parameters, base, adapter, fused: true, recompute: false, dropout })
    }

    /// A training step begins: adapters with dropout draw it from `seed`. Without this call nothing is dropped.
    pub fn begin_step(&self, seed: u64) {
        *self.dropout.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some((seed, 0));
    }

    /// Use compositions of candle ops in place of the fused CPU kernels, as other devices do.
    pub fn without_fused_kernels(mut self) -> Self {
        self.fused = false;
        self
    }

    /// Keep only each layer's input for the backward pass, which computes the layer again: about a third more time for a
    /// fraction of the activations. The results are the same to the last bit.
    pub fn recomputing(mut self, recompute: bool) -> Self {
        self.recompute = recompute;
        self
    }

    /// Whether fused kernels are used where the device has them.
    pub fn fused(&self) -> bool {
        self.fused
    }

    /// The architecture.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where the weights are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Write `model*.safetensors` (published names) into an existing checkpoint directory, as f32, bf16 or f16; of a model with an adapter
    /// the adapter alone, in PEFT's form and f32. Returns what the weight files are meant to hold.
    pub fn save_weights(&self, dir: &Path, dtype: DType) -> Result<Vec<Written>> {
        match &self.adapter {
            Some(adapter) => Ok(vec![adapter.write(dir)?]),
            None => weights::write(dir, &self.parameters, dtype),
        }
    }

    /// All weights, in a fixed order (that of the architecture).
    pub fn parameters(&self) -> &[Arc<Parameter>] {
        &self.parameters
    }

    /// Log-probability and entropy of every response token, no gradients.
    pub fn score(&self, batch: &[Sequence], temperature: f32) -> Result<TokenStats> {
        let parts = self.by_shards(batch, |shard| {
            let (_, stats) = self.token_stats(&self.tape(false), &batch[shard], temperature)?;
            Ok(stats)
        });
        let mut all = TokenStats { logprobs: Vec::new(), entropies: Vec::new(), kl: None };
        for part in parts {
            let part = part?;
            all.logprobs.extend(part.logprobs);
            all.entropies.extend(part.entropies);
        }
        Ok(all)
    }

    /// `part` of every shard of the batch, in order: as many at once as the model's size allows.
    fn by_shards<T: Send>(
        &self,
        batch: &[Sequence],
        part: impl Fn(Range<usize>) -> Result<T> + Sync,
    ) -> Vec<Result<T>> {
        let shards = self.shards(batch);
        match shards::side_by_side(shards.len(), self.weight_bytes(|_| true)) {
            SideBySide::Lanes(_) => parallel_map(shards.len(), |i| part(shards[i].clone())),
            SideBySide::Pairs => {
                let at_once = |two: &[Range<usize>]| match two {
                    [a, b] => {
                        <[_; 2]>::from(join_ordered(&GradOrder::default(), || part(a.clone()), || part(b.clone())))
                            .into()
                    }
                    rest => rest.iter().cloned().map(&part).collect::<Vec<_>>(),
                };
                shards.chunks(2).flat_map(at_once).collect()
            }
            SideBySide::Nothing => shards.into_iter().map(part).collect(),
        }
    }

    /// See [`LanguageModel::backward`].
    pub fn backward(
        &self,
        batch: &[Sequence],
        temperature: f32,
        kl_reference: Option<&dyn LanguageModel>,
        loss: &LossFn<'_>,
    ) -> Result<()> {
        if kl_reference.is_some() && temperature != 1.0 {
            return Err(Error::failed("the KL divergence from a reference is computed at temperature 1 only"));
        }
        let dropout = self.next_dropout();
        self.over_shards(batch, |shard, sink| {
            let tape = self.recording_tape(dropout, shard);
            let sequences = &batch[shard.clone()];
            let (value, mut stats) = self.token_stats(&tape, sequences, temperature)?;
            let kl = match (&value, kl_reference) {
                (Some((_, predictors)), Some(reference)) => {
                    Some(kl_from(&tape, &reference.lazy_logits(sequences)?, predictors, &self.decoder.head)?)
                }
                _ => None,
            };
            stats.kl = match &kl {
                Some(kl) => Some(kl.tensor.to_vec1::<f32>()?),
                None => kl_reference.map(|_| Vec::new()),
            };
            let mut grads = loss(shard.clone(), &stats)?;
            let Some((value, _)) = value else { return Ok(()) };
            let mut upstream = Vec::new();
            let by_kl = grads.kl.take();
            upstream.push((value, self.upstream_grad(grads)?));
            match (kl, by_kl) {
                (Some(kl), Some(by_kl)) => {
                    let rows = by_kl.len();
                    upstream.push((kl, Tensor::from_vec(by_kl, rows, &Device::Cpu)?.to_device(&self.device)?));
                }
                (None, Some(_)) => return Err(Error::failed("the loss has a gradient of a KL that was not computed")),
                (_, None) => {}
            }
            tape.backward_to(upstream, sink)
        })
    }

    /// The seed of this backward pass's dropout: another for every pass of a step.
    fn next_dropout(&self) -> Option<u64> {
        let mut state = self.dropout.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        state.as_mut().map(|(seed, passes)| {
            *passes += 1;
            rng::stream(*seed, "dropout", &[*passes]).next_u64()
        })
    }

    fn recording_tape(&self, dropout: Option<u64>, shard: &Range<usize>) -> Tape {
        self.tape(true).with_dropout(dropout.map(|seed| seed.wrapping_add(shard.start as u64)))
    }

    /// `shard` of every shard of the batch, which adds to the gradients through the sink it is given.
    fn over_shards(
        &self,
        batch: &[Sequence],
        shard: impl Fn(&Range<usize>, GradTarget<'_>) -> Result<()> + Sync,
    ) -> Result<()> {
        let shards = self.shards(batch);
        match shards::side_by_side(shards.len(), self.trained_bytes()) {
            SideBySide::Lanes(count) => {
                let parts = parallel_map(count, |lane| {
                    let mut grads = ParameterGrads::default();
                    let mut own = shards.iter().skip(lane).step_by(count);
                    own.try_for_each(|s| shard(s, GradTarget::Separate(&mut grads)))?;
                    Ok(grads)
                });
                self.add_gradients(&parts.into_iter().collect::<Result<Vec<_>>>()?)
            }
            SideBySide::Pairs => shards.chunks(2).try_for_each(|two| {
                let [a, b] = two else { return two.iter().try_for_each(|s| shard(s, GradTarget::Parameters)) };
                let several = |p: &Parameter| self.several_gradients(p);
                let (lead, mut apart) = (GradOrder::default(), ParameterGrads::default());
                let (first, second) = join_ordered(
                    &lead,
                    || shard(a, GradTarget::First(&lead, &several)),
                    || shard(b, GradTarget::Second(&lead, &several, &mut apart)),
                );
                first.and(second)?;
                self.add_gradients(&[apart])
            }),
            SideBySide::Nothing => shards.iter().try_for_each(|s| shard(s, GradTarget::Parameters)),
        }
    }

    /// Does a parameter take several gradients in a pass? The embeddings take them from the input and, tied, from the output,
    /// the output matrix tile by tile.
    fn several_gradients(&self, parameter: &Parameter) -> bool {
        parameter.name.contains("embed_tokens") || parameter.name.starts_with("lm_head")
    }

    /// Add gradients kept apart, set by set, to those of the parameters.
    fn add_gradients(&self, parts: &[ParameterGrads]) -> Result<()> {
        self.parameters.par_iter().try_for_each(|parameter| {
            parts.iter().filter_map(|part| part.get(parameter)).try_for_each(|grad| {
                let grad = read(grad)?;
                parameter.accumulate(|sum, filled| match filled {
                    true => sum.iter_mut().zip(grad.iter()).for_each(|(s, g)| *s += g),
                    false => sum.copy_from_slice(&grad),
                })
            })
        })
    }

    /// The loss's gradient with respect to [`Model::token_stats`], `[2, rows]`.
    fn upstream_grad(&self, grads: TokenGrads) -> Result<Tensor> {
        let rows = grads.logprobs.len();
        let mut upstream = grads.logprobs;
        match grads.entropies {
            Some(entropies) => upstream.extend(entropies),
            None => upstream.resize(2 * rows, 0.0),
        }
        Ok(Tensor::from_vec(upstream, (2, rows), &Device::Cpu)?.to_device(&self.device)?)
    }

    /// The parts in which `batch` is worked on.
    fn shards(&self, batch: &[Sequence]) -> Vec<Range<usize>> {
        match self.on_lanes() {
            true => shards::shards(batch, self.trained_bytes()),
            false => std::iter::once(0..batch.len()).collect(),
        }
    }

    /// Whether the fused kernels of a CPU do the work, which may then be cut into pieces that run on a thread each.
    pub(crate) fn on_lanes(&self) -> bool {
        self.fused && matches!(self.device, Device::Cpu)
    }

    /// Bytes by which the cut of a batch is chosen: those of the trainable parameters; of a model that takes its batches one shard at a
    /// time when it is only looked at, all.
    fn trained_bytes(&self) -> usize {
        let all = self.weight_bytes(|_| true);
        match shards::side_by_side(2, all) {
            SideBySide::Nothing => all,
            _ => self.weight_bytes(|p| p.trainable()),
        }
    }

    fn weight_bytes(&self, counts: impl Fn(&Parameter) -> bool) -> usize {
        self.parameters.iter().filter(|p| counts(p)).map(|p| 4 * p.var.elem_count()).sum()
    }

    /// Logits at every position of a prompt: `[tokens, vocab]`. For comparisons; training never forms them.
    pub fn logits(&self, prompt: &Arc<Prompt>) -> Result<Tensor> {
        let tape = self.tape(false);
        let layout = Layout::of_prompts(std::slice::from_ref(prompt), &self.config)?;
        let hidden = self.hidden(&tape, &layout, None, |_, _| Ok(()))?;
        let hidden = self.decoder.finish(&tape, &hidden)?.tensor;
        let head = Linear::without_bias(Arc::clone(&self.decoder.head));
        Ok(linear(&tape, &Value::constant(hidden), &[&head], None)?.tensor)
    }

    fn tape(&self, recording: bool) -> Tape {
        let tape = if recording { Tape::new() } else { Tape::no_grad() };
        if self.fused { tape } else { tape.reference() }
    }

    /// Statistics of every response token, and the value to differentiate with what it is made of, the normed hidden states that
    /// predict them (`None` if there is no response token).
    fn token_stats(
        &self,
        tape: &Tape,
        batch: &[Sequence],
        temperature: f32,
    ) -> Result<(Option<(Value, Value)>, TokenStats)> {
        let layout = Layout::of_sequences(batch, &self.config)?;
        if layout.targets.is_empty() {
            return Ok((None, TokenStats { logprobs: Vec::new(), entropies: Vec::new(), kl: None }));
        }
        let predictors = self.hidden(tape, &layout, Some(layout.predictors.clone()), |_, _| Ok(()))?;
        let predictors = self.decoder.finish(tape, &predictors)?;
        let value = token_stats(tape, &predictors, &self.decoder.head, layout.targets, temperature)?;
        let mut both = value.tensor.to_vec2::<f32>()?;
        let entropies = both.pop().unwrap_or_default();
        let logprobs = both.pop().unwrap_or_default();
        Ok((Some((value, predictors)), TokenStats { logprobs, entropies, kl: None }))
    }

    /// Hidden states of all rows, or of the `wanted` ones, before the final norm; `keep` sees each layer's rotated `qkv`.
    fn hidden(
        &self,
        tape: &Tape,
        layout: &Layout,
        wanted: Option<Vec<u32>>,
        keep: impl FnMut(usize, &Tensor) -> Result<()>,
    ) -> Result<Value> {
        let recompute = self.recompute && tape.is_recording();
        let features = match layout.images.is_empty() {
            true => None,
            false => Some(self.vision.forward(tape, &layout.images, &self.device, recompute)?),
        };
        let source = |row: &Row| match (row, &features) {
            (Row::Image { image, unit }, Some(f)) => RowSource::Image(f.places[*image][*unit]),
            (Row::Image { .. }, None) => RowSource::Token(self.config.image_token_id),
            (Row::Token(id), _) => RowSource::Token(*id),
        };
        let sources = layout.rows.iter().map(source).collect();
        let x = embed(tape, &self.decoder.embedding, features.as_ref().map(|f| &f.rows), sources)?;
        let table = self.decoder.rotations(layout.positions.each_ref().map(Vec::as_slice));
        let span_groups = Arc::new(layout.span_groups.clone());
        match recompute {
            true => self.decoder.forward_checkpointed(tape, x, &table, &span_groups, wanted),
            false => self.decoder.forward(tape, x, &table, &span_groups, wanted, keep),
        }
    }
}
