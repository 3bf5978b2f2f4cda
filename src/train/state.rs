//! What a step changes: the state that a checkpoint holds, and what a round works with.

use super::background::Background;
use super::batch_sampler::BatchSampler;
use super::callback::TrainerCallback;
use super::early_signs::EarlySigns;
use super::gradient_accumulation::{BatchStatistics, PendingStatistics};
use super::gradient_check::check_gradients;
use super::job::{ExampleId, TrainJob};
use super::metrics::{ExamplesLine, Log, LogSizes, Metrics, SampleLine};
use super::optimizer::{AdamW, name_some, norm_of};
use super::penalties;
use super::prefetch::Prefetcher;
use super::sample_buffer::SampleBuffer;
use super::schedule::learning_rate;
use super::stall::StallState;
use crate::data::Cursor;
use crate::model::Sequence;
use crate::stats::Interval;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::path::Path;
use std::time::Instant;

/// `trainer/state.json` of a checkpoint: everything besides weights and moments that the next step depends on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainerState {
    /// Optimizer steps made.
    pub step: usize,
    /// Rounds made.
    pub round: u64,
    /// Position in the shuffled examples of the run's own dataset.
    pub cursor: Cursor,
    /// Position in the shuffled replayed examples, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_cursor: Option<Cursor>,
    /// On-policy SFT: the responses of the last sampling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_buffer: Option<SampleBuffer>,
    /// `rollout.max_staleness`: names of the adapters that sample the next rounds, one each.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    pub sampled_by: VecDeque<String>,
    /// Consecutive evaluations, up to the last one, that met `train.stop_when`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub criterion_met: usize,
    /// `train.save_best`: the best evaluation so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best: Option<BestEvaluation>,
    /// `eval.prior`: the score of each question before the first step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prior_baseline: Vec<f64>,
    /// `train.stop_when_forgotten`: the last evaluation that did not show too large a loss; 0 for that before the first step.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub not_forgotten: usize,
    /// `train.stop_when_forgotten`: the change that ended the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forgotten: Option<Interval>,
    /// Where the logs end.
    pub log: LogSizes,
    /// How long reward variance and entropy have been near zero.
    pub stall: StallState,
}

/// The best evaluation of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BestEvaluation {
    /// The step before it.
    pub step: usize,
    /// What it is the best by.
    pub measure: String,
    /// The measured value.
    pub value: f64,
}

impl TrainerState {
    /// Steps whose checkpoints are kept whatever their age; there is none of step 0.
    pub fn kept_steps(&self) -> [usize; 2] {
        [self.best.as_ref().map_or(0, |best| best.step), self.not_forgotten]
    }

    /// Forget what evaluations have decided: the criteria are others from here on.
    pub(super) fn reset_decisions(&mut self) {
        (self.criterion_met, self.forgotten) = (0, None);
    }
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl Default for TrainerState {
    /// Before the first step.
    fn default() -> Self {
        let cursor = Cursor::default();
        let (log, stall) = (LogSizes::default(), StallState::default());
        TrainerState {
            step: 0,
            round: 0,
            cursor,
            replay_cursor: None,
            sample_buffer: None,
            sampled_by: VecDeque::new(),
            criterion_met: 0,
            best: None,
            prior_baseline: Vec::new(),
            not_forgotten: 0,
            forgotten: None,
            log,
            stall,
        }
    }
}

/// What a round works with.
pub struct StepContext<'a> {
    /// What the run needs.
    pub job: &'a TrainJob<'a>,
    /// The run directory.
    pub dir: &'a Path,
    /// The optimizer with its moments.
    pub optimizer: AdamW<'a>,
    /// Chooses the examples.
    pub sampler: BatchSampler,
    /// Encodes the examples of the next step during the current one.
    pub prefetcher: Prefetcher<'a>,
    /// Works on rounds to come.
    pub background: Background<'a>,
    /// What a checkpoint holds besides.
    pub state: TrainerState,
    /// Optimizer steps of the whole run.
    pub total: usize,
    /// The logs of the run directory; rank 0 alone has them.
    pub log: Option<Log>,
    /// The gradients of the next step are to be checked.
    pub check_gradients: bool,
    /// If the round fails, nothing but the logs has changed since the last one: it may be saved.
    pub save_on_error: bool,
    /// Hears of every step.
    pub callback: &'a mut dyn TrainerCallback,
    /// What is worth a word in the first steps.
    pub(super) signs: EarlySigns,
}

/// What an optimizer step is made from, apart from the gradients in the parameters.
pub struct StepReport {
    /// What the algorithm measured.
    pub metrics: Metrics,
    /// Ids of the examples.
    pub example_ids: Vec<String>,
    /// Tokens of all sequences, prompts included.
    pub tokens: usize,
    /// When the step began.
    pub started: Instant,
}

impl StepContext<'_> {
    /// The next `n` examples, encoded. Those after them are prefetched.
    pub fn next_examples(&mut self, n: usize) -> Result<(Vec<ExampleId>, Vec<Sequence>)> {
        let ids = self.sampler.next_batch(n);
        let sequences = self.prefetcher.next(&ids)?;
        if self.state.step + self.job.config.steps_per_round() < self.total {
            self.prefetcher.request(self.sampler.peek(n));
        }
        Ok((ids, sequences))
    }

    /// Add the penalties, clip the gradients, update the weights, count the step and record what `report` makes of its sums.
    ///
    /// # Errors
    /// A loss or a gradient that is not finite: step and examples are named.
    pub fn optimizer_step(
        &mut self,
        pending: PendingStatistics<'_>,
        report: impl FnOnce(&BatchStatistics) -> StepReport,
    ) -> Result<()> {
        let step = self.state.step;
        let penalties = penalties::add_gradients(self.job, step)?;
        // From here on the step waits for the device.
        let (squares, read) = self.optimizer.grad_squares(pending.unread())?;
        let sums = pending.finish(&read)?;
        let StepReport { metrics: measured, example_ids, tokens, started } = report(&sums);
        let ids: Vec<&str> = example_ids.iter().map(String::as_str).collect();
        let place = || format!("step {} (examples {})", step + 1, name_some(&ids));
        let loss = sums.loss + penalties.loss;
        if std::mem::take(&mut self.check_gradients) {
            check_gradients(&squares)?;
        }
        if !loss.is_finite() {
            return Err(Error::failed(format!("{}: the loss is {loss}{DIVERGED}", place())));
        }
        let settings = &self.job.config.train;
        let norm = norm_of(&squares).map_err(|e| Error::failed(format!("{}: {e}{DIVERGED}", place())))?;
        let rate = learning_rate(settings, step, self.total);
        self.optimizer.update(rate, norm, settings.max_grad_norm)?;
        self.state.step += 1;
        let seconds = started.elapsed().as_secs_f64().max(1e-9);
        let mut metrics = Metrics::default();
        metrics.push("loss", loss);
        metrics.push("learning_rate", rate);
        metrics.push("grad_norm", norm);
        metrics.extend(&measured);
        metrics.extend(&penalties.metrics);
        let cursor = self.sampler.cursor();
        metrics.push("epoch", cursor.epoch as f64 + cursor.position as f64 / self.job.train.len() as f64);
        metrics.push("tokens", tokens as f64);
        metrics.push("tokens_per_second", tokens as f64 / seconds);
        metrics.push("samples_per_second", ids.len() as f64 / seconds);
        metrics.push("step_seconds", seconds);
        if let Some(traffic) = self.job.comm.traffic() {
            metrics.push("communication_seconds", traffic.seconds);
            metrics.push("communication_bytes", traffic.bytes as f64);
        }
        self.log_metrics(self.state.step, &metrics)?;
        if let Some(log) = &mut self.log {
            log.examples(&ExamplesLine { step: self.state.step, ids: &example_ids })?;
        }
        self.callback.step(self.state.step, &metrics);
        if let Some(sign) = self.signs.observe(self.job.config, self.total, loss, metrics.get("reward")) {
            self.callback.note(&format!("step {}: {sign}", self.state.step));
        }
        Ok(())
    }

    /// Log the metrics of a step or of an evaluation.
    pub(super) fn log_metrics(&mut self, step: usize, metrics: &Metrics) -> Result<()> {
        self.log.as_mut().map_or(Ok(()), |log| log.write(step, metrics))
    }

    /// Log responses for people to read.
    pub fn log_responses(&mut self, samples: &[SampleLine]) -> Result<()> {
        self.log.as_mut().map_or(Ok(()), |log| samples.iter().try_for_each(|s| log.keep(s)))
    }
}

/// The end of the message of a run that diverged.
const DIVERGED: &str = "; the run stops here and the last checkpoint is kept. If training diverges, lower train.learning_rate or \
                        train.max_grad_norm";
