//! Gradients against finite differences, hand-computed values, and the equality of differently cut windows.

use super::super::base::{BatchTotals, SamplerLogprobs};
use super::*;
use crate::model::TokenStats;
use crate::train::settings::{Method, TrainConfig};

/// The inputs of a loss with its settings, flat.
struct GrpoInputs<'a> {
    logprobs: &'a [f32],
    entropies: &'a [f32],
    old: Option<&'a [f32]>,
    reference: Option<&'a [f32]>,
    sampler: Option<SamplerLogprobs<'a>>,
    lengths: &'a [usize],
    advantages: &'a [f64],
    micro_tokens: usize,
    batch: BatchTotals,
    max_completion_length: usize,
}

fn grpo(settings: &GrpoSettings, inputs: &GrpoInputs<'_>) -> ObjectiveOutput {
    let (logprobs, entropies) = (inputs.logprobs.to_vec(), inputs.entropies.to_vec());
    GrpoLoss { settings: settings.clone(), max_completion_length: inputs.max_completion_length }.compute(
        &ObjectiveInputs {
            stats: &TokenStats { logprobs, entropies, kl: None },
            old_logprobs: inputs.old,
            reference_logprobs: inputs.reference,
            sampler: inputs.sampler,
            lengths: inputs.lengths,
            advantages: inputs.advantages,
            micro_batch_tokens: inputs.micro_tokens,
            batch: inputs.batch,
        },
    )
}

const LENGTHS: [usize; 4] = [3, 5, 1, 4];
const ADVANTAGES: [f64; 4] = [1.3, -0.8, 0.4, -1.1];
const ALL: [LossType; 5] = [LossType::Grpo, LossType::Bnpo, LossType::DrGrpo, LossType::Dapo, LossType::Cispo];

fn settings(loss_type: LossType) -> GrpoSettings {
    let mut s = TrainConfig::defaults(Method::Rft).grpo.unwrap();
    s.loss_type = loss_type;
    s.beta = 0.07;
    s.entropy_coef = 0.03;
    s.epsilon_high = Some(if loss_type == LossType::Cispo { 1.4 } else { 0.28 });
    s
}

/// Values whose ratios lie on both sides of the clipping range.
fn values() -> (Vec<f32>, Vec<f32>, Vec<f32>, Vec<f32>) {
    let n = LENGTHS.iter().sum::<usize>();
    let wave = |k: f32, a: f32, b: f32| (0..n).map(|i| a + b * (i as f32 * k).sin()).collect::<Vec<f32>>();
    let logprobs = wave(1.7, -1.2, 0.9);
    let old = logprobs.iter().zip(wave(2.3, 0.02, 0.55)).map(|(l, d)| l + d).collect();
    (logprobs, wave(0.9, 1.5, 0.4), old, wave(1.1, -1.3, 0.8))
}

fn run(s: &GrpoSettings, v: &(Vec<f32>, Vec<f32>, Vec<f32>, Vec<f32>)) -> ObjectiveOutput {
    grpo(
        s,
        &GrpoInputs {
            logprobs: &v.0,
            entropies: &v.1,
            old: Some(&v.2),
            reference: Some(&v.3),
            sampler: None,
            lengths: &LENGTHS,
            advantages: &ADVANTAGES,
            micro_tokens: 13,
            batch: BatchTotals::of(LENGTHS, 1),
            max_completion_length: 9,
        },
    )
}

#[test]
fn gradients_agree_with_finite_differences_for_every_loss_type_and_level() {
    for loss_type in ALL {
        for importance in [ImportanceLevel::Token, ImportanceLevel::Sequence] {
            for delta in [None, Some(1.5)] {
                if loss_type == LossType::Cispo && (importance == ImportanceLevel::Sequence || delta.is_some()) {
                    continue;
                }
                let s = GrpoSettings { importance_sampling_level: importance, delta, ..settings(loss_type) };
                let v = values();
                let out = run(&s, &v);
                let entropies = out.grads.entropies.clone().unwrap();
                for (i, by_entropy) in entropies.iter().enumerate() {
                    // cispo's weight is a constant for the gradient: hold the ratio by moving `old` along.
                    let shifted = |h: f32| {
                        let mut w = v.clone();
                        w.0[i] += h;
                        if loss_type == LossType::Cispo {
                            w.2[i] += w.0[i] - v.0[i];
                        }
                        (run(&s, &w).loss, f64::from(w.0[i]))
                    };
                    let (up, down) = (shifted(1e-3), shifted(-1e-3));
                    let numeric = (up.0 - down.0) / (up.1 - down.1);
                    let analytic = f64::from(out.grads.logprobs[i]);
                    assert!(
                        (numeric - analytic).abs() < 2e-4 * analytic.abs().max(0.05),
                        "{loss_type:?} {importance:?} {delta:?} token {i}: {numeric} {analytic}"
                    );
                    let mut w = v.clone();
                    w.1[i] += 0.5;
                    let numeric = (run(&s, &w).loss - out.loss) / f64::from(w.1[i] - v.1[i]);
                    assert!((numeric - f64::from(*by_entropy)).abs() < 1e-6);
                }
            }
        }
    }
}

#[test]
fn on_policy_the_gradient_is_the_policy_gradient() {
    let v = values();
    let s = GrpoSettings { beta: 0.0, entropy_coef: 0.0, ..settings(LossType::Dapo) };
    let inputs = GrpoInputs {
        logprobs: &v.0,
        entropies: &v.1,
        old: None,
        reference: None,
        sampler: None,
        lengths: &LENGTHS,
        advantages: &ADVANTAGES,
        micro_tokens: 13,
        batch: BatchTotals::of(LENGTHS, 1),
        max_completion_length: 9,
    };
    let out = grpo(&s, &inputs);
    let mut at = 0;
    for (&length, advantage) in LENGTHS.iter().zip(ADVANTAGES) {
        for _ in 0..length {
            assert!((f64::from(out.grads.logprobs[at]) + advantage / 13.0).abs() < 1e-7);
            at += 1;
        }
    }
    assert_eq!(out.grads.entropies, None);
    assert_eq!(
        (
            out.metrics.get("ratio"),
            out.metrics.get("clipped_low"),
            out.metrics.get("clipped_high"),
            out.metrics.get("kl")
        ),
        (13.0, 0.0, 0.0, 0.0)
    );
}

#[test]
fn values_computed_by_hand() {
    // Two responses, ratios e^0.5 (clipped above, A > 0) and e^-0.5 (clipped below, A < 0).
    let inputs = |batch| GrpoInputs {
        logprobs: &[-0.5, -1.5],
        entropies: &[0.0, 0.0],
        old: Some(&[-1.0, -1.0]),
        reference: Some(&[-0.5, -1.0]),
        sampler: None,
        lengths: &[1, 1],
        advantages: &[2.0, -1.0],
        micro_tokens: 2,
        batch,
        max_completion_length: 4,
    };
    let s = GrpoSettings { beta: 0.1, entropy_coef: 0.0, epsilon_high: Some(0.28), ..settings(LossType::DrGrpo) };
    let out = grpo(&s, &inputs(BatchTotals::of([1, 1], 1)));
    let k3 = 0.5f64.exp() - 0.5 - 1.0;
    let expected = (-1.28 * 2.0 + 0.8 + 0.1 * k3) / 8.0;
    assert!((out.loss - expected).abs() < 1e-12, "{} {expected}", out.loss);
    assert_eq!((out.metrics.get("clipped_low"), out.metrics.get("clipped_high")), (1.0, 1.0));
    assert_eq!(out.grads.logprobs[0], 0.0);
}

#[test]
fn eight_micro_batches_give_the_loss_and_gradient_of_one_batch_of_eight() {
    let v = values();
    for loss_type in ALL {
        let s = settings(loss_type);
        let whole = run(&s, &v);
        let (mut loss, mut grads, mut sums, mut at) = (0.0, Vec::new(), MetricSums::default(), 0);
        for (i, &n) in LENGTHS.iter().enumerate() {
            let r = at..at + n;
            at += n;
            let part = grpo(
                &s,
                &GrpoInputs {
                    logprobs: &v.0[r.clone()],
                    entropies: &v.1[r.clone()],
                    old: Some(&v.2[r.clone()]),
                    reference: Some(&v.3[r]),
                    sampler: None,
                    lengths: &LENGTHS[i..=i],
                    advantages: &ADVANTAGES[i..=i],
                    micro_tokens: n,
                    batch: BatchTotals::of(LENGTHS, LENGTHS.len()),
                    max_completion_length: 9,
                },
            );
            loss += part.loss;
            grads.extend(part.grads.logprobs);
            sums.add_all(&part.metrics);
        }
        if loss_type == LossType::Bnpo {
            // By its definition a mean of means: it must differ here, where the responses differ in length.
            assert!((loss - whole.loss).abs() > 1e-3);
            continue;
        }
        assert!((loss - whole.loss).abs() < 1e-12, "{loss_type:?}");
        assert_eq!(grads, whole.grads.logprobs);
        assert_eq!(sums.get("tokens"), whole.metrics.get("tokens"));
        assert_eq!(sums.get("clipped_high"), whole.metrics.get("clipped_high"));
    }
}

#[test]
fn the_parts_of_a_micro_batch_add_up_for_every_loss_type() {
    let v = values();
    for loss_type in [LossType::Grpo, LossType::Bnpo, LossType::DrGrpo, LossType::Dapo, LossType::Cispo] {
        let s = settings(loss_type);
        let whole = run(&s, &v);
        let (mut loss, mut grads, mut at) = (0.0, Vec::new(), 0);
        for (i, &n) in LENGTHS.iter().enumerate() {
            let r = at..at + n;
            at += n;
            let inputs = GrpoInputs {
                logprobs: &v.0[r.clone()],
                entropies: &v.1[r.clone()],
                old: Some(&v.2[r.clone()]),
                reference: Some(&v.3[r]),
                sampler: None,
                lengths: &LENGTHS[i..=i],
                advantages: &ADVANTAGES[i..=i],
                micro_tokens: 13,
                batch: BatchTotals::of(LENGTHS, 1),
                max_completion_length: 9,
            };
            let part = grpo(&s, &inputs);
            loss += part.loss;
            grads.extend(part.grads.logprobs);
        }
        assert!((loss - whole.loss).abs() < 1e-12, "{loss_type:?}");
        assert_eq!(grads, whole.grads.logprobs, "{loss_type:?}");
    }
}

#[test]
fn an_empty_response_weighs_nothing_and_breaks_nothing() {
    let out = grpo(
        &settings(LossType::Grpo),
        &GrpoInputs {
            logprobs: &[],
            entropies: &[],
            old: Some(&[]),
            reference: Some(&[]),
            sampler: None,
            lengths: &[0, 0],
            advantages: &[1.0, -1.0],
            micro_tokens: 0,
            batch: BatchTotals::of([0, 0], 1),
            max_completion_length: 9,
        },
    );
    assert_eq!(out.loss, 0.0);
    assert!(out.grads.logprobs.is_empty());
}

/// Every weight is min(exp(old - sampled), 2), and multiplies the term of the policy alone.
#[test]
fn responses_of_another_sampler_are_weighted_by_truncated_importance() {
    let (logprobs, old) = ([-1.0f32, -2.0, -0.5], [-1.1f32, -1.9, -0.6]);
    let sampled = [-1.1f32, -2.4, -2.6];
    let weights = [1.0, 0.5f64.exp(), 2.0];
    let with = |s: &GrpoSettings, sampler, old| {
        let (entropies, lengths, advantages) = ([0.7f32; 3], [1, 1, 1], [1.0, -1.0, 0.5]);
        let batch = BatchTotals::of(lengths, 1);
        let inputs = GrpoInputs {
            logprobs: &logprobs,
            entropies: &entropies,
            old,
            reference: None,
            sampler,
            lengths: &lengths,
            advantages: &advantages,
            micro_tokens: 3,
            batch,
            max_completion_length: 1,
        };
        grpo(s, &inputs)
    };
    for loss_type in ALL {
        for importance_sampling_level in [ImportanceLevel::Token, ImportanceLevel::Sequence] {
            let s = GrpoSettings { beta: 0.0, entropy_coef: 0.0, importance_sampling_level, ..settings(loss_type) };
            let sampler = Some(SamplerLogprobs { logprobs: &sampled, max_ratio: 2.0 });
            let (own, other) = (with(&s, None, Some(&old)), with(&s, sampler, Some(&old)));
            for (t, weight) in weights.iter().enumerate() {
                let (own, other) = (f64::from(own.grads.logprobs[t]), f64::from(other.grads.logprobs[t]));
                assert!(own != 0.0 && (other - weight * own).abs() < 1e-6, "{loss_type:?} {t}: {other} {weight} {own}");
            }
            assert!((other.metrics.get("sampler_ratio") - weights.iter().sum::<f64>()).abs() < 1e-6);
            assert_eq!((other.metrics.get("sampler_truncated"), own.metrics.get("sampler_truncated")), (1.0, 0.0));
            // Where the model that trains is the old policy.
            let sampler = Some(SamplerLogprobs { logprobs: &logprobs, max_ratio: 2.0 });
            assert_eq!(with(&s, sampler, None).grads, with(&s, None, None).grads);
        }
    }
}
