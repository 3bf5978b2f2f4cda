//! How far a tuned model's distribution has moved from its base's, on given prompts.
//!
//! - forward: responses sampled from the base at temperature 1, nothing truncated; at every token KL(base || tuned) of the whole
//!   next-token distribution, computed exactly. Their sum over a response is an unbiased estimate of the divergence of whole responses
//!   (cut off at the length limit), with less variance than the log-ratio of the sampled tokens (Rao-Blackwell).
//! - reverse: sampled from the tuned model, KL(tuned || base).
//! - perplexity of the answers that the base gave by itself, under both models.
//! - log-probability of the gold answers under both models.
//!
//! Logits are computed some rows at a time, never for all tokens together.

use crate::model::{Predictor, PromptEncoder};
use crate::model::{Prompt, SamplingParams, Sequence};
use crate::nn::kl_divergence;
use crate::sampling::{LocalModel, Prompts, SampleOptions, ScoredResponse, sample};
use crate::stats::{Interval, clustered_mean, totals, weighted_totals};
use crate::tasks::{Task, answer_block, encode_example, gold_response};
use crate::{Error, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Prompts measured at a time. It decides which random numbers a prompt gets, so it is not configurable.
pub const BATCH: usize = 8;

/// Bytes of logits of each model that exist at a time.
const LOGIT_BYTES: usize = 64 << 20;

/// What is compared, and how responses are drawn.
pub struct Comparison<'a> {
    /// The base model.
    pub base: &'a dyn Predictor,
    /// The tuned model.
    pub tuned: &'a dyn Predictor,
    /// Text and images to model input, the same for both.
    pub codec: &'a dyn PromptEncoder,
    /// The prompts.
    pub task: &'a dyn Task,
    /// Longest response.
    pub max_new_tokens: usize,
    /// Seed of the sampling.
    pub seed: u64,
}

/// The divergence measured on one response.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeasuredDivergence {
    /// Tokens of the response, with the closing one.
    pub tokens: usize,
    /// Sum over its tokens of the divergence, in nats.
    pub nats: f64,
    /// Ended by itself rather than by the length limit.
    pub finished: bool,
    /// The sampled tokens.
    pub token_ids: Vec<u32>,
    /// The divergence at each of them, in nats.
    pub token_nats: Vec<f64>,
}

/// A given answer under both models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnswerLogprobs {
    /// Tokens of the answer, with the closing one if it got there.
    pub tokens: usize,
    /// Negative log-probability under the base, in nats.
    pub base: f64,
    /// The same under the tuned model.
    pub tuned: f64,
    /// Its tokens.
    pub token_ids: Vec<u32>,
    /// Log-probability of each under the base, in nats.
    pub base_logprobs: Vec<f32>,
    /// The same under the tuned model.
    pub tuned_logprobs: Vec<f32>,
}

/// The gold answer under both models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GoldAnswer {
    /// The whole response: the answer in the form that is asked for, with the closing token.
    #[serde(flatten)]
    pub response: AnswerLogprobs,
    /// The first of its tokens that holds a part of the text between the answer tags; 0 where there are no tags.
    pub first: usize,
    /// The end of these tokens.
    pub end: usize,
}

/// The result for one prompt: a line of a divergence file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PromptDivergence {
    /// Index of the example.
    pub index: usize,
    /// Its id.
    pub id: String,
    /// KL(base || tuned) on a response sampled from the base.
    pub forward: MeasuredDivergence,
    /// KL(tuned || base) on a response sampled from the tuned model.
    pub reverse: MeasuredDivergence,
    /// The base's answer from its evaluation.
    pub own: Option<AnswerLogprobs>,
    /// The gold answer, where the example has one (see [`gold_response`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gold: Option<GoldAnswer>,
}

/// Responses sampled from the base, by the first prompt of their batch: the same for every model tuned from it.
pub type BaseSamples = HashMap<usize, Vec<(Vec<u32>, bool)>>;

/// `count` examples out of `len`, evenly spread, because files are often ordered by category.
pub fn spread(len: usize, count: usize) -> Vec<usize> {
    let count = count.min(len);
    (0..count).map(|i| i * len / count).collect()
}

impl Comparison<'_> {
    /// Measure on at most [`BATCH`] examples. `own` gives the base's answer to an example, if there is one.
    pub fn measure<'o>(
        &self,
        examples: &[usize],
        own: impl Fn(usize) -> Option<&'o ScoredResponse>,
        samples: &mut BaseSamples,
    ) -> Result<Vec<PromptDivergence>> {
        let Some(&first) = examples.first() else { return Ok(Vec::new()) };
        let prompts = examples.iter().map(|&i| encode_example(self.task, self.codec, i)).collect::<Result<Vec<_>>>()?;
        let from_base = match samples.get(&first) {
            Some(known) => known.clone(),
            None => {
                let drawn = self.sample(self.base, examples, &prompts, "divergence forward")?;
                samples.insert(first, drawn.clone());
                drawn
            }
        };
        let from_tuned = self.sample(self.tuned, examples, &prompts, "divergence reverse")?;
        let names = examples.iter().map(|&i| Ok(self.task.example(i)?.id.clone())).collect::<Result<Vec<String>>>()?;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let forward = divergences(self.base, self.tuned, &prompts, &from_base, &names)?;
        let reverse = divergences(self.tuned, self.base, &prompts, &from_tuned, &names)?;
        let answers = examples.iter().map(|&i| own(i).map(|o| self.answer(o)).transpose());
        let own = self.score_answers(&prompts, &answers.collect::<Result<Vec<_>>>()?, &names)?;
        let gold = self.gold_answers(examples, &prompts, &names)?;
        let mut lines = Vec::with_capacity(examples.len());
        for (i, (((forward, reverse), own), gold)) in forward.into_iter().zip(reverse).zip(own).zip(gold).enumerate() {
            lines.push(PromptDivergence { index: examples[i], id: names[i].to_string(), forward, reverse, own, gold });
        }
        Ok(lines)
    }

    /// The gold answers under both models.
    fn gold_answers(
        &self,
        examples: &[usize],
        prompts: &[Arc<Prompt>],
        names: &[&str],
    ) -> Result<Vec<Option<GoldAnswer>>> {
        let texts = examples.iter().map(|&i| Ok(gold_response(self.task.example(i)?.as_ref())));
        let texts: Vec<Option<String>> = texts.collect::<Result<_>>()?;
        let mut encoded = Vec::with_capacity(texts.len());
        for (text, name) in texts.iter().zip(names) {
            let ids = text.as_ref().map(|text| self.codec.encode_response(text)).transpose();
            encoded.push(ids.map_err(|e| e.context(format!("example {name}")))?);
        }
        let scored = self.score_answers(prompts, &encoded, names)?;
        let with_place = |(text, scored): (&Option<String>, Option<AnswerLogprobs>)| {
            let (Some(text), Some(response)) = (text, scored) else { return Ok(None) };
            let Range { start, end } = answer_tokens(self.codec, text, &response.token_ids)?;
            Ok(Some(GoldAnswer { response, first: start, end }))
        };
        texts.iter().zip(scored).map(with_place).collect()
    }

    /// A response of `model` to each prompt at temperature 1, from the whole distribution: no token is excluded.
    fn sample(
        &self,
        model: &dyn Predictor,
        examples: &[usize],
        prompts: &[Arc<Prompt>],
        stream: &str,
    ) -> Result<Vec<(Vec<u32>, bool)>> {
        let (max_new_tokens, seed) = (self.max_new_tokens, self.seed);
        let sampling =
            SamplingParams { max_new_tokens, temperature: 1.0, top_p: 1.0, top_k: 0, stop: Vec::new(), seed };
        let first = examples.first().map_or(0, |&first| first as u64);
        let options = SampleOptions { num_generations: 1, sampling: &sampling, stream: (stream, &[first]) };
        let model = LocalModel::unrestricted(model, self.codec);
        let groups = sample(&model, &Prompts::encoded(self.task, examples, prompts), &options)?;
        Ok(groups.into_iter().flatten().map(|response| (response.token_ids, response.finished)).collect())
    }

    /// The tokens of a stored answer; an answer that was cut off has no closing token.
    fn answer(&self, outcome: &ScoredResponse) -> Result<Vec<u32>> {
        let mut ids =
            self.codec.encode_response(&outcome.response).map_err(|e| e.context(format!("example {}", outcome.id)))?;
        if !outcome.finished {
            ids.pop();
        }
        Ok(ids)
    }

    /// Given answers under both models, each with the closing token if it has one.
    fn score_answers(
        &self,
        prompts: &[Arc<Prompt>],
        answers: &[Option<Vec<u32>>],
        names: &[&str],
    ) -> Result<Vec<Option<AnswerLogprobs>>> {
        let batch: Vec<Sequence> = prompts
            .iter()
            .zip(answers)
            .filter_map(|(prompt, answer)| {
                let response = answer.clone().filter(|a| !a.is_empty())?;
                Some(Sequence { prompt: Arc::clone(prompt), response })
            })
            .collect();
        let score = |model: &dyn Predictor| -> Result<Vec<f32>> {
            if batch.is_empty() { Ok(Vec::new()) } else { Ok(model.score(&batch, 1.0)?.logprobs) }
        };
        let (base, tuned) = (score(self.base)?, score(self.tuned)?);
        let mut at = 0;
        let mut found = Vec::with_capacity(answers.len());
        for (answer, name) in answers.iter().zip(names) {
            let tokens = answer.as_ref().map_or(0, Vec::len);
            let of_answer = |logprobs: &[f32]| -> Result<(f64, Vec<f32>)> {
                let own = logprobs.get(at..at + tokens).unwrap_or_default();
                let nats = -own.iter().map(|&p| f64::from(p)).sum::<f64>();
                if own.is_empty() || !nats.is_finite() {
                    return Err(not_finite(name));
                }
                Ok((nats, own.to_vec()))
            };
            found.push(match answer {
                Some(ids) if tokens > 0 => {
                    let ((base, base_logprobs), (tuned, tuned_logprobs)) = (of_answer(&base)?, of_answer(&tuned)?);
                    Some(AnswerLogprobs { tokens, base, tuned, token_ids: ids.clone(), base_logprobs, tuned_logprobs })
                }
                _ => None,
            });
            at += tokens;
        }
        Ok(found)
    }
}

/// The tokens of a response that hold a part of the text between its answer tags; all but the closing token where it has none, or where its
/// tokens do not give its text back.
fn answer_tokens(codec: &dyn PromptEncoder, text: &str, ids: &[u32]) -> Result<Range<usize>> {
    let whole = 0..ids.len().saturating_sub(1);
    let Ok(answer) = answer_block(text) else { return Ok(whole) };
    if codec.decode(ids)? != text {
        return Ok(whole);
    }
    let begin = answer.as_ptr() as usize - text.as_ptr() as usize;
    let stop = begin + answer.len();
    let ends = (1..ids.len()).map(|n| Ok(codec.decode(&ids[..n])?.len())).collect::<Result<Vec<_>>>()?;
    let first = ends.iter().position(|&end| end > begin).unwrap_or(whole.end);
    let end = ends.iter().position(|&end| end >= stop).map_or(whole.end, |last| last + 1);
    Ok(if first < end { first..end } else { whole })
}

/// KL(p || q) of each response, which was sampled from `p`.
fn divergences(
    p: &dyn Predictor,
    q: &dyn Predictor,
    prompts: &[Arc<Prompt>],
    responses: &[(Vec<u32>, bool)],
    names: &[&str],
) -> Result<Vec<MeasuredDivergence>> {
    let sequence = |(prompt, (ids, _)): (&Arc<Prompt>, &(Vec<u32>, bool))| Sequence {
        prompt: Arc::clone(prompt),
        response: ids.clone(),
    };
    let batch: Vec<Sequence> = prompts.iter().zip(responses).map(sequence).collect();
    let nats = token_divergences(p, q, &batch)?;
    let mut rest = nats.as_slice();
    let mut found = Vec::with_capacity(batch.len());
    for ((ids, finished), name) in responses.iter().zip(names) {
        let Some((own, after)) = rest.split_at_checked(ids.len()) else {
            return Err(Error::failed(format!("example {name}: fewer predictions than response tokens")));
        };
        rest = after;
        let nats: f64 = own.iter().sum();
        if !nats.is_finite() {
            return Err(not_finite(name));
        }
        found.push(MeasuredDivergence {
            tokens: ids.len(),
            nats,
            finished: *finished,
            token_ids: ids.clone(),
            token_nats: own.to_vec(),
        });
    }
    Ok(found)
}

fn not_finite(name: &str) -> Error {
    Error::failed(format!("example {name}: a model's prediction is not finite; are its weights?"))
}

/// KL(p || q) at every response token of a batch, sequences end to end, in nats.
pub fn token_divergences(p: &dyn Predictor, q: &dyn Predictor, batch: &[Sequence]) -> Result<Vec<f64>> {
    let (p, q) = (p.predict(batch)?, q.predict(batch)?);
    let (rows, vocab) = (p.rows(), p.vocab());
    if (q.rows(), q.vocab()) != (rows, vocab) {
        return Err(Error::input(format!(
            "the models' vocabularies have {vocab} and {} tokens: their distributions cannot be compared",
            q.vocab()
        )));
    }
    let at_once = (LOGIT_BYTES / (4 * vocab.max(1))).clamp(1, 512);
    let mut nats = Vec::with_capacity(rows);
    for start in (0..rows).step_by(at_once) {
        let piece = start..(start + at_once).min(rows);
        let (a, b) = (p.logits(piece.clone())?, q.logits(piece)?);
        nats.par_extend(a.par_chunks(vocab).zip(b.par_chunks(vocab)).map(|(a, b)| kl_divergence(a, b)));
    }
    Ok(nats)
}

/// A divergence over the prompts of a set.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DivergenceStats {
    /// Tokens of all responses.
    pub tokens: usize,
    /// Responses cut off by the length limit.
    pub unfinished: usize,
    /// Mean nats per token.
    pub per_token: Interval,
    /// Mean nats per response.
    pub per_response: Interval,
}

impl DivergenceStats {
    fn of<'a>(measured: impl Iterator<Item = &'a MeasuredDivergence> + Clone, clusters: &[usize]) -> DivergenceStats {
        let by_tokens = weighted_totals(measured.clone().map(|m| (m.nats, m.tokens as f64)), clusters);
        let by_responses = totals(measured.clone().map(|m| m.nats), clusters);
        DivergenceStats {
            tokens: measured.clone().map(|m| m.tokens).sum(),
            unfinished: measured.filter(|m| !m.finished).count(),
            per_token: not_negative(clustered_mean(&by_tokens).mean),
            per_response: not_negative(clustered_mean(&by_responses).mean),
        }
    }
}

/// A divergence is never below 0; an interval of its estimate might be.
fn not_negative(interval: Interval) -> Interval {
    Interval { low: interval.low.max(0.0), ..interval }
}

/// The base's own answers: perplexity under both models.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct OwnAnswers {
    /// Answers.
    pub answers: usize,
    /// Their tokens.
    pub tokens: usize,
    /// Perplexity under the base.
    pub base: Interval,
    /// Perplexity under the tuned model.
    pub tuned: Interval,
    /// Tuned minus base, in nats per token: the logarithm of the ratio of the perplexities.
    pub change: Interval,
}

/// What the prompts of a set are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PromptRole {
    /// Of the task that the model was tuned for.
    NewTask,
    /// Of a benchmark that is scored.
    Benchmark,
    /// Of prior knowledge, and in no benchmark that is scored.
    HeldOut,
}

/// How far a tuned model has moved from its base, on the prompts of one set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// Where the prompts are from.
    pub prompts_of: String,
    /// What they are.
    pub role: PromptRole,
    /// Prompts, with one response each.
    pub prompts: usize,
    /// Seed of the sampling.
    pub seed: u64,
    /// KL(base || tuned), on the base's responses.
    pub forward: DivergenceStats,
    /// KL(tuned || base), on the tuned model's responses.
    pub reverse: DivergenceStats,
    /// The base's own greedy answers, if the evaluation was greedy.
    pub own: Option<OwnAnswers>,
}

impl Divergence {
    /// Over prompts, each in a cluster (numbered from 0): the intervals take all tokens and all prompts of a cluster as one observation.
    pub fn of(
        prompts_of: &str,
        role: PromptRole,
        seed: u64,
        lines: &[PromptDivergence],
        clusters: &[usize],
    ) -> Divergence {
        let own: Vec<(&AnswerLogprobs, usize)> =
            lines.iter().zip(clusters).filter_map(|(line, &cluster)| Some((line.own.as_ref()?, cluster))).collect();
        let own_clusters: Vec<usize> = own.iter().map(|(_, cluster)| *cluster).collect();
        let mean = |of: fn(&AnswerLogprobs) -> f64| {
            clustered_mean(&weighted_totals(own.iter().map(|(o, _)| (of(o), o.tokens as f64)), &own_clusters)).mean
        };
        let exp = |i: Interval| Interval { value: i.value.exp(), low: i.low.exp(), high: i.high.exp() };
        Divergence {
            prompts_of: prompts_of.to_string(),
            role,
            prompts: lines.len(),
            seed,
            forward: DivergenceStats::of(lines.iter().map(|line| &line.forward), clusters),
            reverse: DivergenceStats::of(lines.iter().map(|line| &line.reverse), clusters),
            own: (!own.is_empty()).then(|| OwnAnswers {
                answers: own.len(),
                tokens: own.iter().map(|(o, _)| o.tokens).sum(),
                base: exp(mean(|o| o.base)),
                tuned: exp(mean(|o| o.tuned)),
                change: mean(|o| o.tuned - o.base),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(forward: (usize, f64), own: Option<(usize, f64, f64)>) -> PromptDivergence {
        let (tokens, nats) = forward;
        let (token_ids, token_nats) = (vec![0; tokens], vec![nats / tokens as f64; tokens]);
        let measured = MeasuredDivergence { tokens, nats, finished: true, token_ids, token_nats };
        let own = own.map(|(tokens, base, tuned)| {
            let logprobs = |nats: f64| vec![-nats as f32 / tokens as f32; tokens];
            let (base_logprobs, tuned_logprobs) = (logprobs(base), logprobs(tuned));
            AnswerLogprobs { tokens, base, tuned, token_ids: vec![0; tokens], base_logprobs, tuned_logprobs }
        });
        PromptDivergence { index: 0, id: "a".into(), forward: measured.clone(), reverse: measured, own, gold: None }
    }

    #[test]
    fn prompts_are_spread_over_the_file() {
        assert_eq!(spread(10, 5), [0, 2, 4, 6, 8]);
        assert_eq!(spread(3, 64), [0, 1, 2]);
        assert_eq!(spread(100, 3), [0, 33, 66]);
        assert!(spread(0, 4).is_empty());
    }

    #[test]
    fn long_responses_weigh_more_per_token_and_not_per_response() {
        let lines = [line((1, 1.0), None), line((9, 0.0), None), line((2, 2.0), None)];
        let found = Divergence::of("prior", PromptRole::HeldOut, 0, &lines, &[0, 1, 2]);
        assert!((found.forward.per_token.value - 3.0 / 12.0).abs() < 1e-12);
        assert!((found.forward.per_response.value - 1.0).abs() < 1e-12);
        assert_eq!((found.forward.tokens, found.prompts, found.own), (12, 3, None));
        assert_eq!(found.forward.per_token.low, 0.0, "cut at 0");
    }

    #[test]
    fn prompts_of_one_image_are_one_observation() {
        let lines = [line((1, 1.0), None), line((1, 3.0), None), line((1, 2.0), None), line((1, 4.0), None)];
        let of = |clusters: &[usize]| Divergence::of("prior", PromptRole::HeldOut, 0, &lines, clusters).forward;
        let (apart, pairs) = (of(&[0, 1, 2, 3]).per_response, of(&[0, 0, 1, 1]).per_response);
        assert_eq!(apart.value, pairs.value);
        // Two means of 2 and 3: t with one degree of freedom, standard error 0.5.
        assert!((pairs.high - (2.5 + 12.706_204_736_174_7 * 0.5)).abs() < 1e-9, "{pairs:?}");
    }

    #[test]
    fn equal_models_have_no_divergence_and_the_same_perplexity() {
        let lines = [line((3, 0.0), Some((3, 1.5, 1.5))), line((5, 0.0), Some((2, 4.0, 4.0)))];
        let found = Divergence::of("prior", PromptRole::Benchmark, 0, &lines, &[0, 1]);
        let zero = Interval { value: 0.0, low: 0.0, high: 0.0 };
        assert_eq!((found.forward.per_token, found.reverse.per_response), (zero, zero));
        let own = found.own.unwrap();
        assert_eq!((own.change, own.base), (zero, own.tuned));
        assert!((own.base.value - (5.5_f64 / 5.0).exp()).abs() < 1e-12);
    }
}
