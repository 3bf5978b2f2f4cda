//! Made-up measurements for tests.

use super::found::{CheckpointFound, Dynamics, Pair, SetFound, Setting};
use super::influence::Influence;
use super::perplexity::{Perplexity, edges};
use super::samples::{Kind, Origin, Sample};
use super::step::Loss;
use crate::forgetting::made_up::model;
use crate::forgetting::{Model, Run};
use crate::tasks::benchmarks::{Pixels, Protocol};

pub fn influence(lbk: f64, v_change: f64) -> Influence {
    Influence {
        u_tokens: 3,
        v_tokens: 4,
        change_squares: 0.1,
        a_squares: 100.0,
        g_squares: 0.5,
        lbk,
        v_change,
        u_change: 1.1 * v_change,
        first_order: v_change,
        cosine: 0.25,
        u_gradient: 2.0,
        v_gradient: 3.0,
        u_nats: 6.0,
        v_nats: 1.0,
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

fn set(name: &str, kind: Kind, nats: f64, edges_of: &[Sample]) -> SetFound {
    let samples: Vec<Sample> = (0..10).map(|i| sample(name, kind, nats + 0.1 * f64::from(i))).collect();
    SetFound {
        name: name.into(),
        path: format!("/data/{name}"),
        split: "train".into(),
        data: name.repeat(8),
        protocol: Protocol::of_dataset("exact", Some(Pixels { min: 784, max: 784, factor: 28 })),
        examples: 20,
        answered_by_base: if kind == Kind::Prior { 10 } else { 0 },
        perplexity: Perplexity::of(&samples.iter().collect::<Vec<_>>(), &edges(edges_of)),
    }
}

fn sample(name: &str, kind: Kind, nats: f64) -> Sample {
    let (set, id) = (name.to_string(), "x".to_string());
    Sample { kind, set, index: 0, id, origin: Origin::Data, token_ids: vec![0], nats }
}

pub fn dynamics(pairs: &[Pair]) -> Dynamics {
    let widest = [sample("x", Kind::Train, 4.0)];
    let setting = Setting { eta: 0.001, loss: Loss::Mean, pairs: 10, seed: 3, frozen: Vec::new() };
    let of_run = |step: u64| Run {
        name: "sft".into(),
        dir: "/runs/sft".into(),
        step: Some(step),
        seed: Some(7),
        data_hash: "3fa91c02aa".into(),
        model_hash: "b".into(),
    };
    let checkpoints = (0..2).map(|i| {
        let own: Vec<&Pair> = pairs.iter().filter(|pair| pair.checkpoint == i).collect();
        let model = Model { run: (i > 0).then(|| of_run(100)), ..model(&format!("step-{i}")) };
        CheckpointFound::of(model, &own, &["bare", "rollouts"], &["vqa", "ocr"])
    });
    let regimes = vec![set("bare", Kind::Train, 3.0, &widest), set("rollouts", Kind::Train, 0.5, &widest)];
    let priors = vec![set("vqa", Kind::Prior, 0.2, &widest), set("ocr", Kind::Prior, 0.4, &widest)];
    Dynamics::new(setting, model("base"), (regimes, priors), edges(&widest), checkpoints.collect(), None)
}
