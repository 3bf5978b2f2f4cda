//! What a user may say about a rollout, and the request that it comes to: defaults filled in, contradictions refused.

use super::{FinalAnswer, Keep, RolloutRequest, RolloutSelection, TRAIN, Teacher};
use crate::model::SamplingParams;
use crate::sampling::chat_api::{Endpoint, INITIAL_BACKOFF, REQUEST_TIMEOUT};
use crate::sampling::{BATCH_SIZE, SamplePlan, sampling_flags};
use crate::tasks::benchmarks::DEFAULT_NEW_TOKENS;
use crate::{Error, Result};
use serde::Deserialize;
use std::path::PathBuf;

/// Responses to each prompt when nothing is said.
pub const SAMPLES: usize = 8;
/// Temperature when nothing is said.
pub const TEMPERATURE: f32 = 1.0;

/// The flags of `jigsaw rollout` and the keys of a study's `[rollouts.NAME]`, as they are given.
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RolloutOptions {
    /// Who answers, if it is no checkpoint: `scripted`, or the address of a chat API.
    pub teacher: Option<String>,
    /// Name of the model at that address.
    pub teacher_model: Option<String>,
    /// Requests in flight at once.
    pub concurrency: usize,
    /// Most requests a minute; no limit when not given.
    pub per_minute: Option<u32>,
    /// Times a failed request is made again.
    pub retries: usize,
    /// Seconds to wait for a response.
    pub timeout: u64,
    /// Split of the dataset that the prompts are from.
    pub split: String,
    /// Only the first prompts; all when not given.
    pub limit: Option<usize>,
    /// Responses to each prompt; when not given 8, and 1 of the scripted teacher.
    pub num_generations: Option<usize>,
    /// Softmax temperature; 1 when not given.
    pub temperature: Option<f32>,
    /// Nucleus sampling; 1 (off) when not given.
    pub top_p: Option<f32>,
    /// Only the k likeliest tokens; 0 (off) when not given.
    pub top_k: Option<usize>,
    /// Texts that end a response.
    pub stop: Vec<String>,
    /// Longest response in tokens.
    pub max_new_tokens: Option<usize>,
    /// Prompts answered at a time.
    pub batch_size: usize,
    /// Which responses are kept; when not given `correct`, and `all` with `answer = "gold"`.
    pub keep: Option<Keep>,
    /// Most responses kept of one prompt; all when not given.
    pub max_per_prompt: Option<usize>,
    /// What the kept responses end with.
    pub answer: FinalAnswer,
    /// Seed of the sampling.
    pub seed: u64,
}

impl Default for RolloutOptions {
    fn default() -> RolloutOptions {
        RolloutOptions {
            teacher: None,
            teacher_model: None,
            concurrency: 4,
            per_minute: None,
            retries: 6,
            timeout: REQUEST_TIMEOUT.as_secs(),
            split: TRAIN.into(),
            limit: None,
            num_generations: None,
            temperature: None,
            top_p: None,
            top_k: None,
            stop: Vec::new(),
            max_new_tokens: None,
            batch_size: BATCH_SIZE,
            keep: None,
            max_per_prompt: None,
            answer: FinalAnswer::Sampled,
            seed: 0,
        }
    }
}

impl FinalAnswer {
    /// Which responses are kept when nothing is said: a right answer needs no filter.
    pub fn keeps_by_default(self) -> Keep {
        match self {
            FinalAnswer::Gold => Keep::All,
            FinalAnswer::Sampled => Keep::Correct,
        }
    }
}

impl RolloutOptions {
    /// The request: responses of the checkpoint `model`, or of the teacher, to the prompts of `data`, into `out`.
    ///
    /// # Errors
    /// Input errors that name the flag: options that contradict each other, are out of range, or would have no effect.
    pub fn request(self, model: Option<PathBuf>, data: PathBuf, out: PathBuf, fresh: bool) -> Result<RolloutRequest> {
        let teacher = self.teacher(model)?;
        if teacher == Teacher::Scripted {
            for (flag, given) in [
                ("--temperature", self.temperature.is_some()),
                ("--top-p", self.top_p.is_some()),
                ("--top-k", self.top_k.is_some()),
                ("--max-new-tokens", self.max_new_tokens.is_some()),
                ("--stop", !self.stop.is_empty()),
            ] {
                if given {
                    return bad(flag, "has no effect with --teacher scripted, which samples no tokens");
                }
            }
        }
        let samples = self.num_generations.unwrap_or(if teacher == Teacher::Scripted { 1 } else { SAMPLES });
        let request = RolloutRequest {
            teacher,
            data,
            split: self.split,
            plan: SamplePlan { limit: self.limit, num_generations: samples, batch_size: self.batch_size },
            sampling: SamplingParams {
                max_new_tokens: self.max_new_tokens.unwrap_or(DEFAULT_NEW_TOKENS),
                temperature: self.temperature.unwrap_or(TEMPERATURE),
                top_p: self.top_p.unwrap_or(1.0),
                top_k: self.top_k.unwrap_or(0),
                stop: self.stop,
                seed: self.seed,
            },
            selection: RolloutSelection {
                keep: self.keep.unwrap_or(self.answer.keeps_by_default()),
                max_per_prompt: self.max_per_prompt,
                answer: self.answer,
            },
            out,
            fresh,
        };
        request.check()?;
        Ok(request)
    }

    fn teacher(&self, model: Option<PathBuf>) -> Result<Teacher> {
        // clap does not see this: it drops what a flag requires when that conflicts with another flag.
        if self.teacher.is_none() && self.teacher_model.is_some() {
            return bad("--teacher-model", "has no effect without --teacher, the address of that model");
        }
        let url = match (model, self.teacher.as_deref()) {
            (Some(_), Some(_)) => return bad("--teacher", "cannot be used with --model: one of them answers"),
            (Some(model), None) => return Ok(Teacher::Model(model)),
            (None, Some("scripted")) if self.teacher_model.is_none() => return Ok(Teacher::Scripted),
            (None, Some("scripted")) => return bad("--teacher-model", "has no effect with --teacher scripted"),
            (None, Some(other)) if !other.contains("://") => {
                let why = format!("{other}: write scripted, or the address of a chat API, http://HOST:PORT/v1");
                return bad("--teacher", &why);
            }
            (None, Some(url)) => url.to_string(),
            (None, None) => return bad("--model", "is missing: who answers? Give --model or --teacher"),
        };
        let endpoint = Endpoint {
            url,
            model: self.teacher_model.clone().unwrap_or_default(),
            concurrency: self.concurrency,
            per_minute: self.per_minute,
            retries: self.retries,
            backoff: INITIAL_BACKOFF,
            timeout: sampling_flags::check_timeout(self.timeout)?,
        };
        endpoint.check("--teacher")?;
        if endpoint.model.is_empty() {
            return bad("--teacher-model", "is missing: which model at that address?");
        }
        if self.per_minute == Some(0) {
            return bad("--per-minute", "0: must be at least 1");
        }
        Ok(Teacher::Endpoint(endpoint))
    }
}

impl RolloutRequest {
    /// Refuse numbers that are out of range and choices that contradict each other.
    ///
    /// # Errors
    /// Input errors that name the flag.
    pub fn check(&self) -> Result<()> {
        let RolloutRequest { plan, sampling, selection, .. } = self;
        let concurrency = match &self.teacher {
            Teacher::Endpoint(endpoint) => Some(endpoint.concurrency),
            _ => None,
        };
        for (flag, value) in
            [("--concurrency", concurrency), ("--limit", plan.limit), ("--max-per-prompt", selection.max_per_prompt)]
        {
            if value == Some(0) {
                return bad(flag, "0: must be at least 1");
            }
        }
        sampling_flags::check_requests(concurrency.unwrap_or(1))?;
        sampling_flags::check(sampling, plan)?;
        match (selection.keep, selection.answer) {
            (Keep::Correct, FinalAnswer::Gold) => {
                bad("--keep", "correct with --answer gold would replace right answers by themselves; drop one of them")
            }
            (_, FinalAnswer::Gold) if self.teacher == Teacher::Scripted => {
                let why = "gold changes nothing with --teacher scripted, which gives the right answer anyway";
                bad("--answer", why)
            }
            _ => Ok(()),
        }
    }
}

fn bad<T>(flag: &str, why: &str) -> Result<T> {
    Err(Error::input(format!("{flag} {why}")))
}
