//! The measurement against what it stands for: the whole kernel, written out, of a model small enough for it; and against itself, for a
//! model of the real architecture. `tests/model/dynamics_parity.rs` compares it with torch.

use super::influence::{Influence, InfluenceConfig, influences};
use super::stepper::{ResponseLoss, Stepper};
use super::toy_model::{ToyModel, VOCAB, sequence};
use crate::Error;
use crate::model::init::{Preset, write_checkpoint};
use crate::model::{LanguageModel, Prompt, Sequence, TokenGrads, TokenStats};
use crate::nn::read;
use crate::train::optimizer::AdamW;
use crate::train::settings::{Method, TrainConfig, TrainSettings};
use candle_core::Device;
use std::sync::Arc;

/// Training samples and prior samples: of the same prompt and of others, one token long and several.
fn samples() -> (Vec<Sequence>, Vec<Sequence>) {
    let us = vec![sequence(0, &[2, 1, 3, 0]), sequence(1, &[4]), sequence(2, &[3, 3, 0])];
    let vs = vec![sequence(0, &[1, 0]), sequence(3, &[2, 4, 4, 1, 0]), sequence(1, &[4, 0])];
    (us, vs)
}

/// The matrices of one pair, written out.
struct Exact {
    /// A(v), `[rows of v, rows of v]`, block-diagonal.
    a: Vec<Vec<f64>>,
    /// K(v, u), `[rows of v, rows of u]`.
    k: Vec<Vec<f64>>,
    /// G(u), `[rows of u]`.
    g: Vec<f64>,
}

impl Exact {
    fn of(model: &ToyModel, u: &Sequence, v: &Sequence, loss: ResponseLoss) -> Exact {
        let probabilities =
            |s: &Sequence| -> Vec<f64> { ToyModel::log_softmax(&model.logits(s)).into_iter().map(f64::exp).collect() };
        let (pi_u, pi_v) = (probabilities(u), probabilities(v));
        let a = (0..pi_v.len())
            .map(|i| {
                let block = i / VOCAB;
                let element = |j: usize| match j / VOCAB == block {
                    true => f64::from(u8::from(i == j)) - pi_v[j],
                    false => 0.0,
                };
                (0..pi_v.len()).map(element).collect()
            })
            .collect();
        let weight = loss.weight(u.response.len());
        let target = |i: usize| f64::from(u8::from(u.response[i / VOCAB] as usize == i % VOCAB));
        let g = pi_u.iter().enumerate().map(|(i, p)| weight * (p - target(i))).collect();
        let (by_v, by_u) = (model.jacobian(v), model.jacobian(u));
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let k = by_v.iter().map(|v| by_u.iter().map(|u| dot(v, u)).collect()).collect();
        Exact { a, k, g }
    }

    /// -eta A K G.
    fn first_order(&self, eta: f64) -> Vec<f64> {
        times(&self.a, &times(&self.k, &self.g)).into_iter().map(|x| -eta * x).collect()
    }
}

/// The gradient of the log-likelihood of `s`, by its Jacobian.
fn gradient(model: &ToyModel, s: &Sequence, loss: ResponseLoss) -> Vec<f64> {
    let g = Exact::of(model, s, s, loss).g;
    let jacobian = model.jacobian(s);
    (0..jacobian[0].len()).map(|p| -g.iter().zip(&jacobian).map(|(g, row)| g * row[p]).sum::<f64>()).collect()
}

fn times(matrix: &[Vec<f64>], vector: &[f64]) -> Vec<f64> {
    matrix.iter().map(|row| row.iter().zip(vector).map(|(a, b)| a * b).sum()).collect()
}

fn squares<'a>(numbers: impl IntoIterator<Item = &'a f64>) -> f64 {
    numbers.into_iter().map(|x| x * x).sum()
}

fn config(eta: Option<f64>, loss: ResponseLoss) -> InfluenceConfig {
    InfluenceConfig { eta, loss, ..InfluenceConfig::default() }
}

fn close(got: f64, expected: f64, relative: f64, what: &str) {
    assert!((got - expected).abs() <= relative * expected.abs(), "{what}: {got} is not {expected}");
}

#[test]
fn the_bound_holds_for_every_pair_and_is_what_the_matrices_give() {
    let model = ToyModel::new(0);
    let stepper = Stepper::new(&model).unwrap();
    let (us, vs) = samples();
    for loss in [ResponseLoss::Mean, ResponseLoss::Sum] {
        for u in &us {
            for (found, v) in influences(&stepper, u, &vs, &config(None, loss)).unwrap().iter().zip(&vs) {
                let exact = Exact::of(&model, u, v, loss);
                let (a, k, g) =
                    (squares(exact.a.iter().flatten()), squares(exact.k.iter().flatten()), squares(&exact.g));
                close(found.a_squares, a, 1e-6, "||A||");
                close(found.g_squares, g, 1e-6, "||G||");
                let expected = squares(&exact.first_order(1.0)) / (a * g);
                close(found.lbk, expected, 1e-3, "LBK");
                assert!(found.lbk > 0.0 && found.lbk <= k, "{} above ||K||^2 = {k}", found.lbk);
                assert!(found.rounding < 0.01 && found.curvature < 0.01, "{found:?}");
                assert_eq!((found.u_tokens, found.v_tokens), (u.response.len(), v.response.len()));
                let (by_u, by_v) = (gradient(&model, u, loss), gradient(&model, v, loss));
                let dot = by_u.iter().zip(&by_v).map(|(a, b)| a * b).sum::<f64>();
                let (u_norm, v_norm) = (squares(&by_u).sqrt(), squares(&by_v).sqrt());
                close(found.u_gradient, u_norm, 1e-5, "||grad l(u)||");
                close(found.v_gradient, v_norm, 1e-5, "||grad l(v)||");
                assert!((found.cosine - dot / (u_norm * v_norm)).abs() < 1e-5, "{} {dot}", found.cosine);
                assert!((found.inner_product - dot).abs() < 1e-5 * u_norm * v_norm);
            }
        }
    }
}

#[test]
fn the_bound_of_a_sample_does_not_depend_on_the_mean_or_the_sum_of_the_loss() {
    let model = ToyModel::new(1);
    let stepper = Stepper::new(&model).unwrap();
    let (us, vs) = samples();
    for u in &us {
        let of = |loss| influences(&stepper, u, &vs, &config(None, loss)).unwrap();
        for (mean, sum) in of(ResponseLoss::Mean).iter().zip(&of(ResponseLoss::Sum)) {
            close(mean.lbk, sum.lbk, 1e-3, "LBK");
            close(mean.cosine, sum.cosine, 1e-9, "cosine");
        }
    }
}

#[test]
fn the_squared_effect_is_what_lbk_divides_and_the_divergence_is_the_same_weighted_by_the_probabilities() {
    let model = ToyModel::new(0);
    let stepper = Stepper::new(&model).unwrap();
    let (us, vs) = samples();
    for (u, loss) in us.iter().zip([ResponseLoss::Mean, ResponseLoss::Sum, ResponseLoss::Mean]) {
        for (found, v) in influences(&stepper, u, &vs, &config(None, loss)).unwrap().iter().zip(&vs) {
            let slope = Exact::of(&model, u, v, loss).first_order(1.0);
            close(found.slope_squares, squares(&slope), 1e-3, "squares");
            let pi = ToyModel::log_softmax(&model.logits(v)).into_iter().map(f64::exp);
            let kl = 0.5 * pi.zip(&slope).map(|(p, s)| p * s * s).sum::<f64>() / v.response.len() as f64;
            close(found.sgd_kl, kl, 1e-3, "KL");
            // KL(pi || pi') after a step of size eta is eta^2 times that; the next order has opposite signs in both directions.
            let after = [1e-3, -1e-3].map(|eta| measured(&model, &stepper, u, v, eta, loss));
            let pi: Vec<f64> = ToyModel::log_softmax(&model.logits(v)).into_iter().map(f64::exp).collect();
            let divergence = |after: &Vec<f64>| -> f64 {
                pi.iter().zip(after).map(|(p, change)| p * (change.exp_m1() - change)).sum()
            };
            let whole = after.iter().map(divergence).sum::<f64>() / 2.0;
            close(whole / v.response.len() as f64, 1e-6 * kl, 0.02, "KL after a step");
        }
    }
}

#[test]
fn the_step_of_adam_is_the_first_step_of_the_optimizer_that_trains() {
    let (us, vs) = samples();
    let settings = InfluenceConfig { learning_rate: 3e-3, ..InfluenceConfig::default() };
    for u in &us {
        let model = ToyModel::new(0);
        let before: Vec<Vec<f64>> = vs.iter().map(|v| ToyModel::log_softmax(&model.logits(v))).collect();
        let stepper = Stepper::new(&model).unwrap();
        let found = influences(&stepper, u, &vs, &settings).unwrap();
        // The same by the optimizer: the loss is -l(u).
        let (_, gradient) = stepper.gradient(u).unwrap();
        let weight = settings.loss.weight(u.response.len());
        let train = TrainSettings { weight_decay: 0.0, ..TrainConfig::defaults(Method::Sft).train };
        let mut optimizer = AdamW::new(model.parameters(), &train).unwrap();
        for (parameter, part) in model.parameters().iter().zip(&gradient.parts) {
            parameter.set_grad(Some((part.as_ref().unwrap() * -weight).unwrap()));
        }
        optimizer.update(settings.learning_rate, 1.0, 0.0).unwrap();
        for ((found, v), before) in found.iter().zip(&vs).zip(&before) {
            let after = ToyModel::log_softmax(&model.logits(v));
            let change: Vec<f64> = after.iter().zip(before).map(|(a, b)| a - b).collect();
            let target = |(t, &y): (usize, &u32)| change[t * VOCAB + y as usize];
            let (n, of_targets) = (v.response.len() as f64, v.response.iter().enumerate().map(target).sum::<f64>());
            close(found.adam_squares, squares(&change), 1e-3, "squares");
            assert!((found.adam_change - of_targets / n).abs() < 1e-6, "{} {}", found.adam_change, of_targets / n);
            let kl: f64 = change.iter().zip(before).map(|(c, b)| b.exp() * (c.exp_m1() - c)).sum();
            close(found.adam_kl, kl / n, 2e-3, "KL");
        }
    }
}

#[test]
fn lbk_per_token_is_at_most_the_mean_lbk_of_the_single_tokens() {
    let model = ToyModel::new(0);
    let (us, vs) = samples();
    let stepper = Stepper::new(&model).unwrap();
    for (u, v) in us.iter().flat_map(|u| vs.iter().map(move |v| (u, v))) {
        let found = influences(&stepper, u, std::slice::from_ref(v), &InfluenceConfig::default()).unwrap()[0];
        let exact = Exact::of(&model, u, v, ResponseLoss::Sum);
        let effect = |g: &[f64]| squares(&times(&exact.a, &times(&exact.k, g)));
        let tokens = (0..u.response.len()).map(|t| {
            let own = |(i, g): (usize, &f64)| if i / VOCAB == t { *g } else { 0.0 };
            effect(&exact.g.iter().enumerate().map(own).collect::<Vec<f64>>())
        });
        let most = tokens.sum::<f64>() / (squares(exact.a.iter().flatten()) * squares(&exact.g));
        assert!(found.lbk_per_token() <= 1.001 * most, "{} above {most}", found.lbk_per_token());
        assert!((found.lbk_per_token() - found.lbk / u.response.len() as f64).abs() < 1e-12);
    }
}

/// Measured change of the token log-distributions of `v` after a step on `u`.
fn measured(
    model: &ToyModel,
    stepper: &Stepper<'_>,
    u: &Sequence,
    v: &Sequence,
    eta: f64,
    loss: ResponseLoss,
) -> Vec<f64> {
    let before = ToyModel::log_softmax(&model.logits(v));
    let (_, gradient) = stepper.gradient(u).unwrap();
    let rate = eta * loss.weight(u.response.len());
    let [after] = stepper.after_steps(&gradient, [rate], |_| Ok(ToyModel::log_softmax(&model.logits(v)))).unwrap();
    after.iter().zip(&before).map(|(a, b)| a - b).collect()
}

#[test]
fn the_change_goes_to_minus_eta_akg_with_an_error_of_second_order() {
    let model = ToyModel::new(0);
    let stepper = Stepper::new(&model).unwrap();
    let (us, vs) = samples();
    let errors = |eta: f64| -> (f64, f64) {
        let (mut absolute, mut whole) = (0.0, 0.0);
        for (u, v) in us.iter().flat_map(|u| vs.iter().map(move |v| (u, v))) {
            let expected = Exact::of(&model, u, v, ResponseLoss::Sum).first_order(eta);
            let found = measured(&model, &stepper, u, v, eta, ResponseLoss::Sum);
            absolute += found.iter().zip(&expected).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
            whole += squares(&expected);
        }
        (absolute.sqrt(), (absolute / whole).sqrt())
    };
    let etas = [0.08, 0.04, 0.02, 0.01];
    let all: Vec<(f64, f64)> = etas.iter().map(|&eta| errors(eta)).collect();
    for pair in all.windows(2) {
        let (absolute, relative) = (pair[0].0 / pair[1].0, pair[0].1 / pair[1].1);
        assert!((3.4..4.6).contains(&absolute) && (1.7..2.3).contains(&relative), "{all:?}");
    }
    assert!(all[3].1 < 0.05, "{all:?}");
}

#[test]
fn steps_on_u_change_v_as_steps_on_v_change_u_and_both_as_the_gradients_say() {
    let model = ToyModel::new(2);
    let stepper = Stepper::new(&model).unwrap();
    let (us, vs) = samples();
    for loss in [ResponseLoss::Mean, ResponseLoss::Sum] {
        let of = |eta: Option<f64>| -> Vec<Influence> {
            us.iter().flat_map(|u| influences(&stepper, u, &vs, &config(eta, loss)).unwrap()).collect()
        };
        for pair in of(None) {
            let most = 1e-3 * pair.u_gradient * pair.v_gradient;
            assert!((pair.v_slope - pair.inner_product).abs() < most, "{pair:?}");
            assert!((pair.u_slope - pair.inner_product).abs() < most, "{pair:?}");
        }
        // Of a given size, steps in both directions leave an error of fourth order.
        let errors = |eta: f64| {
            let all = of(Some(eta));
            let error = |i: &Influence| squares(&[i.v_slope - i.inner_product, i.u_slope - i.inner_product]);
            (all.iter().map(error).sum::<f64>() / all.len() as f64).sqrt()
        };
        let ratio = errors(0.4) / errors(0.2);
        assert!((11.0..22.0).contains(&ratio), "{loss:?} {ratio}");
    }
}

#[test]
fn steps_too_small_are_called_rounded_and_steps_too_large_curved() {
    let model = ToyModel::new(0);
    let stepper = Stepper::new(&model).unwrap();
    let (us, vs) = samples();
    let of = |eta: Option<f64>| -> Vec<Influence> {
        us.iter().flat_map(|u| influences(&stepper, u, &vs, &config(eta, ResponseLoss::Mean)).unwrap()).collect()
    };
    assert!(of(None).iter().all(|pair| !pair.is_rounded() && !pair.is_curved()));
    assert!(of(Some(1e-7)).iter().all(|pair| pair.is_rounded() && !pair.is_curved()));
    let large = of(Some(20.0));
    assert!(large.iter().filter(|pair| pair.is_curved()).count() > large.len() / 2, "{large:?}");
    assert!(large.iter().all(|pair| !pair.is_rounded()), "{large:?}");
}

#[test]
fn a_sample_is_as_near_to_itself_as_can_be_and_a_step_on_it_makes_it_likelier() {
    let model = ToyModel::new(0);
    let stepper = Stepper::new(&model).unwrap();
    let u = sequence(0, &[2, 1, 0]);
    let found = influences(&stepper, &u, std::slice::from_ref(&u), &config(None, ResponseLoss::Mean)).unwrap()[0];
    assert!((found.cosine - 1.0).abs() < 1e-9 && found.v_slope > 0.0, "{found:?}");
    assert_eq!(found.v_slope, found.u_slope);
    close(found.v_slope, found.inner_product, 1e-3, "slope");
    close(found.inner_product, found.u_gradient.powi(2), 1e-9, "||grad||^2");
    let nats: f64 = -model.score(&[u], 1.0).unwrap().logprobs.iter().map(|&l| f64::from(l)).sum::<f64>();
    close(found.u_nats, nats, 1e-6, "nats");
}

fn bits(policy: &dyn LanguageModel) -> Vec<u32> {
    policy.parameters().iter().flat_map(|p| read(p.var.as_tensor()).unwrap().to_vec()).map(f32::to_bits).collect()
}

#[test]
fn the_weights_are_exactly_what_they_were_after_steps_and_after_failures() {
    let model = ToyModel::new(0);
    let before = bits(&model);
    let stepper = Stepper::new(&model).unwrap();
    let (us, vs) = samples();
    for u in &us {
        influences(&stepper, u, &vs, &config(Some(0.37), ResponseLoss::Sum)).unwrap();
        assert_eq!(bits(&model), before);
    }
    let (_, gradient) = stepper.gradient(&us[0]).unwrap();
    let mut seen = vec![before.clone()];
    let failed = stepper.after_steps(&gradient, [0.5, -0.5, 1.0], |_| {
        assert!(!seen.contains(&bits(&model)), "each step is taken from the start");
        seen.push(bits(&model));
        if seen.len() < 3 { Ok(()) } else { Err(Error::failed("on purpose")) }
    });
    assert!(failed.is_err() && seen.len() == 3);
    assert_eq!(bits(&model), before);
}

#[test]
fn what_is_frozen_has_no_part_in_step_and_gradient() {
    let model = ToyModel::new(0);
    model.parameters()[2].set_trainable(false);
    let stepper = Stepper::new(&model).unwrap();
    let (us, vs) = samples();
    let (_, gradient) = stepper.gradient(&us[0]).unwrap();
    let whole = {
        let free = ToyModel::new(0);
        let stepper = Stepper::new(&free).unwrap();
        stepper.gradient(&us[0]).unwrap().1.norm().unwrap()
    };
    assert!(gradient.norm().unwrap() < 0.99 * whole);
    let head = read(model.parameters()[2].var.as_tensor()).unwrap().to_vec();
    let moved = stepper.after_steps(&gradient, [0.5], |_| Ok(read(model.parameters()[2].var.as_tensor())?.to_vec()));
    assert_eq!(moved.unwrap(), [head]);
    let found = influences(&stepper, &us[0], &vs[..1], &config(None, ResponseLoss::Mean)).unwrap()[0];
    close(found.v_slope, found.inner_product, 1e-3, "slope");
    model.parameters().iter().for_each(|p| p.set_trainable(false));
    let none = Stepper::new(&model).unwrap();
    assert!(none.gradient(&us[0]).is_err(), "nothing trains");
}

#[test]
fn weights_that_are_no_numbers_are_an_error_and_not_a_result() {
    let model = ToyModel::new(0);
    let (us, vs) = samples();
    let bias = &model.parameters()[3].var;
    bias.set(&(bias.as_tensor() * f64::NAN).unwrap()).unwrap();
    let stepper = Stepper::new(&model).unwrap();
    let error = influences(&stepper, &us[0], &vs, &config(None, ResponseLoss::Mean)).unwrap_err();
    assert!(error.exit_code() == 1 && error.to_string().contains("finite"), "{error}");
}

#[test]
fn the_architecture_itself_is_symmetric_and_comes_back_to_its_weights() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiny");
    write_checkpoint(&path, Preset::Tiny, 3).unwrap();
    let model = crate::model::load(&path, &Device::Cpu).unwrap();
    let before = bits(&model);
    let ids = |n: u32, by: u32| (0..n).map(|i| (7 + i * by) % 300).collect::<Vec<u32>>();
    let of = |prompt: u32, response: u32, by: u32| Sequence {
        prompt: Arc::new(Prompt { ids: ids(prompt, by), images: Vec::new() }),
        response: ids(response, by + 2),
    };
    let (u, vs) = (of(6, 4, 31), [of(5, 3, 17), of(4, 6, 11)]);
    let stepper = Stepper::new(&model).unwrap();
    for pair in influences(&stepper, &u, &vs, &config(None, ResponseLoss::Mean)).unwrap() {
        assert!(pair.lbk > 0.0 && pair.rounding < 0.01 && pair.curvature < 0.01, "{pair:?}");
        let most = 1e-3 * pair.u_gradient * pair.v_gradient;
        assert!((pair.v_slope - pair.inner_product).abs() < most, "{pair:?}");
        assert!((pair.u_slope - pair.inner_product).abs() < most, "{pair:?}");
    }
    assert_eq!(bits(&model), before);
    // The distributions are those of the model's own statistics, and the gradient is that of its own backward pass.
    let (found, gradient) = stepper.gradient(&u).unwrap();
    let stats = model.score(std::slice::from_ref(&u), 1.0).unwrap();
    for (row, logprob) in found.rows().iter().zip(&stats.logprobs) {
        assert!((row.log_prob - f64::from(*logprob)).abs() < 1e-5, "{} {logprob}", row.log_prob);
    }
    let by_loss = |_: std::ops::Range<usize>, stats: &TokenStats| {
        Ok(TokenGrads { logprobs: vec![1.0; stats.logprobs.len()], entropies: None, kl: None })
    };
    model.backward(std::slice::from_ref(&u), 1.0, None, &by_loss).unwrap();
    let gradients = model.parameters().iter().filter_map(|p| p.grad());
    let squares: f64 =
        gradients.map(|g| squares(&read(&g).unwrap().iter().map(|&x| f64::from(x)).collect::<Vec<_>>())).sum();
    close(gradient.norm().unwrap(), squares.sqrt(), 1e-5, "gradient");
}
