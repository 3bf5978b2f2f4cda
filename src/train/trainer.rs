//! The loop that SFT and RFT share: rounds of steps, evaluation, checkpoints, stopping and resuming.

use super::batch_sampler::BatchSampler;
use super::checkpoint::{self, Checkpoint, TrainerState};
use super::disk_space::DiskGuard;
use super::evaluate::evaluate;
use super::freeze::freeze;
use super::gradient_check;
use super::memory_plan::{MemoryPlan, process_memory};
use super::metrics::{Log, Metrics, Sample};
use super::optimizer::{AdamW, norm_of};
use super::prefetch::Prefetcher;
use super::run_dir::{RunDir, RunSummary};
use super::schedule::learning_rate;
use super::sizes::{Size, sizes};
use super::{grpo, sft};
use crate::io::files;
use crate::model::Sequence;
use crate::model::{LanguageModel, PromptEncoder};
use crate::tasks::Task;
use crate::train::settings::{Method, TrainConfig};
use crate::{Error, Result, rng};
use rand::Rng as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Who is told how a run goes on.
pub trait TrainerCallback {
    /// The run begins (or goes on) after `step` of `total` steps.
    fn start(&mut self, step: usize, total: usize);
    /// A step is done.
    fn step(&mut self, step: usize, metrics: &Metrics);
    /// An evaluation is done.
    fn evaluation(&mut self, step: usize, metrics: &Metrics);
    /// Something a person should read.
    fn note(&mut self, text: &str);
}

/// Everything a run needs.
pub struct TrainJob<'a> {
    /// The plan.
    pub config: &'a TrainConfig,
    /// The model being trained, holding the weights of the start or of the checkpoint resumed from.
    pub policy: &'a dyn LanguageModel,
    /// A frozen copy of the model the run started from; needed when `grpo.beta` or `sft.kl_coef` is above 0.
    pub reference: Option<&'a dyn LanguageModel>,
    /// The model directory the run started from, for the files beside the weights.
    pub base: &'a Path,
    /// Tokenizer and image preprocessing.
    pub codec: &'a dyn PromptEncoder,
    /// Training examples.
    pub train: &'a dyn Task,
    /// So many of them, at the end, are replayed from another dataset (`sft.replay`).
    pub replayed: usize,
    /// Validation examples, if there are any.
    pub validation: Option<&'a dyn Task>,
    /// Set from outside to end the run after the current round.
    pub stop: &'a AtomicBool,
}

impl TrainJob<'_> {
    /// Training examples of the run's own dataset.
    pub(super) fn own(&self) -> usize {
        self.train.len() - self.replayed
    }

    /// The examples before this one are answered by the model itself; those from it on have reference responses that are learnt.
    pub(super) fn sampled(&self) -> usize {
        let refreshes = self.config.sft.as_ref().is_some_and(|sft| sft.resample_every > 0);
        if self.config.train.method == Method::Rft || refreshes { self.own() } else { 0 }
    }
}

/// How a call of [`train`] ended.
#[derive(Debug, Clone, PartialEq)]
pub enum TrainOutcome {
    /// All steps are made.
    Finished(RunSummary),
    /// They were made by an earlier call; nothing was done.
    AlreadyFinished(RunSummary),
    /// Stopped on request after this step, with a checkpoint.
    Stopped(usize),
}

/// The state that a round changes.
pub(super) struct StepContext<'a> {
    pub job: &'a TrainJob<'a>,
    pub optimizer: AdamW,
    pub sampler: BatchSampler,
    pub prefetcher: Prefetcher<'a>,
    pub state: TrainerState,
    pub total: usize,
    pub log: Log,
    /// The gradients of the first step are still to be looked at.
    pub unchecked: bool,
    pub progress: &'a mut dyn TrainerCallback,
}

/// Train, from the start or from `resume`, in the run directory `run`.
pub fn train(
    job: &TrainJob<'_>,
    run: &RunDir,
    resume: Option<&Checkpoint>,
    progress: &mut dyn TrainerCallback,
) -> Result<TrainOutcome> {
    let config = job.config;
    let own = job.own();
    if own == 0 {
        return Err(Error::input("the dataset has no training examples"));
    }
    freeze(job.policy, &config.train.freeze)?;
    if resume.is_none() {
        DiskGuard::of(job, run).check_before_start(config.train.save_total_limit, progress)?;
    }
    let mut optimizer = AdamW::new(job.policy.parameters(), &config.train)?;
    let state = resume.map(|c| c.state.clone()).unwrap_or_default();
    let each = config.replayed_per_round();
    let sampler = BatchSampler::resume(own, job.replayed, each, config.train.seed, state.cursor, state.replay)?;
    let mut unchecked = false;
    // Before the first gradients, which are planned for, are made.
    let held = process_memory("VmRSS").unwrap_or(0);
    let sizes = sizes(job)?;
    let plan = MemoryPlan::largest(job, &sizes, held, resume.is_some())?;
    progress.note(&plan.to_string());
    if let Some(warning) = plan.exceeds(held) {
        progress.note(&warning);
    }
    match resume {
        Some(checkpoint) => checkpoint.load_optimizer(&mut optimizer)?,
        None => {
            check_lengths(job, &sizes)?;
            let first = sampler.peek_own(config.train.batch_size.min(own));
            // The first step of SFT shows its own gradients. Where an evaluation comes before it they are looked at earlier,
            // so that a run that cannot work has measured nothing; so are those of RFT, whose first step may have none.
            let evaluates = config.eval.every > 0 && job.validation.is_some_and(|t| !t.is_empty());
            unchecked = config.train.method == Method::Sft
                && !evaluates
                && gradient_check::shows_all(job.policy, job.train, &first);
            if !unchecked {
                gradient_check::probe_gradients(job.policy, job.codec, job.train, &first)?;
            }
        }
    }
    let log = Log::open(run.dir(), state.log, state.step)?;
    let total = config.total_steps(own);
    std::thread::scope(|scope| {
        let prefetcher = Prefetcher::start(scope, job);
        rounds(StepContext { job, optimizer, sampler, prefetcher, total, log, unchecked, state, progress }, run, resume)
    })
}

/// Round after round, until all steps are made or the run is to stop.
fn rounds(mut ctx: StepContext<'_>, run: &RunDir, resume: Option<&Checkpoint>) -> Result<TrainOutcome> {
    let (job, config) = (ctx.job, ctx.job.config);
    ctx.progress.start(ctx.state.step, ctx.total);
    let mut saved = resume.map(|c| c.state.step);
    let mut last_eval = None;
    if resume.is_none() && config.eval.every > 0 {
        ctx.evaluate()?;
    }
    while ctx.state.step < ctx.total {
        if job.stop.load(Ordering::SeqCst) {
            ctx.save(run, &mut saved)?;
            return Ok(ctx.stopped(saved));
        }
        let before = ctx.state.step;
        match config.train.method {
            Method::Sft => {
                // With RFT nothing is dropped: the policy ratio compares log-probabilities of one and the same model.
                job.policy.begin_step(rng::stream(config.train.seed, "step", &[before as u64]).next_u64());
                sft::round(&mut ctx)?
            }
            Method::Rft => grpo::round(&mut ctx)?,
        }
        ctx.state.round += 1;
        (ctx.state.cursor, ctx.state.replay) = (ctx.sampler.cursor(), ctx.sampler.replay_cursor());
        let due = |every: usize| every > 0 && ctx.state.step / every > before / every;
        let (eval_due, save_due) = (due(config.eval.every), due(config.train.save_every));
        let done = ctx.state.step >= ctx.total;
        if eval_due || (done && config.eval.every > 0) {
            last_eval = ctx.evaluate()?;
        }
        if (save_due || done) && !ctx.save(run, &mut saved)? {
            return Ok(ctx.stopped(saved));
        }
    }
    let step = ctx.state.step;
    if !DiskGuard::of(job, run).model(ctx.progress, || checkpoint::export(&run.model(), job.base, job.policy, step))? {
        return Ok(ctx.stopped(saved));
    }
    let metrics =
        last_eval.iter().flat_map(|m: &Metrics| m.iter()).map(|(n, v)| (n.to_string(), (*v).into())).collect();
    let finished = RunSummary { step: ctx.state.step, metrics };
    run.finish(&finished)?;
    if let Some(peak) = process_memory("VmHWM") {
        ctx.progress.note(&format!("memory: {} at its highest", files::format_bytes(peak)));
    }
    Ok(TrainOutcome::Finished(finished))
}

impl StepContext<'_> {
    /// The next `n` examples: their indices and what the [`Prefetcher`] makes of them. Those after them are prepared meanwhile.
    pub fn next_examples(&mut self, n: usize) -> Result<(Vec<usize>, Vec<Sequence>)> {
        let indices = self.sampler.next_batch(n);
        let sequences = self.prefetcher.next(&indices)?;
        if self.state.step + self.job.config.steps_per_round() < self.total {
            self.prefetcher.request(self.sampler.peek(n));
        }
        Ok((indices, sequences))
    }

    /// Clip, update the weights, count and record the step. `metrics` holds what the method measured, its loss first.
    pub fn finish_step(
        &mut self,
        loss: f64,
        ids: &[String],
        started: Instant,
        tokens: usize,
        rest: Metrics,
    ) -> Result<()> {
        let step = self.state.step;
        let blame = || format!("step {} (examples {})", step + 1, some_ids(ids));
        let squares = self.optimizer.grad_squares()?;
        if std::mem::take(&mut self.unchecked) {
            gradient_check::check_gradients(&squares)?;
        }
        if !loss.is_finite() {
            return Err(Error::failed(format!("{}: the loss is {loss}{KEPT}", blame())));
        }
        let settings = &self.job.config.train;
        let norm = norm_of(&squares).map_err(|e| Error::failed(format!("{}: {e}{KEPT}", blame())))?;
        let rate = learning_rate(settings, step, self.total);
        self.optimizer.update(rate, norm, settings.max_grad_norm)?;
        self.state.step += 1;
        let seconds = started.elapsed().as_secs_f64().max(1e-9);
        let mut metrics = Metrics::default();
        metrics.push("loss", loss);
        metrics.push("learning_rate", rate);
        metrics.push("grad_norm", norm);
        for (name, value) in rest.iter() {
            metrics.push(name, *value);
        }
        let taken = self.sampler.cursor();
        metrics.push("epoch", taken.epoch as f64 + taken.position as f64 / self.job.own() as f64);
        metrics.push("tokens", tokens as f64);
        metrics.push("tokens_per_second", tokens as f64 / seconds);
        metrics.push("samples_per_second", ids.len() as f64 / seconds);
        metrics.push("step_seconds", seconds);
        self.log.write(self.state.step, &metrics)?;
        self.progress.step(self.state.step, &metrics);
        Ok(())
    }

    /// Keep responses for people to read.
    pub fn keep(&mut self, samples: &[Sample]) -> Result<()> {
        samples.iter().try_for_each(|s| self.log.keep(s))
    }

    fn evaluate(&mut self) -> Result<Option<Metrics>> {
        let Some(task) = self.job.validation.filter(|t| !t.is_empty()) else { return Ok(None) };
        let (job, step) = (self.job, self.state.step);
        let (metrics, samples) = evaluate(job.policy, job.codec, task, &job.config.eval, step)?;
        self.log.write(step, &metrics)?;
        self.keep(&samples)?;
        self.progress.evaluation(step, &metrics);
        Ok(Some(metrics))
    }

    /// Save, if there is something to save. `false` if the run is to stop and there is no room.
    fn save(&mut self, run: &RunDir, saved: &mut Option<usize>) -> Result<bool> {
        if *saved == Some(self.state.step) || self.state.step == 0 {
            return Ok(true);
        }
        self.state.log = self.log.sizes()?;
        let (job, optimizer, state) = (self.job, &self.optimizer, &self.state);
        let keep = job.config.train.save_total_limit;
        let save = || checkpoint::save(&run.checkpoints(), job.base, job.policy, optimizer, state, keep).map(drop);
        if !DiskGuard::of(job, run).checkpoint(self.progress, save)? {
            return Ok(false);
        }
        *saved = Some(self.state.step);
        Ok(true)
    }

    /// The end of a run that is to stop, after the step that was saved last.
    fn stopped(&mut self, saved: Option<usize>) -> TrainOutcome {
        let (step, saved) = (self.state.step, saved.unwrap_or(0));
        if saved < step {
            self.progress.note(&format!(
                "for want of room the steps after {saved}, up to {step}, are not saved; the same command makes them again"
            ));
        }
        TrainOutcome::Stopped(saved)
    }
}

/// Ends the message of a run that broke off.
const KEPT: &str = "; the run stops here and the last checkpoint is kept. A lower train.learning_rate or train.max_grad_norm helps \
                    when training diverges";

fn some_ids(ids: &[String]) -> String {
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    super::optimizer::name_some(&ids)
}

/// Refuse examples longer than `train.max_length`, by id, before the first step.
pub(super) fn check_lengths(job: &TrainJob<'_>, sizes: &[Size]) -> Result<()> {
    let limit = job.config.train.max_length;
    if limit == 0 {
        return Ok(());
    }
    let too_long = sizes.iter().enumerate().filter(|(_, size)| size.tokens > limit);
    let long = too_long
        .map(|(i, size)| Ok(format!("{} ({})", job.train.example(i)?.id, size.tokens)))
        .collect::<Result<Vec<String>>>()?;
    if long.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = long.iter().map(String::as_str).collect();
    Err(Error::input(format!(
        "{} examples are longer than train.max_length = {limit} tokens: {}; raise it, make smaller images, or leave them out",
        long.len(),
        super::optimizer::name_some(&names)
    )))
}
