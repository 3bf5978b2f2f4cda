//! AdamW against the formula in f64, clipping, state round trip, and independence of the number of threads.

use super::*;
use crate::train::settings::{Method, TrainConfig};
use candle_core::{Device, Var};

fn settings() -> TrainSettings {
    TrainSettings { weight_decay: 0.1, betas: [0.9, 0.99], ..TrainConfig::defaults(Method::Sft).train }
}

fn wave(n: usize, k: f32) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * k + 0.3).sin()).collect()
}

fn parameters(shapes: &[&[usize]]) -> Vec<Arc<Parameter>> {
    let make = |(i, shape): (usize, &&[usize])| {
        let n = shape.iter().product();
        let tensor = Tensor::from_vec(wave(n, 0.7 + i as f32), *shape, &Device::Cpu).unwrap();
        Arc::new(Parameter::new(format!("p{i}"), Var::from_tensor(&tensor).unwrap()))
    };
    shapes.iter().enumerate().map(make).collect()
}

fn values(p: &Parameter) -> Vec<f32> {
    p.var.as_tensor().flatten_all().unwrap().to_vec1().unwrap()
}

fn set_grads(parameters: &[Arc<Parameter>], step: usize) {
    for p in parameters {
        let shape = p.var.as_tensor().shape().clone();
        let grad = Tensor::from_vec(wave(shape.elem_count(), 0.11 * (step + 1) as f32), shape, &Device::Cpu).unwrap();
        p.set_grad(Some(grad));
    }
}

#[test]
fn five_steps_give_what_the_formula_gives_in_double_precision() {
    let ps = parameters(&[&[5, 7], &[9]]);
    let start: Vec<Vec<f32>> = ps.iter().map(|p| values(p)).collect();
    let mut adam = AdamW::new(&ps, &settings()).unwrap();
    for step in 0..5 {
        set_grads(&ps, step);
        let norm = adam.grad_norm().unwrap();
        adam.update(1e-2, norm, 1.0).unwrap();
        assert!(ps.iter().all(|p| p.grad().is_none()));
    }
    for (p, start) in ps.iter().zip(start) {
        let decay = if p.var.as_tensor().rank() >= 2 { 0.1 } else { 0.0 };
        let (mut w, mut m, mut v) =
            (start.iter().map(|&x| f64::from(x)).collect::<Vec<_>>(), vec![0.0; 64], vec![0.0; 64]);
        for step in 0..5 {
            let grads = |n: usize| wave(n, 0.11 * (step + 1) as f32);
            let norm = [35, 9].iter().flat_map(|&n| grads(n)).map(|g| f64::from(g).powi(2)).sum::<f64>().sqrt();
            assert!(norm > 1.0);
            for (i, g) in grads(w.len()).into_iter().enumerate() {
                let g = f64::from(g) / (norm + 1e-6);
                m[i] = 0.9 * m[i] + 0.1 * g;
                v[i] = 0.99 * v[i] + 0.01 * g * g;
                let (mh, vh) = (m[i] / (1.0 - 0.9f64.powi(step + 1)), v[i] / (1.0 - 0.99f64.powi(step + 1)));
                w[i] = w[i] * (1.0 - 1e-2 * decay) - 1e-2 * mh / (vh.sqrt() + 1e-8);
            }
        }
        for (got, want) in values(p).iter().zip(&w) {
            assert!((f64::from(*got) - want).abs() < 1e-6, "{got} {want}");
        }
    }
}

#[test]
fn the_step_of_other_devices_is_the_same_in_any_pieces() {
    for shape in [&[40, 3][..], &[11], &[5, 2, 3, 1]] {
        let ps = parameters(&[shape]);
        let [value, first, second] = [0.7, 0.0, 0.0].map(|k| {
            let numbers = if k == 0.0 { vec![0.0; ps[0].var.elem_count()] } else { wave(ps[0].var.elem_count(), k) };
            Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap()
        });
        let mut adam = AdamW::new(&ps, &settings()).unwrap();
        for (step, piece) in [1, 7, 1000].into_iter().enumerate() {
            set_grads(&ps, step);
            let grad = ps[0].grad().unwrap();
            adam.update(1e-2, 2.0, 1.0).unwrap();
            let correction = |beta: f64| 1.0 - beta.powi(step as i32 + 1);
            let decay = if shape.len() >= 2 { 0.1 } else { 0.0 };
            let n = Numbers {
                fresh: step == 0,
                scale: (1.0 / (2.0 + CLIP_EPS)) as f32,
                keep: (1.0 - 1e-2 * decay) as f32,
                one_minus_beta1: 0.1,
                beta2: 0.99,
                one_minus_beta2: 0.01,
                sqrt_correction2: correction(0.99).sqrt() as f32,
                eps: 1e-8,
                step_size: (1e-2 / correction(0.9)) as f32,
            };
            step_on_device([&value, &grad, &first, &second], &n, piece).unwrap();
            let there = value.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            for (there, here) in there.iter().zip(values(&ps[0])) {
                assert!((there - here).abs() < 1e-6, "{shape:?} by {piece}: {there} {here}");
            }
        }
    }
}

#[test]
fn sums_of_squares_in_candle_ops_are_those_of_the_kernel() {
    for n in [1, 1023, 1024, 5000] {
        let tensor = Tensor::from_vec(wave(n, 0.7), n, &Device::Cpu).unwrap();
        let total = |sum: Squares| Squares::total(&[sum]).unwrap();
        let here = total(sum_of_squares(&tensor).unwrap());
        let there = total(Squares::Device(squares_on_device(&tensor).unwrap()));
        assert!((here - there).abs() < 1e-6 * here, "{n}: {here} {there}");
    }
}

#[test]
fn a_working_copy_follows_every_step() {
    let ps = parameters(&[&[5, 7], &[9]]);
    ps[0].enable_bf16_matmul().unwrap();
    let mut adam = AdamW::new(&ps, &settings()).unwrap();
    let copy = || ps[0].compute_var().as_tensor().to_dtype(DType::F32).unwrap().to_vec2::<f32>().unwrap();
    let before = (copy(), values(&ps[0]));
    // So small that no number moves by a step of bf16; the master copy moves.
    set_grads(&ps, 0);
    adam.update(1e-6, 1.0, 0.0).unwrap();
    assert!(copy() == before.0 && values(&ps[0]) != before.1);
    for step in 1..300 {
        set_grads(&ps, step);
        adam.update(1e-3, 1.0, 0.0).unwrap();
    }
    let rounded: Vec<f32> = values(&ps[0]).iter().map(|v| half::bf16::from_f32(*v).to_f32()).collect();
    assert!(copy() != before.0 && copy().concat() == rounded);
}

#[test]
fn saved_and_loaded_state_goes_on_to_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("optimizer.safetensors");
    let run = |interrupt: bool| {
        let ps = parameters(&[&[40, 3], &[11]]);
        let mut adam = AdamW::new(&ps, &settings()).unwrap();
        for step in 0..6 {
            if interrupt && step == 3 {
                adam.save(&path).unwrap();
                adam = AdamW::new(&ps, &settings()).unwrap();
                adam.load(&path).unwrap();
                assert_eq!(adam.step_count(), 3);
            }
            set_grads(&ps, step);
            adam.update(1e-3, 0.0, 0.0).unwrap();
        }
        ps.iter().flat_map(|p| values(p)).map(f32::to_bits).collect::<Vec<_>>()
    };
    assert_eq!(run(false), run(true));
    let other = parameters(&[&[40, 3]]);
    let error = AdamW::new(&other, &settings()).unwrap().load(&path).unwrap_err().to_string();
    assert!(error.contains("optimizer.safetensors") && error.contains("2 parameters"), "{error}");
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let ps = parameters(&[&[300, 211]]);
            let mut adam = AdamW::new(&ps, &settings()).unwrap();
            set_grads(&ps, 1);
            let norm = adam.grad_norm().unwrap();
            adam.update(1e-3, norm, 1.0).unwrap();
            (norm.to_bits(), values(&ps[0]).into_iter().map(f32::to_bits).collect::<Vec<_>>())
        })
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn a_frozen_weight_has_no_state_and_does_not_move() {
    let ps = parameters(&[&[4, 4], &[4, 4]]);
    ps[1].set_trainable(false);
    let mut adam = AdamW::new(&ps, &settings()).unwrap();
    let before = values(&ps[1]);
    set_grads(&ps, 0);
    adam.update(1e-1, 0.0, 0.0).unwrap();
    assert_eq!(values(&ps[1]), before);
    assert_ne!(values(&ps[0]), wave(16, 0.7));
}

#[test]
fn a_gradient_that_is_not_finite_is_named() {
    let ps = parameters(&[&[4], &[4]]);
    set_grads(&ps, 0);
    ps[1].set_grad(Some(Tensor::new(&[1.0f32, f32::NAN, 0.0, 1.0], &Device::Cpu).unwrap()));
    let adam = AdamW::new(&ps, &settings()).unwrap();
    let error = adam.grad_norm().unwrap_err().to_string();
    assert!(error.contains("p1") && !error.contains("p0"), "{error}");
}

#[test]
#[ignore = "a timing: cargo test --release --lib sixty_million -- --ignored --nocapture"]
fn time_of_a_step_over_sixty_million_parameters() {
    let shapes: Vec<&[usize]> = vec![&[1024, 2048]; 29];
    let ps = parameters(&shapes);
    let mut adam = AdamW::new(&ps, &settings()).unwrap();
    let [mut norms, mut updates] = [f64::MAX; 2];
    for step in 0..8 {
        if step == 0 {
            set_grads(&ps, 0);
        } else {
            // The buffers of the first step: no fresh memory is timed.
            ps.iter().for_each(|p| p.accumulate(|_, _| ()).unwrap());
        }
        let start = std::time::Instant::now();
        let norm = adam.grad_norm().unwrap();
        norms = norms.min(start.elapsed().as_secs_f64());
        let start = std::time::Instant::now();
        adam.update(1e-3, norm, 1.0).unwrap();
        updates = updates.min(start.elapsed().as_secs_f64());
    }
    let bytes = 29.0 * 2f64.powi(21) * 4.0;
    println!("norm {:.1} ms, {:.1} GB/s", norms * 1e3, bytes / norms / 1e9);
    println!("update {:.1} ms, {:.1} GB/s", updates * 1e3, 7.0 * bytes / updates / 1e9);
}
