//! Single kernels of `nn`, forward and backward: one that becomes twice as slow need not show in a whole step.

use super::measure::{Check, Reference};
use super::paths::Named;
use candle_core::{Device, Tensor, Var};
use jigsaw::Result;
use jigsaw::nn::{self, Heads, KvBuffer, Parameter, RopeTable, Rotary, RowSource, SpanGroup, Tape, Value};
use std::sync::Arc;

/// Every kernel.
pub fn all() -> Vec<Named> {
    vec![
        ("attention, causal", || attention(TEXT, 160, true)),
        ("attention, whole pictures", || attention(VISION, 256, false)),
        ("attention, windows", || attention(VISION, 64, false)),
        ("attend, decoding", attend),
        ("token_stats, 151936 tokens", token_stats),
        ("swiglu", || elementwise(2 * WIDTH, |tape, x, _| nn::swiglu(tape, x))),
        ("gelu", || elementwise(WIDTH, |tape, x, _| nn::gelu(tape, x, nn::Gelu::Exact))),
        ("rms_norm", || elementwise(WIDTH, |tape, x, p| nn::rms_norm(tape, x, p, 1e-6))),
        ("rope", rope),
        ("embed", embed),
    ]
}

/// The small preset's heads.
const TEXT: Heads = Heads { query: 8, key_value: 2, dim: 64 };
const VISION: Heads = Heads { query: 8, key_value: 8, dim: 64 };

/// A shard of the tiny preset on one lane: its activations lie in the second-level cache.
const ROWS: usize = 512;
const WIDTH: usize = 256;

fn tensor(shape: impl Into<candle_core::Shape>) -> Result<Tensor> {
    Ok(Tensor::rand(-1f32, 1f32, shape, &Device::Cpu)?)
}

/// Forward and backward of `op` on `x`. Kernels may write to the input and the gradient that they are given: they get copies.
fn both(x: &Tensor, seed: &Tensor, op: impl FnOnce(&Tape, &Value) -> Result<Value>) -> Result<()> {
    let tape = Tape::new();
    let leaf = tape.leaf(x.copy()?);
    let y = op(&tape, &leaf)?;
    tape.backward_with_leaves(vec![(y, seed.copy()?)], &[&leaf])?;
    Ok(())
}

/// A thousand rows in sequences, pictures or windows of `len`, by all threads.
fn attention(heads: Heads, len: usize, causal: bool) -> Result<Check> {
    let sequences = 1024 / len;
    let rows = sequences * len;
    let span_groups: Vec<SpanGroup> =
        (0..rows).step_by(len).map(|at| SpanGroup::single(at..at + len, causal)).collect();
    let (x, seed) = (tensor((rows, heads.stride()))?, tensor((rows, heads.query * heads.dim))?);
    let pairs = sequences * len * len / if causal { 2 } else { 1 };
    let span_groups = Arc::new(span_groups);
    Ok(Check {
        reference: Reference::All,
        operations: 12.0 * (heads.query * heads.dim * pairs) as f64,
        work: Box::new(move || both(&x, &seed, |tape, x| nn::attention(tape, x, &span_groups, heads))),
    })
}

/// Eight samples of a prompt of 100 tokens, each with 16 tokens of its own.
fn attend() -> Result<Check> {
    const SAMPLES: usize = 8;
    let rows = tensor((SAMPLES, TEXT.stride()))?.flatten_all()?.to_vec1::<f32>()?;
    let held = |count: usize| {
        let mut held = KvBuffer::with_capacity(TEXT, count);
        (0..count).for_each(|_| held.push(&rows[..TEXT.stride()], TEXT));
        held
    };
    let (prefix, own) = (held(100), vec![held(16); SAMPLES]);
    let width = TEXT.query * TEXT.dim;
    let (mut out, mut scratch) = (vec![0.0; SAMPLES * width], Vec::new());
    let work = move || {
        let own: Vec<&KvBuffer> = own.iter().collect();
        nn::decode_attention(std::hint::black_box(&mut out), &rows, &prefix, &own, TEXT, &mut scratch);
        Ok(())
    };
    Ok(Check { reference: Reference::One, operations: (4 * SAMPLES * width * 116) as f64, work: Box::new(work) })
}

/// The published vocabulary, few rows: mostly reading the weights and writing their gradient.
fn token_stats() -> Result<Check> {
    let (rows, width, vocab) = (32, 128, 151_936);
    let head = Arc::new(Parameter::new("head", Var::from_tensor(&tensor((vocab, width))?)?));
    let (x, seed) = (tensor((rows, width))?, tensor((2, rows))?);
    let targets: Vec<u32> = (0..rows as u32).map(|i| i * 4001).collect();
    let work = move || {
        both(&x, &seed, |tape, x| nn::token_stats(tape, x, &head, targets.clone(), 1.0))?;
        head.clear_grad();
        Ok(())
    };
    Ok(Check { reference: Reference::All, operations: (6 * rows * width * vocab) as f64, work: Box::new(work) })
}

/// A kernel on one thread. Ten operations for each element of its input.
fn on_one_thread(
    x: Tensor,
    op: impl Fn(&Tape, &Value, &Arc<Parameter>) -> Result<Value> + Send + 'static,
) -> Result<Check> {
    let weight = Arc::new(Parameter::new("p", Var::from_tensor(&tensor(WIDTH)?)?));
    let seed = op(&Tape::no_grad(), &Value::constant(x.copy()?), &weight)?.tensor;
    let operations = 10.0 * x.elem_count() as f64;
    let work = move || {
        both(&x, &seed, |tape, x| op(tape, x, &weight))?;
        weight.clear_grad();
        Ok(())
    };
    Ok(Check { reference: Reference::One, operations, work: Box::new(work) })
}

fn elementwise(
    width: usize,
    op: impl Fn(&Tape, &Value, &Arc<Parameter>) -> Result<Value> + Send + 'static,
) -> Result<Check> {
    on_one_thread(tensor((ROWS, width))?, op)
}

fn rope() -> Result<Check> {
    let positions: Vec<u32> = (0..ROWS as u32).collect();
    let table =
        Arc::new(RopeTable::multimodal([&positions; 3], &Rotary::new(TEXT.dim, 1e6).with_sections(&[8, 12, 12])));
    on_one_thread(tensor((ROWS, TEXT.stride()))?, move |tape, x, _| nn::rope(tape, x.clone(), &table, TEXT))
}

/// Half of the rows are picture features.
fn embed() -> Result<Check> {
    let source = |i: u32| if i.is_multiple_of(2) { RowSource::Image(i / 2) } else { RowSource::Token(i * 7 % 1536) };
    let sources: Vec<RowSource> = (0..ROWS as u32).map(source).collect();
    let table = Arc::new(Parameter::new("table", Var::from_tensor(&tensor((1536, WIDTH))?)?));
    on_one_thread(tensor((ROWS / 2, WIDTH))?, move |tape, x, _| {
        let y = nn::embed(tape, &table, Some(x), sources.clone());
        table.clear_grad();
        y
    })
}
