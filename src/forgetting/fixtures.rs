//! Paired responses for tests, with known scores before and after.

use super::*;
use crate::eval::EvalInfo;
use crate::model::{ComputeDtype, SamplingParams};
use crate::sampling::{SamplingKey, ScoredResponse};
use crate::tasks::Score;
use std::path::PathBuf;

pub fn outcome(index: usize, value: f64) -> ScoredResponse {
    let score = Score {
        correct: value == 1.0,
        value,
        lenient: value,
        partial_credit: value,
        raw_partial_credit: value,
        parsed: true,
        well_formed: true,
        exact: None,
        fault: String::new(),
    };
    ScoredResponse {
        index,
        id: format!("e{index}"),
        sample: 0,
        response: format!("{value}"),
        tokens: 10,
        finished: true,
        score,
        token_ids: Vec::new(),
        logprobs: Vec::new(),
    }
}

pub fn evaluation(model: &str, outcomes: Vec<ScoredResponse>) -> FinishedEval {
    let key = SamplingKey {
        code: "test".into(),
        model: model.repeat(64),
        prompt: "p".repeat(64),
        data: "d".repeat(64),
        gold: "g".repeat(64),
        task: "made-up".into(),
        scorers: [("exact".to_string(), 1)].into(),
        examples: outcomes.len(),
        sampling: SamplingParams::greedy(8),
        num_generations: 1,
        batch_size: None,
        dtype: ComputeDtype::F32,
        bench: None,
    };
    let about = EvalInfo { key, model: PathBuf::from(model), data: "data".into(), split: String::new() };
    FinishedEval { dir: PathBuf::from(format!("dir-{model}")), about, outcomes, numbers: Vec::new() }
}

pub fn sides(values: &[(f64, f64)]) -> (FinishedEval, FinishedEval) {
    let of = |pick: fn(&(f64, f64)) -> f64| values.iter().enumerate().map(|(i, v)| outcome(i, pick(v))).collect();
    (evaluation("b", of(|v| v.0)), evaluation("t", of(|v| v.1)))
}

pub fn title(name: &str) -> BenchmarkTitle {
    BenchmarkTitle { name: name.into(), family: "grounding".into(), scorer: "exact v1".into() }
}

pub fn labels(n: usize) -> Vec<ExampleLabel> {
    vec![ExampleLabel::default(); n]
}

pub fn compared(name: &str, values: &[(f64, f64)]) -> MeasuredBenchmark {
    let (base, tuned) = sides(values);
    MeasuredBenchmark::of(title(name), &pair(base, tuned).unwrap(), &labels(values.len()), Vec::new()).unwrap()
}

pub fn model(name: &str) -> ModelRef {
    ModelRef { name: name.into(), dir: format!("/models/{name}"), hash: name.repeat(8), run: None }
}

pub fn tuned(benchmarks: Vec<MeasuredBenchmark>) -> TunedResult {
    TunedResult::of(model("tuned"), None, benchmarks, Vec::new())
}

/// Of `n` examples `right` are right before; of those `lost` are wrong after, of the others `gained` are right after.
pub fn paired_scores(n: usize, right: usize, lost: usize, gained: usize) -> Vec<(f64, f64)> {
    let before = |i: usize| f64::from(u8::from(i < right));
    let after = |i: usize| f64::from(u8::from(i >= lost && i < right || i >= right && i < right + gained));
    (0..n).map(|i| (before(i), after(i))).collect()
}

/// Equal but for rounding.
pub fn near(got: f64, expected: f64) {
    assert!((got - expected).abs() < 1e-9, "{got} is not {expected}");
}
