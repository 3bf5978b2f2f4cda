//! What a run would take, without running it: the memory plan, and the settings with which it would fit.

use super::example_sizes::{ExampleSize, check_lengths, example_sizes};
use super::freeze::{freeze, freeze_unseen};
use super::memory_plan::{MemoryPlan, program_without_weights};
use super::objective;
use super::start::{RunData, TrainRequest, open};
use crate::comm::Single;
use crate::io::files::format_bytes;
use crate::machine::{self, MemoryLocation, process_memory};
use crate::model::LanguageModel;
use crate::model::lora::{Adapter, LoraSettings, is_adapter};
use crate::model::weights::FROZEN_VARIABLE;
use crate::model::{ComputeDtype, MetaTraining, Processor, meta};
use crate::tasks::Task;
use crate::train::settings::TrainConfig;
use crate::{Error, Result};
use candle_core::Device;
use std::sync::atomic::AtomicBool;

/// The plan of a run, and how it would have to be changed.
#[derive(Debug, Clone)]
pub struct DryRun {
    /// As asked for.
    pub plan: MemoryPlan,
    /// Optimizer steps.
    pub steps: usize,
    /// Training examples.
    pub examples: usize,
    /// Trained parameters, and all.
    pub parameters: (usize, usize),
    /// Available bytes, and of what: this machine's memory, or a GPU's. `None` if the system does not say.
    pub available: Option<(usize, String)>,
    /// Settings that would make it smaller, each on top of those before it, with the plan they give; up to the first that fits.
    pub changes: Vec<(String, MemoryPlan)>,
}

impl DryRun {
    /// Whether a plan fits.
    fn fits(&self, plan: &MemoryPlan) -> bool {
        self.available.as_ref().is_none_or(|(bytes, _)| plan.total() <= *bytes)
    }
}

/// Plan the run at `place`, which may be a GPU that this machine or this build lacks. No weight is read.
///
/// # Errors
/// Whatever would keep the run from beginning: model, data or settings that do not fit together.
pub fn dry_run(request: &TrainRequest, place: MemoryLocation) -> Result<DryRun> {
    let (data, processor) = open(request)?;
    let held = process_memory("VmRSS").unwrap_or(0);
    let mut planner = Planner { request, place, data: &data, processor: &processor, held, sizes: Vec::new() };
    let (plan, parameters) = planner.plan(&request.config)?;
    let available = match place {
        MemoryLocation::Cpu => machine::available_memory().map(|bytes| (bytes, "memory available here".to_string())),
        MemoryLocation::Gpu(index) => machine::gpu_memory(index).map(|bytes| (bytes, "free on the GPU".to_string())),
    };
    let (steps, examples) = (request.config.total_steps(data.train.len()), data.train.len());
    let mut found = DryRun { plan, steps, examples, parameters, available, changes: Vec::new() };
    let (mut config, mut smallest) = (request.config.clone(), found.plan.clone());
    for (words, change) in changes(is_adapter(&request.model)) {
        if found.fits(&smallest) {
            break;
        }
        let Some(changed) = change(&config) else { continue };
        // An adapter on parts that are frozen, say: no way to make it fit.
        let Ok((plan, _)) = planner.plan(&changed) else { continue };
        if plan.total() < smallest.total() {
            found.changes.push((words(&changed), plan.clone()));
            (config, smallest) = (changed, plan);
        }
    }
    Ok(found)
}

struct Planner<'a> {
    request: &'a TrainRequest,
    place: MemoryLocation,
    data: &'a RunData,
    processor: &'a Processor,
    /// What the process holds before any plan is made.
    held: usize,
    /// Of the training examples, once they are known; no change of settings that is tried changes them.
    sizes: Vec<ExampleSize>,
}

impl Planner<'_> {
    /// The plan with these settings, and (trained, all) parameters.
    fn plan(&mut self, config: &TrainConfig) -> Result<(MemoryPlan, (usize, usize))> {
        let Planner { request, data, processor, .. } = *self;
        let (place, compute) = (self.place, config.train.dtype);
        let model = match &config.lora {
            Some(settings) => {
                let base = meta(&request.model, place, compute, MetaTraining::Frozen)?;
                let adapter = Adapter::meta(settings, base.architecture())?;
                base.with_adapter(adapter)?
            }
            None => meta(&request.model, place, compute, MetaTraining::AllBut(&config.train.freeze))?,
        };
        let train = &config.train;
        let model = model
            .with_gradient_checkpointing(train.gradient_checkpointing)
            .with_gradient_buffers(train.gradient_buffers);
        freeze(&model, &config.train.freeze)?;
        let reference = match (objective::needs_reference(config), &config.lora) {
            (false, _) => None,
            (true, Some(_)) => Some(model.without_adapter()?),
            // The adapter as it is, on the same base.
            (true, None) if model.is_adapted() => {
                let adapter = Adapter::read(&request.model, model.architecture(), &Device::Cpu)?;
                Some(model.without_adapter()?.with_adapter(adapter)?)
            }
            (true, None) => Some(meta(&request.model, place, compute, MetaTraining::Frozen)?),
        };
        let stop = AtomicBool::new(false);
        let reference = reference.as_ref().map(|r| r as &dyn LanguageModel);
        let job = data.job(config, (&model, reference), &request.model, processor, &stop, &Single);
        if job.train.is_empty() {
            return Err(Error::input("the dataset has no training examples"));
        }
        freeze_unseen(&job)?;
        if self.sizes.is_empty() {
            self.sizes = example_sizes(&job)?;
            check_lengths(&job, &self.sizes)?;
        }
        // The weights of a model on the meta device are not in memory, and no part of what is held.
        let plan = MemoryPlan::of_run(&job, &self.sizes, program_without_weights(self.held))?;
        let count = |trained: bool| -> usize {
            model.parameters().iter().filter(|p| !trained || p.trainable()).map(|p| p.var.elem_count()).sum()
        };
        Ok((plan, (count(true), count(false))))
    }
}

type Change = fn(&TrainConfig) -> Option<TrainConfig>;
type Words = fn(&TrainConfig) -> String;

/// What makes a run smaller, what costs least first; one from an adapter trains that one. A change gives `None` where it changes nothing.
fn changes(from_adapter: bool) -> Vec<(Words, Change)> {
    let smaller_batch: Change = |config| {
        (config.train.batch_size > 1).then(|| {
            let mut config = config.clone();
            config.train.gradient_accumulation_steps *= config.train.batch_size;
            config.train.batch_size = 1;
            config
        })
    };
    let adapter: (Words, Change) = (
        |_| format!("--set lora.rank={} (an adapter in place of all weights)", LoraSettings::default().rank),
        |config| config.lora.is_none().then(|| with(config, |c| c.lora = Some(LoraSettings::default()))),
    );
    let masters_alone: (Words, Change) = (
        |_| "--set train.dtype=f32 (no copies in bf16)".into(),
        |config| {
            let copies = config.train.dtype == ComputeDtype::Bf16 && config.lora.is_none();
            copies.then(|| with(config, |c| c.train.dtype = ComputeDtype::F32))
        },
    );
    let mut changes: Vec<(Words, Change)> = vec![
        (
            |_| "--set train.gradient_checkpointing=true".into(),
            |config| {
                (!config.train.gradient_checkpointing).then(|| with(config, |c| c.train.gradient_checkpointing = true))
            },
        ),
        (
            |c| {
                format!(
                    "--set train.batch_size=1 --set train.gradient_accumulation_steps={}",
                    c.train.gradient_accumulation_steps
                )
            },
            smaller_batch,
        ),
        (
            |_| "--set rollout.batch_size=1".into(),
            |config| {
                let rollout = config.rollout.as_ref()?;
                (rollout.batch_size != 1).then(|| with(config, |c| c.rollout.iter_mut().for_each(|r| r.batch_size = 1)))
            },
        ),
        (
            |_| "--set eval.batch_size=1".into(),
            |config| (config.eval.batch_size > 1).then(|| with(config, |c| c.eval.batch_size = 1)),
        ),
    ];
    if !from_adapter {
        changes.extend([masters_alone, adapter]);
    }
    changes
}

fn with(config: &TrainConfig, change: impl FnOnce(&mut TrainConfig)) -> TrainConfig {
    let mut config = config.clone();
    change(&mut config);
    config
}

impl std::fmt::Display for DryRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (trained, all) = self.parameters;
        writeln!(
            f,
            "{} steps over {} examples; {:.2} of {:.2} million parameters train",
            self.steps,
            self.examples,
            trained as f64 / 1e6,
            all as f64 / 1e6
        )?;
        writeln!(f, "{}", self.plan)?;
        if self.plan.gpu {
            writeln!(
                f,
                "counted from what candle's ops keep and make; it has not been compared with a GPU's peak yet"
            )?;
        }
        let Some((bytes, what)) = &self.available else {
            let how = if self.plan.gpu { " (nvidia-smi names none, or is not there)" } else { "" };
            return writeln!(f, "Cannot read the free memory on this machine{how}");
        };
        if self.fits(&self.plan) {
            return writeln!(f, "fits: {} {what}", format_bytes(*bytes));
        }
        writeln!(f, "does not fit: {} {what}", format_bytes(*bytes))?;
        for (i, (words, plan)) in self.changes.iter().enumerate() {
            let verdict = if self.fits(plan) { "fits" } else { "does not fit yet" };
            let with = if i == 0 { "with" } else { "and with" };
            writeln!(f, "  {with} {words}: about {}, {verdict}", format_bytes(plan.total()))?;
        }
        if !self.changes.last().is_some_and(|(_, plan)| self.fits(plan)) {
            let images = "smaller images (max_pixels of preprocessor_config.json)";
            let held = if self.plan.gpu {
                String::new()
            } else {
                format!(" {FROZEN_VARIABLE}=bf16 with an adapter of weights stored in f32 or bf16,")
            };
            writeln!(
                f,
                "  none of these makes it fit here; what is left: {images}, shorter responses, train.freeze,{held} or a larger machine"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::settings::Method;

    #[test]
    fn an_adapter_is_suggested_to_a_run_that_trains_all_weights_alone() {
        let config = TrainConfig::from_text(Some(Method::Sft), None, &[]).unwrap();
        let said = |from_adapter: bool| -> Vec<String> {
            changes(from_adapter).iter().filter_map(|(words, change)| change(&config).map(|c| words(&c))).collect()
        };
        assert!(said(false).iter().any(|words| words.contains("lora.rank")), "{:?}", said(false));
        assert!(!said(true).iter().any(|words| words.contains("lora.rank")), "{:?}", said(true));
        assert!(!said(false).iter().any(|words| words.contains("train.dtype")), "{:?}", said(false));
        let half = TrainConfig::from_text(Some(Method::Sft), None, &["train.dtype=bf16".to_string()]).unwrap();
        let said = |from| {
            changes(from).iter().filter_map(|(words, change)| change(&half).map(|c| words(&c))).collect::<Vec<_>>()
        };
        assert!(
            said(false).iter().any(|w| w.contains("train.dtype=f32")) && !said(true).concat().contains("train.dtype")
        );
    }

    #[test]
    fn a_plan_for_a_gpu_says_what_it_rests_on() {
        let said = |gpu: bool, available: Option<usize>| {
            let available = available.map(|bytes| (bytes, "free on the GPU".to_string()));
            let plan = MemoryPlan { weights: 1000, gpu, ..MemoryPlan::default() };
            DryRun { plan, steps: 1, examples: 1, parameters: (1, 1), available, changes: Vec::new() }.to_string()
        };
        assert!(said(true, Some(1 << 30)).contains("memory of the GPU: about"), "{}", said(true, Some(1 << 30)));
        assert!(
            said(true, Some(1 << 30)).contains("not been compared with a GPU")
                && said(true, Some(1 << 30)).contains("fits:")
        );
        assert!(said(true, None).contains("on this machine (nvidia-smi"), "{}", said(true, None));
        assert!(!said(false, Some(1 << 30)).contains("compared with"), "{}", said(false, Some(1 << 30)));
    }
}
