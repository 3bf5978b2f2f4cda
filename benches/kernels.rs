//! Every kernel of `nn`, forward and backward, beside the same mathematics composed of candle ops; a step of AdamW beside
//! candle's own; and matrix products.
//!
//! Shapes are those of a training step of the small preset: 4 sequences of 160 tokens, each with a picture of 16 x 16 patches.
//! `cargo bench --bench kernels` runs all, `-- attention` those whose names match; `-- --test` only sees that they run.

use candle_core::{Device, Tensor, Var};
use candle_nn::Optimizer;
use criterion::{BatchSize, Criterion, Throughput};
use jigsaw::nn::{
    self, Heads, KvBuffer, Linear, Matrix, MatrixMut, Parameter, RopeTable, Rotary, RowSource, Span, SpanGroup, Tape,
    Value, WeightMatrix,
};
use jigsaw::train::optimizer::AdamW;
use jigsaw::train::settings::{Method, TrainConfig};
use jigsaw::{Result, rng};
use rand::RngExt;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: jigsaw::alloc::Caching = jigsaw::alloc::Caching::new();

const SEQUENCES: usize = 4;
const LENGTH: usize = 160;
const ROWS: usize = SEQUENCES * LENGTH;
const PATCHES: usize = SEQUENCES * 256;
const WIDTH: usize = 512;
const INNER: usize = 2048;
const VOCAB: usize = 1536;
const TEXT: Heads = Heads { query: 8, key_value: 2, dim: 64 };
const VISION: Heads = Heads { query: 8, key_value: 8, dim: 64 };

fn random(len: usize) -> Vec<f32> {
    let mut rng = rng::stream(len as u64, "bench", &[]);
    (0..len).map(|_| rng.random::<f32>() - 0.5).collect()
}

fn tensor(shape: &[usize]) -> Tensor {
    Tensor::from_vec(random(shape.iter().product()), shape, &Device::Cpu).expect("a tensor")
}

fn parameter(shape: &[usize]) -> Arc<Parameter> {
    Arc::new(Parameter::new("p", Var::from_tensor(&tensor(shape)).expect("a variable")))
}

/// Forward and backward of `op` on inputs of these shapes, fused and composed.
fn kernel(
    c: &mut Criterion,
    name: &str,
    inputs: &[&[usize]],
    parameters: &[&[usize]],
    op: impl Fn(&Tape, &[Value], &[Arc<Parameter>]) -> Result<Value>,
) {
    let xs: Vec<Tensor> = inputs.iter().map(|s| tensor(s)).collect();
    let ps: Vec<Arc<Parameter>> = parameters.iter().map(|s| parameter(s)).collect();
    let mut group = c.benchmark_group(name);
    for (side, tape) in [("fused", Tape::new as fn() -> Tape), ("candle", || Tape::new().reference())] {
        let forward = |xs: &[Tensor]| {
            let tape = tape();
            let leaves: Vec<Value> = xs.iter().map(|x| tape.leaf(x.clone())).collect();
            let y = op(&tape, &leaves, &ps).expect("forward");
            (tape, leaves, y)
        };
        let seed = tensor(forward(&xs).2.tensor.dims());
        group.bench_function(side, |b| {
            b.iter_batched(
                // Kernels may write to an input that is theirs alone and to the gradient they are given.
                || (xs.iter().map(|x| x.copy().expect("a copy")).collect::<Vec<_>>(), seed.copy().expect("a copy")),
                |(xs, seed)| {
                    let (tape, leaves, y) = forward(&xs);
                    let leaves: Vec<&Value> = leaves.iter().collect();
                    let grads = tape.backward_with_leaves(vec![(y, seed)], &leaves).expect("backward");
                    ps.iter().for_each(|p| p.clear_grad());
                    grads
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// Sequences (or windows) of `len` rows each.
fn span_groups(rows: usize, len: usize, causal: bool) -> Arc<Vec<SpanGroup>> {
    Arc::new((0..rows).step_by(len).map(|at| SpanGroup::single(at..at + len, causal)).collect())
}

/// As in a batch of rollouts: an opening that all share, and prompts of different lengths with four responses each.
fn ragged() -> (usize, Arc<Vec<SpanGroup>>) {
    const OPENING: usize = 40;
    let mut span_groups = vec![SpanGroup::single(0..OPENING, true)];
    let mut at = OPENING;
    for prompt in [60, 75, 90, 120] {
        let prefix = at..at + prompt;
        let mut spans = vec![Span { rows: prefix.clone(), prefix: at..at, causal: true }];
        at += prompt;
        for response in [9, 14, 20, 32] {
            spans.push(Span { rows: at..at + response, prefix: prefix.clone(), causal: true });
            at += response;
        }
        span_groups.push(SpanGroup { shared_prefix: 0..OPENING, spans });
    }
    (at, Arc::new(span_groups))
}

fn kernels(c: &mut Criterion) {
    elementwise(c);
    linears(c);
    attentions(c);
    gathers(c);
    for (name, rows, width, vocab) in
        [("token_stats 1536", ROWS, WIDTH, VOCAB), ("token_stats 151936", 64, 128, 151_936)]
    {
        let targets: Vec<u32> = (0..rows as u32).map(|i| i * 7 % vocab as u32).collect();
        kernel(c, name, &[&[rows, width]], &[&[vocab, width]], |tape, x, p| {
            nn::token_stats(tape, &x[0], &p[0], targets.clone(), 1.0)
        });
    }
}

fn elementwise(c: &mut Criterion) {
    kernel(c, "rms_norm", &[&[ROWS, WIDTH]], &[&[WIDTH]], |tape, x, p| nn::rms_norm(tape, &x[0], &p[0], 1e-6));
    kernel(c, "swiglu", &[&[ROWS, 2 * INNER]], &[], |tape, x, _| nn::swiglu(tape, &x[0]));
    kernel(c, "gelu", &[&[PATCHES / 4, 4 * WIDTH]], &[], |tape, x, _| nn::gelu(tape, &x[0], nn::Gelu::Exact));

    let positions: Vec<u32> = (0..ROWS as u32).map(|i| i % LENGTH as u32).collect();
    let table =
        Arc::new(RopeTable::multimodal([&positions; 3], &Rotary::new(TEXT.dim, 1e6).with_sections(&[8, 12, 12])));
    kernel(c, "rope text", &[&[ROWS, TEXT.stride()]], &[], |tape, x, _| nn::rope(tape, x[0].clone(), &table, TEXT));
    let places: Vec<[u32; 2]> = (0..PATCHES as u32).map(|i| [i % 256 / 16, i % 16]).collect();
    let table = Arc::new(RopeTable::spatial(&places, VISION.dim, 10_000.0));
    kernel(c, "rope vision", &[&[PATCHES, VISION.stride()]], &[], |tape, x, _| {
        nn::rope(tape, x[0].clone(), &table, VISION)
    });
}

fn linears(c: &mut Criterion) {
    let qkv = TEXT.stride();
    kernel(c, "linear qkv", &[&[ROWS, WIDTH]], &[&[qkv, WIDTH], &[qkv]], |tape, x, p| {
        let map = Linear { weight: p[0].clone(), bias: Some(p[1].clone()), lora: None };
        nn::linear(tape, &x[0], &[&map], None)
    });
    kernel(c, "linear down with residual", &[&[ROWS, INNER], &[ROWS, WIDTH]], &[&[WIDTH, INNER]], |tape, x, p| {
        nn::linear(tape, &x[0], &[&Linear::without_bias(p[0].clone())], Some(&x[1]))
    });
    // Frozen weights: only the gradient of the input is wanted.
    kernel(c, "linear frozen", &[&[ROWS, WIDTH]], &[&[qkv, WIDTH]], |tape, x, p| {
        p[0].set_trainable(false);
        nn::linear(tape, &x[0], &[&Linear::without_bias(p[0].clone())], None)
    });
}

fn attentions(c: &mut Criterion) {
    let (ragged_rows, ragged) = ragged();
    for (name, rows, heads, span_groups) in [
        ("attention causal, grouped heads", ROWS, TEXT, span_groups(ROWS, LENGTH, true)),
        ("attention windows", PATCHES, VISION, span_groups(PATCHES, 64, false)),
        ("attention whole picture", PATCHES, VISION, span_groups(PATCHES, 256, false)),
        ("attention ragged, shared prefixes", ragged_rows, TEXT, ragged),
    ] {
        kernel(c, name, &[&[rows, heads.stride()]], &[], |tape, x, _| nn::attention(tape, &x[0], &span_groups, heads));
    }
}

fn gathers(c: &mut Criterion) {
    let sources: Vec<RowSource> = (0..ROWS)
        .map(|i| {
            if i % LENGTH < 64 {
                RowSource::Image((i / LENGTH * 64 + i % LENGTH) as u32)
            } else {
                RowSource::Token(i as u32)
            }
        })
        .collect();
    kernel(c, "embed", &[&[SEQUENCES * 64, WIDTH]], &[&[VOCAB, WIDTH]], |tape, x, p| {
        nn::embed(tape, &p[0], Some(&x[0]), sources.clone())
    });
    let index: Vec<u32> = (0..PATCHES as u32).map(|i| (i * 37) % PATCHES as u32).collect();
    kernel(c, "select", &[&[PATCHES, WIDTH]], &[], |tape, x, _| nn::gather_rows(tape, &x[0], index.clone()));
}

/// A step of AdamW over a matrix and its gradient (the norm of the gradients not counted on either side).
fn adamw(c: &mut Criterion) {
    let shape = [2048, 2048];
    let mut group = c.benchmark_group("adamw");
    group.throughput(Throughput::Elements((shape[0] * shape[1]) as u64));
    let (p, grad) = (parameter(&shape), tensor(&shape));
    let settings = TrainConfig::defaults(Method::Sft).train;
    let mut optimizer = AdamW::new(std::slice::from_ref(&p), &settings).expect("an optimizer");
    group.bench_function("fused", |b| {
        b.iter(|| {
            p.set_grad(Some(grad.clone()));
            optimizer.update(1e-4, 1.0, 1.0).expect("a step");
        });
    });
    let var = Var::from_tensor(&tensor(&shape)).expect("a variable");
    let params = candle_nn::ParamsAdamW { weight_decay: settings.weight_decay, ..Default::default() };
    let mut optimizer = candle_nn::AdamW::new(vec![var.clone()], params).expect("an optimizer");
    let loss = (var.as_tensor() * &grad).and_then(|y| y.sum_all()).expect("a loss");
    let grads = loss.backward().expect("gradients");
    group.bench_function("candle", |b| b.iter(|| optimizer.step(&grads).expect("a step")));
    group.finish();
}

/// Attention of one new token over a cache, as in decoding (forward only).
fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("attend");
    let row = random(TEXT.stride());
    let mut held = KvBuffer::with_capacity(TEXT, LENGTH);
    (0..LENGTH).for_each(|_| held.push(&row, TEXT));
    let none = KvBuffer::default();
    let (mut out, mut scratch) = (vec![0.0; TEXT.query * TEXT.dim], Vec::new());
    group.bench_function("fused", |b| {
        b.iter(|| nn::decode_attention(black_box(&mut out), black_box(&row), &held, &[&none], TEXT, &mut scratch));
    });
    // A key-value head and the query heads that share it: one matrix each.
    let share = TEXT.query / TEXT.key_value;
    let q = tensor(&[TEXT.key_value, share, TEXT.dim]);
    let (k, v) = (tensor(&[TEXT.key_value, TEXT.dim, LENGTH]), tensor(&[TEXT.key_value, LENGTH, TEXT.dim]));
    let composed =
        || -> candle_core::Result<Tensor> { candle_nn::ops::softmax_last_dim(&(q.matmul(&k)? * 0.125)?)?.matmul(&v) };
    group.bench_function("candle", |b| b.iter(|| composed().expect("attention")));
    group.finish();
}

/// Square products: `nn`'s, gemm's own (the machine's limit, as far as this crate knows it) and candle's.
fn products(c: &mut Criterion) {
    for n in [512, 2048] {
        let mut group = c.benchmark_group(format!("matmul {n}"));
        group.throughput(Throughput::Elements(2 * (n * n * n) as u64));
        let (a, b) = (random(n * n), random(n * n + 1)[1..].to_vec());
        let mut out = vec![0.0; n * n];
        group.bench_function("nn", |bench| {
            bench.iter(|| {
                let (a, b) = (Matrix::new(&a, n, n, n), Matrix::new(&b, n, n, n));
                nn::matmul(MatrixMut::new(&mut out, n, n, n), a, b, false, true);
            });
        });
        group.bench_function("gemm", |bench| {
            let threads = gemm::Parallelism::Rayon(rayon::current_num_threads());
            // SAFETY: three n x n row-major matrices, the written one borrowed by nobody else.
            bench.iter(|| unsafe {
                gemm::gemm(
                    n,
                    n,
                    n,
                    out.as_mut_ptr(),
                    1,
                    n as isize,
                    false,
                    a.as_ptr(),
                    1,
                    n as isize,
                    b.as_ptr(),
                    1,
                    n as isize,
                    0.0f32,
                    1.0f32,
                    false,
                    false,
                    false,
                    threads,
                );
            });
        });
        let (a, b) = (tensor(&[n, n]), tensor(&[n, n]));
        group.bench_function("candle", |bench| bench.iter(|| a.matmul(&b).expect("a product")));
        group.finish();
    }
}

/// Products of the rows of a decoding step with a weight: as the models compute them, and by gemm.
fn few_rows(c: &mut Criterion) {
    for (out, width) in [(4864, 896), (896, 4864), (1408, 512), (384, 128)] {
        let weight = parameter(&[out, width]);
        let w = random(out * width);
        for rows in [1, 4, 16, 32, 64] {
            let mut group = c.benchmark_group(format!("few rows {rows} x {width} x {out}"));
            group.throughput(Throughput::Bytes(4 * (out * width) as u64));
            let (x, mut y) = (random(rows * width), vec![0.0; rows * out]);
            let x = Matrix::new(&x, rows, width, width);
            group.bench_function("nn", |bench| {
                let weight = WeightMatrix::of(&weight, width).expect("a matrix");
                bench.iter(|| weight.times_rows_t(MatrixMut::new(&mut y, rows, out, out), x, 0..out, false));
            });
            group.bench_function("matmul", |bench| {
                let w = Matrix::new(&w, out, width, width).t();
                bench.iter(|| nn::matmul(MatrixMut::new(&mut y, rows, out, out), x, w, false, true));
            });
            group.finish();
        }
    }
}

fn main() {
    let mut c = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    kernels(&mut c);
    decode(&mut c);
    adamw(&mut c);
    products(&mut c);
    few_rows(&mut c);
    c.final_summary();
}
