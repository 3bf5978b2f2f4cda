//! Measurements with known numbers for tests.

use super::influence::{Influence, InfluenceConfig};
use super::pairing::Pair;
use super::perplexity::{Perplexity, bin_edges};
use super::result::{CheckpointResult, DynamicsResult, SampleSetResult};
use super::samples::{DynamicsSample, ResponseSource, SampleRole};
use crate::forgetting::fixtures::model;
use crate::forgetting::{ModelRef, RunRef};
use crate::tasks::benchmarks::{Pixels, Protocol};

pub fn influence(lbk: f64, change: f64) -> Influence {
    Influence {
        u_tokens: 3,
        v_tokens: 4,
        slope_squares: 0.1,
        a_squares: 100.0,
        g_squares: 0.5,
        lbk,
        sgd_kl: 0.01 * lbk,
        adam_change: 0.001 * change,
        adam_squares: 0.002,
        adam_kl: 0.003 * lbk,
        inner_product: change,
        v_slope: change,
        u_slope: 1.1 * change,
        cosine: 0.25,
        u_gradient: 2.0,
        v_gradient: 3.0,
        u_nats: 6.0,
        v_nats: 1.0,
        u_eta: 0.02,
        v_eta: 0.04,
        rounding: 0.001,
        curvature: 0.002,
    }
}

pub fn pair(checkpoint: usize, (regime, prior): (&str, &str), (pair, u): (usize, usize), influence: Influence) -> Pair {
    Pair {
        checkpoint,
        model: format!("step-{checkpoint}"),
        regime: regime.into(),
        prior: prior.into(),
        pair,
        u: format!("u{u}"),
        v: format!("v{pair}"),
        u_base_nats: 6.0 + u as f64,
        influence,
    }
}

/// Two regimes of ten samples, two families, two checkpoints; the second regime has a tenth of the first one's influence.
pub fn pairs() -> Vec<Pair> {
    let mut pairs = Vec::new();
    for checkpoint in 0..2 {
        for (regime, size) in [("bare", 1.0), ("rollouts", 0.1)] {
            for i in 0..10 {
                for prior in ["vqa", "ocr"] {
                    let change = size * (i as f64 - 6.5);
                    let found = influence(size * (1.0 + i as f64) / (1.0 + checkpoint as f64), change);
                    pairs.push(pair(checkpoint, (regime, prior), (i, i), found));
                }
            }
        }
    }
    pairs
}

fn set(name: &str, kind: SampleRole, nats: f64, edges_of: &[DynamicsSample]) -> SampleSetResult {
    let samples: Vec<DynamicsSample> = (0..10).map(|i| sample(name, kind, nats + 0.1 * f64::from(i))).collect();
    SampleSetResult {
        name: name.into(),
        path: format!("/data/{name}"),
        split: "train".into(),
        data: name.repeat(8),
        protocol: Protocol::of_dataset("exact", Some(Pixels { min: 784, max: 784, factor: 28 })),
        examples: 20,
        answered_by_base: if kind == SampleRole::Prior { 10 } else { 0 },
        perplexity: Perplexity::of(&samples.iter().collect::<Vec<_>>(), &bin_edges(edges_of)),
    }
}

fn sample(name: &str, kind: SampleRole, nats: f64) -> DynamicsSample {
    let (set, id) = (name.to_string(), "x".to_string());
    DynamicsSample {
        kind,
        set,
        index: 0,
        id,
        origin: ResponseSource::Data,
        token_ids: vec![0],
        nats,
        reasoning_tokens: 0,
        reasoning_nats: 0.0,
    }
}

pub fn dynamics(pairs: &[Pair]) -> DynamicsResult {
    let widest = [sample("x", SampleRole::Train, 4.0)];
    let config = InfluenceConfig { eta: Some(0.001), pairs: 10, seed: 3, ..InfluenceConfig::default() };
    let of_run = |step: u64| RunRef {
        name: "sft".into(),
        dir: "/runs/sft".into(),
        step: Some(step),
        seed: Some(7),
        data_hash: "3fa91c02aa".into(),
        model_hash: "b".into(),
    };
    let checkpoints = (0..2).map(|i| {
        let own: Vec<&Pair> = pairs.iter().filter(|pair| pair.checkpoint == i).collect();
        let model = ModelRef { run: (i > 0).then(|| of_run(100)), ..model(&format!("step-{i}")) };
        CheckpointResult::of(model, &own, &["bare", "rollouts"], &["vqa", "ocr"])
    });
    let regimes = vec![set("bare", SampleRole::Train, 3.0, &widest), set("rollouts", SampleRole::Train, 0.5, &widest)];
    let priors = vec![set("vqa", SampleRole::Prior, 0.2, &widest), set("ocr", SampleRole::Prior, 0.4, &widest)];
    DynamicsResult::new(config, model("base"), (regimes, priors), bin_edges(&widest), checkpoints.collect(), None)
}
