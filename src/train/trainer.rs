//! The training loop: rounds of an algorithm, with evaluation, checkpoints, stopping and resuming between them.

use super::algorithm::Algorithm;
use super::background::Background;
use super::batch_sampler::BatchSampler;
use super::callback::{Silent, TrainerCallback};
use super::checkpoint::{self, Checkpoint};
use super::disk_space::DiskGuard;
use super::early_signs::EarlySigns;
use super::example_sizes::{check_lengths, example_sizes};
use super::freeze::{freeze, freeze_unseen};
use super::gradient_check;
use super::grpo::Grpo;
use super::job::TrainJob;
use super::memory_plan::{MemoryPlan, program_bytes};
use super::metrics::{Log, Metrics, last_logged};
use super::optimizer::AdamW;
use super::prefetch::Prefetcher;
use super::prior_evaluation;
use super::rollout_server::forget_rounds_before;
use super::run_dir::{BestCheckpoint, CriterionResult, Forgotten, RunDir, RunSummary};
use super::schedule::cut_note;
use super::sft::Sft;
use super::state::{BestEvaluation, StepContext};
use super::stop_criterion::StopCriterion;
use super::validation::evaluate;
use crate::io::files;
use crate::machine::process_memory;
use crate::stats::Interval;
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
fn algorithm(method: Method) -> Box<dyn Algorithm> {
    match method {
        Method::Sft => Box::new(Sft),
        Method::Rft => Box::new(Grpo::default()),
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
    if config.train.save_best && job.validation.is_none_or(|task| task.is_empty()) {
        return Err(Error::input("train.save_best needs validation examples, and the dataset has none; remove it"));
    }
    let graded = job.validation.is_some_and(|task| partial_credit_label(&scorer_names(task)).is_some());
    if !graded && stop_when.as_ref().is_some_and(|criterion| criterion.measure() == "partial_credit") {
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
        let kept = usize::from(config.train.save_best) + usize::from(config.train.stop_when_forgotten.is_some());
        let check = || DiskGuard::of(job, run).check_before_start(config.train.save_total_limit + kept, callback);
        job.comm.on_root(check)?;
    }
    let mut optimizer = AdamW::on_ranks(job.model.parameters(), &config.train, job.comm)?;
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
            check_gradients = algorithm.first_step_has_all_gradients()
                && !job.evaluates()
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
    if let Some(note) = cut_note(config.train.warmup_steps, total) {
        callback.note(&note);
    }
    std::thread::scope(|scope| {
        let prefetcher = Prefetcher::start(scope, job);
        let background = Background::start(scope, config.rollout.as_ref().map_or(0, |r| r.max_staleness.unwrap_or(0)));
        let signs = EarlySigns::default();
        let ctx = StepContext {
            job,
            dir: run.dir(),
            optimizer,
            sampler,
            prefetcher,
            background,
            state,
            total,
            log,
            check_gradients,
            signs,
            save_on_error: false,
            callback,
        };
        Trainer { ctx, run, stop_when, saved: resume.map(|c| c.state.step) }.run(&*algorithm, resume.is_none())
    })
}

/// Where the checkpoint of a step is, in the run directory.
fn checkpoint_path(step: usize) -> String {
    format!("checkpoints/{}", checkpoint::name(step))
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
            if let Err(error) = algorithm.round(&mut self.ctx) {
                if self.ctx.save_on_error && before == self.ctx.state.step {
                    self.save()?;
                }
                match error {
                    Error::Unavailable(why) => self.pause(&why)?,
                    error => return Err(error),
                }
                continue;
            }
            let ctx = &mut self.ctx;
            ctx.state.round += 1;
            (ctx.state.cursor, ctx.state.replay_cursor) = (ctx.sampler.cursor(), ctx.sampler.replay_cursor());
            let step = ctx.state.step;
            let mut keep = false;
            let due = |every: usize| every > 0 && step / every > before / every;
            if due(config.eval.steps) || (step >= ctx.total && config.eval.steps > 0) {
                last_evaluation = self.evaluate()?;
                keep = last_evaluation.as_ref().is_some_and(|evaluation| self.judge(evaluation));
            }
            if (due(config.train.save_steps) || keep || self.is_done()) && !self.save()? {
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
            None if job.evaluates() => job.comm.on_root(|| last_logged(self.run.dir()))?,
            None => serde_json::Map::new(),
        };
        let summary = self.summary(metrics);
        job.comm.on_root(|| self.run.finish(&summary))?;
        if let Some(peak) = process_memory("VmHWM") {
            self.ctx.callback.note(&format!("memory: {} at its highest", files::format_bytes(peak)));
        }
        Ok(TrainOutcome::Finished(summary))
    }

    /// `train.stop_when` is met, so often as `train.stop_patience` asks for.
    fn is_met(&self) -> bool {
        self.stop_when.is_some() && self.ctx.state.criterion_met >= self.ctx.job.config.train.stop_patience
    }

    /// All steps are made, or a criterion ends the run.
    fn is_done(&self) -> bool {
        self.ctx.state.step >= self.ctx.total || self.is_met() || self.ctx.state.forgotten.is_some()
    }

    /// Hold an evaluation against the criteria; whether the model that was evaluated is to be kept.
    fn judge(&mut self, evaluation: &Metrics) -> bool {
        let job = self.ctx.job;
        let (settings, state) = (&job.config.train, &mut self.ctx.state);
        let (mut keep, step) = (false, state.step);
        if let Some(criterion) = &self.stop_when {
            state.criterion_met = if criterion.is_met(evaluation) { state.criterion_met + 1 } else { 0 };
        }
        let measure = self.stop_when.as_ref().unwrap_or(&StopCriterion::ACCURACY);
        if let Some(value) = measure.measured(evaluation).filter(|_| settings.save_best) {
            let before = state.best.as_ref().filter(|best| best.measure == measure.measure());
            if before.is_none_or(|best| measure.is_better(value, best.value)) {
                state.best = Some(BestEvaluation { step, measure: measure.measure().to_string(), value });
                keep = true;
            }
        }
        let change = |end: &str| evaluation.get(&format!("eval/prior_change{end}"));
        if let (Some(share), Some(value), Some(low), Some(high)) =
            (settings.stop_when_forgotten, change(""), change("_low"), change("_high"))
        {
            match high < -share {
                true => state.forgotten = Some(Interval { value, low, high }),
                false => (state.not_forgotten, keep) = (step, true),
            }
        }
        if let Some(change) = self.ctx.state.forgotten {
            let before = self.summary_of_forgetting(change).describe();
            self.ctx.callback.note(&format!("step {step}: {before}; the run ends here"));
        } else if self.is_met() && step < self.ctx.total {
            self.ctx.callback.note(&format!("step {step}: {} is met; the run ends here", settings.stop_when));
        }
        keep
    }

    fn summary_of_forgetting(&self, change: Interval) -> Forgotten {
        let before = Some(self.ctx.state.not_forgotten).filter(|&step| step > 0);
        Forgotten { change, checkpoint_before: before.map(checkpoint_path) }
    }

    /// What the run has come to.
    fn summary(&self, metrics: serde_json::Map<String, serde_json::Value>) -> RunSummary {
        let state = &self.ctx.state;
        let stop_when = &self.ctx.job.config.train.stop_when;
        RunSummary {
            step: state.step,
            metrics,
            criterion: self
                .stop_when
                .as_ref()
                .map(|_| CriterionResult { stop_when: stop_when.clone(), met: self.is_met() }),
            best: self.best(),
            forgotten: state.forgotten.map(|change| self.summary_of_forgetting(change)),
        }
    }

    /// The best checkpoint so far, if the run keeps it.
    fn best(&self) -> Option<BestCheckpoint> {
        let best = self.ctx.state.best.clone().filter(|_| self.ctx.job.config.train.save_best)?;
        Some(BestCheckpoint { checkpoint: checkpoint_path(best.step), evaluation: best })
    }

    /// Ask the validation examples and the questions of prior knowledge, as far as there are any.
    fn evaluate(&mut self) -> Result<Option<Metrics>> {
        let ctx = &mut self.ctx;
        let (job, step) = (ctx.job, ctx.state.step);
        let (mut metrics, mut samples, mut partial_credit) = (Metrics::default(), Vec::new(), None);
        if let Some(task) = job.validation.filter(|task| !task.is_empty()) {
            (metrics, samples) = evaluate(job, task, step, self.stop_when.as_ref())?;
            partial_credit = partial_credit_label(&scorer_names(task));
        }
        if let Some(task) = job.prior_eval {
            metrics.extend(&prior_evaluation::measure(job, task, &mut ctx.state.prior_baseline)?);
        }
        if metrics.iter().next().is_none() {
            return Ok(None);
        }
        ctx.log_metrics(step, &metrics)?;
        ctx.log_responses(&samples)?;
        ctx.callback.evaluation(step, &metrics, partial_credit);
        Ok(Some(metrics))
    }

    /// Write a checkpoint, unless the last one is of this step. `false` if the run is to stop and there is no disk space.
    fn save(&mut self) -> Result<bool> {
        let ctx = &mut self.ctx;
        if self.saved == Some(ctx.state.step) || ctx.state.step == 0 {
            return Ok(true);
        }
        let job = ctx.job;
        let best = self.best();
        let ctx = &mut self.ctx;
        let StepContext { log, optimizer, state, callback, .. } = ctx;
        let saved = optimizer.save_with(|| {
            if let Some(log) = log {
                state.log = log.sizes()?;
            }
            let (root, limit) = (self.run.checkpoints(), job.config.train.save_total_limit);
            let save = || {
                checkpoint::save(&root, job.base, job.model, optimizer, state, limit)?;
                best.as_ref().map_or(Ok(()), |best| self.run.name_best(best))
            };
            DiskGuard::of(job, self.run).checkpoint(&mut **callback, save)
        })?;
        if !saved {
            return Ok(false);
        }
        self.saved = Some(ctx.state.step);
        let round = ctx.state.round;
        job.comm.on_root(|| forget_rounds_before(self.run.dir(), round))?;
        Ok(true)
    }

    /// A server that the round needs is away. The round begins again, and waits for it again; a signal ends the run as always.
    fn pause(&mut self, why: &str) -> Result<()> {
        let ctx = &mut self.ctx;
        ctx.callback.note(&format!(
            "paused: {why}. The run continues when it answers; after step {}, nothing is lost",
            ctx.state.step
        ));
        ctx.sampler = BatchSampler::of_job(ctx.job, ctx.state.cursor, ctx.state.replay_cursor)?;
        Ok(())
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
