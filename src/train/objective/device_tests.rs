//! The gradients in tensor ops against those of `compute`, for every loss.

use super::*;
use crate::model::{DeviceTokenStats, TokenStats};
use crate::train::settings::{GrpoSettings, ImportanceLevel, LossReduction, LossType, Method};
use candle_core::{Device, Tensor};

const LENGTHS: [usize; 4] = [3, 5, 1, 4];

fn wave(k: f32, a: f32, b: f32) -> Vec<f32> {
    (0..LENGTHS.iter().sum()).map(|i| a + b * (i as f32 * k).sin()).collect()
}

/// Ratios on both sides of every clipping range, and one that f32 does not hold.
fn check(what: &str, objective: &dyn Objective, old: bool) {
    check_sampled(what, objective, old, false);
}

/// As [`check`], with responses that another program sampled.
fn check_sampled(what: &str, objective: &dyn Objective, old: bool, elsewhere: bool) {
    let needs = objective.needs();
    let (logprobs, entropies, kl) = (wave(1.7, -1.2, 0.9), wave(0.9, 1.9, 1.8), wave(1.3, 0.4, 0.3));
    let mut before: Vec<f32> = logprobs.iter().zip(wave(2.3, 0.02, 0.55)).map(|(l, d)| l + d).collect();
    before[1] -= 200.0;
    let reference = wave(1.1, -1.3, 0.8);
    let sampled: Vec<f32> = logprobs.iter().zip(wave(3.1, 0.0, 0.9)).map(|(l, d)| l + d).collect();
    let sampler = elsewhere.then_some(SamplerLogprobs { logprobs: &sampled, max_ratio: 1.5 });
    let n = logprobs.len();
    let both = Tensor::from_vec([logprobs.clone(), entropies.clone()].concat(), (2, n), &Device::Cpu).unwrap();
    let on_device = DeviceTokenStats {
        both,
        kl: needs.reference_kl.then(|| Tensor::from_vec(kl.clone(), n, &Device::Cpu).unwrap()),
    };
    let stats = TokenStats { logprobs, entropies, kl: needs.reference_kl.then_some(kl) };
    let none = TokenStats { logprobs: Vec::new(), entropies: Vec::new(), kl: None };
    let inputs = ObjectiveInputs {
        stats: &stats,
        old_logprobs: old.then_some(&before),
        reference_logprobs: needs.reference_logprobs.then_some(&reference),
        sampler,
        lengths: &LENGTHS,
        advantages: &[1.3, -0.8, 0.0, -1.1],
        micro_batch_tokens: n,
        batch: BatchTotals::of(LENGTHS, 1),
    };
    let want = objective.compute(&inputs).grads;
    let got = objective.device_grads(&on_device, &ObjectiveInputs { stats: &none, ..inputs }).unwrap();
    let got = got.unwrap_or_else(|| panic!("{what} has no gradient in tensor ops"));
    let close = |got: &[f32], want: &[f32]| {
        assert_eq!(got.len(), want.len(), "{what}");
        for (i, (got, want)) in got.iter().zip(want).enumerate() {
            assert!((got - want).abs() <= 1e-5 * want.abs().max(1e-2), "{what} token {i}: {got} {want}");
        }
    };
    let both = got.both.to_vec2::<f32>().unwrap();
    close(&both[0], &want.logprobs);
    close(&both[1], &want.entropies.unwrap_or_else(|| vec![0.0; n]));
    assert_eq!(got.kl.is_some(), want.kl.is_some(), "{what}");
    if let (Some(got), Some(want)) = (got.kl, want.kl) {
        close(&got.to_vec1::<f32>().unwrap(), &want);
    }
}

#[test]
fn the_losses_of_supervised_training_have_their_gradients_in_tensor_ops() {
    for reduction in [LossReduction::Token, LossReduction::Sequence] {
        let nll = || Box::new(Nll { reduction });
        check("nll", &*nll(), false);
        check("dft", &Dft { reduction }, false);
        check("eaft", &Eaft { reduction }, false);
        check("prift", &Prift { reduction }, false);
        check("psft", &Psft { reduction, epsilon_high: 0.2 }, true);
        check("psft, first step", &Psft { reduction, epsilon_high: 0.2 }, false);
        check("sdft", &Sdft { reduction, direction: Direction::Forward }, false);
        check("sdft reverse", &Sdft { reduction, direction: Direction::Reverse }, false);
        check("nll with a penalty", &KlPenalty { objective: nll(), coef: 0.3, reduction }, false);
    }
    check("prior", &PriorKl { coef: 0.3 }, false);
}

#[test]
fn grpo_of_every_type_and_level_has_its_gradient_in_tensor_ops() {
    let defaults = TrainConfig::defaults(Method::Rft).grpo.unwrap();
    for loss_type in [LossType::Grpo, LossType::Bnpo, LossType::DrGrpo, LossType::Dapo, LossType::Cispo] {
        for importance_sampling_level in [ImportanceLevel::Token, ImportanceLevel::Sequence] {
            for (delta, beta, entropy_coef) in [(None, 0.0, 0.0), (Some(1.5), 0.07, 0.03)] {
                let epsilon_high = Some(if loss_type == LossType::Cispo { 1.4 } else { 0.28 });
                let settings = GrpoSettings {
                    loss_type,
                    importance_sampling_level,
                    delta,
                    beta,
                    entropy_coef,
                    epsilon_high,
                    ..defaults.clone()
                };
                let what = format!("{settings:?}");
                let loss = GrpoLoss { settings, max_completion_length: 9 };
                check(&what, &loss, true);
                check(&what, &loss, false);
                check_sampled(&what, &loss, true, true);
                check_sampled(&what, &loss, false, true);
            }
        }
    }
}
