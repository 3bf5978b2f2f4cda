//! The training loop: rounds of an algorithm, with evaluation, checkpoints, stopping and resuming between them.

use super::algorithm::Algorithm;
use super::batch_sampler::BatchSampler;
use super::callback::{Silent, TrainerCallback};
use super::checkpoint::{self, Checkpoint};
use super::disk_space::DiskGuard;
use super::example_sizes::{check_lengths, example_sizes};
use super::freeze::{freeze, freeze_unseen};
use super::gradient_check;
use super::grpo::Grpo;
use super::job::TrainJob;
use super::memory_plan::{MemoryPlan, program_bytes};
use super::metrics::{Log, Metrics, last_logged};
use super::optimizer::AdamW;
use super::prefetch::Prefetcher;
use super::run_dir::{RunDir, RunSummary};
use super::sft::Sft;
use super::state::StepContext;
use super::stop_criterion::StopCriterion;
use super::validation::evaluate;
use crate::io::files;
use crate::machine::process_memory;
use crate::tasks::{Task, partial_credit_label};
use crate::train::settings::Method;
use crate::{Error, Result};
use std::sync::atomic::Ordering;

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

/// The algorithm that `train.method` names.
fn algorithm(method: Method) -> &'static dyn Algorithm {
    match method {
        Method::Sft => &Sft,
        Method::Rft => &Grpo,
    }
}

/// Train in the run directory `run`, from the start or from the checkpoint `resume`.
///
/// # Errors
/// A run that cannot work is refused before its first step: no examples, too long ones, no disk space for a checkpoint, a parameter that no
/// gradient reaches. Later, a loss or gradient that is not finite.
///
/// Every rank calls it, with the same job. Ranks share out the passes through the model; everything else they do alike, but for files, logs
/// and messages, which are those of rank 0. A rank that gets an error must end the others ([`Communicator::abort`]).
///
/// [`Communicator::abort`]: crate::comm::Communicator::abort
pub fn train(
    job: &TrainJob<'_>,
    run: &RunDir,
    resume: Option<&Checkpoint>,
    callback: &mut dyn TrainerCallback,
) -> Result<TrainOutcome> {
    let mut silent = Silent;
    let callback = if job.comm.is_root() { callback } else { &mut silent };
    let config = job.config;
    let examples = job.train.len();
    if examples == 0 {
        return Err(Error::input("the dataset has no training examples"));
    }
    let stop_when = match config.train.stop_when.as_str() {
        "" => None,
        criterion => Some(StopCriterion::parse(criterion)?),
    };
    if stop_when.is_some() && job.validation.is_none_or(|task| task.is_empty()) {
        return Err(Error::input("train.stop_when needs validation examples, and the dataset has none; remove it"));
    }
    let graded = job.validation.is_some_and(|task| partial_credit_label(&scorer_names(task)).is_some());
    if !graded && stop_when.as_ref().is_some_and(|criterion| criterion.names("partial_credit")) {
        return Err(Error::input(format!(
            "train.stop_when = \"{}\": the task gives no partial credit, its answers are right or wrong; give a criterion on accuracy",
            config.train.stop_when
        )));
    }
    freeze(job.model, &config.train.freeze)?;
    let unseen = freeze_unseen(job)?;
    if unseen > 0 {
        callback.note(&format!(
            "no training example has an image: the vision tower's {unseen} parameters stay as they are"
        ));
    }
    if resume.is_none() {
        let check = || DiskGuard::of(job, run).check_before_start(config.train.save_total_limit, callback);
        job.comm.on_root(check)?;
    }
    let mut optimizer = AdamW::new(job.model.parameters(), &config.train)?;
    let state = resume.map(|c| c.state.clone()).unwrap_or_default();
    let sampler = BatchSampler::of_job(job, state.cursor, state.replay_cursor)?;
    // Before the gradients, which are planned for, are made.
    let held = process_memory("VmRSS").unwrap_or(0);
    let sizes = example_sizes(job)?;
    let plan = MemoryPlan::of_run(job, &sizes, program_bytes(job, held))?;
    plan.check()?;
    callback.note(&plan.to_string());
    if let Some(warning) = plan.warning(held) {
        callback.note(&warning);
    }
    let algorithm = algorithm(config.train.method);
    let mut check_gradients = false;
    match resume {
        Some(checkpoint) => checkpoint.load_optimizer(&mut optimizer)?,
        None => {
            check_lengths(job, &sizes)?;
            // The gradients are checked at the first step if it shows them all. Otherwise, or if an evaluation comes first, a pass of
            // their own checks them, so that a run that cannot work has measured nothing.
            let first = sampler.peek_dataset(config.train.batch_size.min(examples));
            let evaluates = config.eval.steps > 0 && job.validation.is_some_and(|t| !t.is_empty());
            check_gradients = algorithm.first_step_has_all_gradients()
                && !evaluates
                && gradient_check::reaches_all_parameters(job, &first);
            if !check_gradients {
                gradient_check::probe_gradients(job, &first)?;
            }
        }
    }
    let rollouts = config.rollout.as_ref().is_some_and(|rollout| rollout.log_completions);
    let open = || Log::open(run.dir(), state.log, state.step, rollouts);
    let log = job.comm.agree(job.comm.is_root().then(open).transpose())?;
    let total = config.total_steps(examples);
    std::thread::scope(|scope| {
        let prefetcher = Prefetcher::start(scope, job);
        let ctx = StepContext { job, optimizer, sampler, prefetcher, state, total, log, check_gradients, callback };
        Trainer { ctx, run, stop_when, saved: resume.map(|c| c.state.step) }.run(algorithm, resume.is_none())
    })
}

/// Names of the scorers of a task.
fn scorer_names(task: &dyn Task) -> Vec<String> {
    task.scorers().into_iter().map(|(name, _)| name).collect()
}

struct Trainer<'a> {
    ctx: StepContext<'a>,
    run: &'a RunDir,
    stop_when: Option<StopCriterion>,
    /// The step of the last checkpoint.
    saved: Option<usize>,
}

impl Trainer<'_> {
    /// Make rounds until all steps are made or the run is to stop.
    fn run(mut self, algorithm: &dyn Algorithm, is_new: bool) -> Result<TrainOutcome> {
        let (job, config) = (self.ctx.job, self.ctx.job.config);
        self.ctx.callback.start(self.ctx.state.step, self.ctx.total);
        let mut last_evaluation = None;
        if is_new && config.eval.steps > 0 {
            self.evaluate()?;
        }
        while !self.is_done() {
            if job.comm.any(job.stop.load(Ordering::SeqCst))? {
                self.save()?;
                return Ok(self.stopped());
            }
            let before = self.ctx.state.step;
            algorithm.round(&mut self.ctx)?;
            let ctx = &mut self.ctx;
            ctx.state.round += 1;
            (ctx.state.cursor, ctx.state.replay_cursor) = (ctx.sampler.cursor(), ctx.sampler.replay_cursor());
            let step = ctx.state.step;
            let due = |every: usize| every > 0 && step / every > before / every;
            if due(config.eval.steps) || (step >= ctx.total && config.eval.steps > 0) {
                last_evaluation = self.evaluate()?;
                self.judge(last_evaluation.as_ref());
            }
            if (due(config.train.save_steps) || self.is_done()) && !self.save()? {
                return Ok(self.stopped());
            }
        }
        let step = self.ctx.state.step;
        let export = || checkpoint::export(&self.run.model(), job.base, job.model, step);
        let callback = &mut *self.ctx.callback;
        if !job.comm.on_root(|| DiskGuard::of(job, self.run).model(callback, export))? {
            return Ok(self.stopped());
        }
        let metrics = match last_evaluation {
            Some(evaluation) => evaluation.iter().map(|(n, v)| (n.to_string(), (*v).into())).collect(),
            // Killed after the last checkpoint: the evaluation before it is the last line of the log.
            None if config.eval.steps > 0 && job.validation.is_some_and(|task| !task.is_empty()) => {
                job.comm.on_root(|| last_logged(self.run.dir()))?
            }
            None => serde_json::Map::new(),
        };
        let summary = RunSummary { step, metrics };
        job.comm.on_root(|| self.run.finish(&summary))?;
        if let Some(peak) = process_memory("VmHWM") {
            self.ctx.callback.note(&format!("memory: {} at its highest", files::format_bytes(peak)));
        }
        Ok(TrainOutcome::Finished(summary))
    }

    /// All steps are made, or `train.stop_when` is met.
    fn is_done(&self) -> bool {
        let state = &self.ctx.state;
        let met = self.stop_when.is_some() && state.criterion_met >= self.ctx.job.config.train.stop_patience;
        state.step >= self.ctx.total || met
    }

    /// Hold an evaluation against `train.stop_when`.
    fn judge(&mut self, evaluation: Option<&Metrics>) {
        let (Some(criterion), Some(evaluation)) = (&self.stop_when, evaluation) else { return };
        let ctx = &mut self.ctx;
        ctx.state.criterion_met = if criterion.is_met(evaluation) { ctx.state.criterion_met + 1 } else { 0 };
        if self.is_done() && self.ctx.state.step < self.ctx.total {
            let (step, criterion) = (self.ctx.state.step, &self.ctx.job.config.train.stop_when);
            self.ctx.callback.note(&format!("step {step}: {criterion} is met; the run ends here"));
        }
    }

    fn evaluate(&mut self) -> Result<Option<Metrics>> {
        let ctx = &mut self.ctx;
        let Some(task) = ctx.job.validation.filter(|t| !t.is_empty()) else { return Ok(None) };
        let step = ctx.state.step;
        let (metrics, samples) = evaluate(ctx.job, task, step)?;
        ctx.log_metrics(step, &metrics)?;
        ctx.log_responses(&samples)?;
        ctx.callback.evaluation(step, &metrics, partial_credit_label(&scorer_names(task)));
        Ok(Some(metrics))
    }

    /// Write a checkpoint, unless the last one is of this step. `false` if the run is to stop and there is no disk space.
    fn save(&mut self) -> Result<bool> {
        let ctx = &mut self.ctx;
        if self.saved == Some(ctx.state.step) || ctx.state.step == 0 {
            return Ok(true);
        }
        let job = ctx.job;
        let saved = job.comm.on_root(|| {
            if let Some(log) = &mut ctx.log {
                ctx.state.log = log.sizes()?;
            }
            let (optimizer, state) = (&ctx.optimizer, &ctx.state);
            let (root, limit) = (self.run.checkpoints(), job.config.train.save_total_limit);
            let save = || checkpoint::save(&root, job.base, job.model, optimizer, state, limit).map(drop);
            DiskGuard::of(job, self.run).checkpoint(ctx.callback, save)
        })?;
        if !saved {
            return Ok(false);
        }
        self.saved = Some(ctx.state.step);
        Ok(true)
    }

    /// The outcome of a run that stops: what counts is the last checkpoint.
    fn stopped(&mut self) -> TrainOutcome {
        let (step, saved) = (self.ctx.state.step, self.saved.unwrap_or(0));
        if saved < step {
            self.ctx.callback.note(&format!(
                "the steps after {saved}, up to {step}, are not saved for lack of disk space; the same command makes them again"
            ));
        }
        TrainOutcome::Stopped(saved)
    }
}
