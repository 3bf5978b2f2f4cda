//! Gradient checks of ops: the fused kernel against the reference in candle ops, and both against central differences in f64.

use crate::nn::{Parameter, Tape, Value};
use crate::{Result, rng};
use candle_core::{DType, Device, Tensor, Var};
use rand::RngExt;
use std::sync::Arc;

/// Uniform in [-1, 1), determined by the seed.
pub fn tensor(shape: &[usize], seed: u64) -> Tensor {
    let mut rng = rng::stream(seed, "check", &[]);
    let data: Vec<f32> = (0..shape.iter().product::<usize>()).map(|_| rng.random::<f32>() * 2.0 - 1.0).collect();
    Tensor::from_vec(data, shape, &Device::Cpu).unwrap()
}

/// A parameter with [`tensor`]'s values.
pub fn parameter(name: &str, shape: &[usize], seed: u64) -> Arc<Parameter> {
    Arc::new(Parameter::new(name, Var::from_tensor(&tensor(shape, seed)).unwrap()))
}

/// Largest difference of `a` and `b` relative to the largest element of `b`.
pub fn relative_error(a: &Tensor, b: &Tensor) -> f64 {
    let flat = |t: &Tensor| t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let (a, b) = (flat(a), flat(b));
    assert_eq!(a.len(), b.len());
    let scale = b.iter().fold(1e-6f64, |m, x| m.max(x.abs()));
    a.iter().zip(&b).fold(0.0f64, |m, (x, y)| m.max((x - y).abs())) / scale
}

/// Seed of the dropout of all passes, so that all drop the same elements.
const DROPOUT: u64 = 3;

fn tape() -> Tape {
    Tape::new().with_dropout(Some(DROPOUT))
}

type Build<'a> = &'a dyn Fn(&Tape, &[Value], &[Arc<Parameter>]) -> Result<Value>;

/// Check the op that `build` makes from inputs and parameters of the given `shapes`; the first `inputs` of them are inputs.
pub fn check(shapes: &[&[usize]], inputs: usize, build: impl Fn(&Tape, &[Value], &[Arc<Parameter>]) -> Result<Value>) {
    let tensors: Vec<Tensor> = shapes.iter().enumerate().map(|(i, s)| tensor(s, i as u64 + 1)).collect();
    check_at(&tensors, inputs, build);
}

/// As [`check`], at the given values.
pub fn check_at(
    tensors: &[Tensor],
    inputs: usize,
    build: impl Fn(&Tape, &[Value], &[Arc<Parameter>]) -> Result<Value>,
) {
    let build: Build = &build;
    let (y_fused, fused) = gradients(tape(), tensors, inputs, build);
    let (y_reference, reference) = gradients(tape().reference(), tensors, inputs, build);
    assert!(
        relative_error(&y_fused, &y_reference) < 2e-6,
        "forward: fused against reference {}",
        relative_error(&y_fused, &y_reference)
    );
    for (i, (f, c)) in fused.iter().zip(&reference).enumerate() {
        let (f, c) = (f.as_ref().expect("fused gradient"), c.as_ref().expect("reference gradient"));
        assert!(relative_error(f, c) < 1e-5, "argument {i}: fused against reference {}", relative_error(f, c));
        let numeric = finite_differences(tensors, inputs, i, build);
        assert!(
            relative_error(f, &numeric) < 1e-5,
            "argument {i}: fused against finite differences {}",
            relative_error(f, &numeric)
        );
    }
    // A second backward pass adds to the parameters instead of replacing.
    let parameters = parameters(&tensors[inputs..]);
    for _ in 0..2 {
        run(tape(), &tensors[..inputs], &parameters, build);
    }
    for (p, once) in parameters.iter().zip(&fused[inputs..]) {
        let twice = (once.as_ref().unwrap() * 2.0).unwrap();
        assert!(relative_error(&p.grad().unwrap(), &twice) < 1e-6, "{}: accumulation", p.name);
    }
}

fn parameters(tensors: &[Tensor]) -> Vec<Arc<Parameter>> {
    let parameter = |(i, t)| Arc::new(Parameter::new(format!("p{i}"), Var::from_tensor(t).unwrap()));
    tensors.iter().enumerate().map(parameter).collect()
}

fn gradients(tape: Tape, tensors: &[Tensor], inputs: usize, build: Build) -> (Tensor, Vec<Option<Tensor>>) {
    let parameters = parameters(&tensors[inputs..]);
    let (y, mut grads) = run(tape, &tensors[..inputs], &parameters, build);
    grads.extend(parameters.iter().map(|p| p.grad()));
    (y, grads)
}

fn run(tape: Tape, xs: &[Tensor], ps: &[Arc<Parameter>], build: Build) -> (Tensor, Vec<Option<Tensor>>) {
    let leaves: Vec<Value> = xs.iter().map(|x| tape.leaf(x.copy().unwrap())).collect();
    let y = build(&tape, &leaves, ps).unwrap();
    let tensor = y.tensor.copy().unwrap();
    let seed = weights(y.tensor.dims()).to_dtype(y.tensor.dtype()).unwrap();
    let grads = tape.backward_with_leaves(vec![(y, seed)], &leaves.iter().collect::<Vec<_>>()).unwrap();
    (tensor, grads)
}

/// Fixed weights of the outputs, so that the scalar under test is their weighted sum.
fn weights(shape: &[usize]) -> Tensor {
    tensor(shape, 99)
}

/// Central differences of the reference in f64.
fn finite_differences(tensors: &[Tensor], inputs: usize, which: usize, build: Build) -> Tensor {
    let h = 1e-5;
    let wide: Vec<Tensor> = tensors.iter().map(|t| t.to_dtype(DType::F64).unwrap()).collect();
    let value = |changed: &Tensor| -> f64 {
        let mut all = wide.clone();
        all[which] = changed.clone();
        let parameters = parameters(&all[inputs..]);
        let tape = Tape::no_grad().reference().with_dropout(Some(DROPOUT));
        let leaves: Vec<Value> = all[..inputs].iter().map(|x| tape.leaf(x.clone())).collect();
        let y = build(&tape, &leaves, &parameters).unwrap().tensor;
        let w = weights(y.dims()).to_dtype(DType::F64).unwrap();
        (y * w).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap()
    };
    let base = wide[which].flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let at = |i: usize, delta: f64| {
        let mut data = base.clone();
        data[i] += delta;
        value(&Tensor::from_vec(data, tensors[which].dims(), &Device::Cpu).unwrap())
    };
    let numeric: Vec<f64> = (0..base.len()).map(|i| (at(i, h) - at(i, -h)) / (2.0 * h)).collect();
    Tensor::from_vec(numeric, tensors[which].dims(), &Device::Cpu).unwrap()
}
