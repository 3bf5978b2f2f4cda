//! How the weights of a model differ from those of the model that it was tuned from: norm, rank and share of what changed, by part.
//!
//! The share that changed is counted twice: weights whose f32 bits differ, and weights that differ once both are rounded to bf16. The second is
//! what is seen between two checkpoints that are stored in bf16, as in arXiv 2511.08567: an update smaller than half the distance between two
//! numbers of bf16 is invisible there.

use super::interpolate_weights::partners;
use super::lora::MergedWeights;
use super::parts::Part;
use super::singular_values::{effective_rank, singular_values, stable_rank};
use crate::{Error, Result};
use half::bf16;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Elements that are compared at a time.
const CHUNK: usize = 1 << 16;

/// Name of the whole model among its parts.
pub const ALL_PARTS: &str = "all";

/// The change of all weights.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WeightDiff {
    /// Directory of the model that was tuned.
    pub base: String,
    /// Directory of the model.
    pub model: String,
    /// The change of each part, in the order of the computation; the whole model last ([`ALL_PARTS`]).
    pub parts: Vec<PartDiff>,
    /// The change of each tensor, in the order of the architecture.
    pub tensors: Vec<TensorDiff>,
}

/// The change of one part of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PartDiff {
    /// Its name.
    pub part: String,
    /// Its parameters.
    pub parameters: usize,
    /// L2 norm of the change.
    pub norm: f64,
    /// The same divided by the norm of the base's weights.
    pub relative_norm: f64,
    /// Share of its weights whose f32 bits differ.
    pub changed: f64,
    /// Share of its weights that differ after rounding to bf16.
    pub changed_bf16: f64,
    /// Mean effective rank of the changes of its matrices; none where no matrix changed.
    pub effective_rank: Option<f64>,
    /// Mean of the effective ranks divided by the highest possible rank of each.
    pub effective_rank_share: Option<f64>,
    /// Mean stable rank of the changes of its matrices.
    pub stable_rank: Option<f64>,
}

/// The change of one tensor.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TensorDiff {
    /// Published name.
    pub name: String,
    /// The part that it belongs to.
    pub part: Part,
    /// Shape; a tensor of more than two dimensions is a matrix of its first one and all others.
    pub shape: Vec<usize>,
    /// L2 norm of the change.
    pub norm: f64,
    /// L2 norm of the base's weights.
    pub base_norm: f64,
    /// Weights whose f32 bits differ.
    pub changed: usize,
    /// Weights that differ after rounding to bf16.
    pub changed_bf16: usize,
    /// Effective rank of the change of a matrix (see [`effective_rank`]).
    pub effective_rank: Option<f64>,
    /// Stable rank of the change of a matrix (see [`stable_rank`]).
    pub stable_rank: Option<f64>,
}

impl TensorDiff {
    fn parameters(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Compare the weights in two checkpoint directories; of an adapter, those of its base with the adapter merged in. One pair of tensors is held at
/// a time. The ranks take n^3 operations for a matrix whose shorter side is n: nothing for small models, about an hour on two cores for 3B.
///
/// # Errors
/// An input error if one of them is no checkpoint, their tensors differ in name or shape, or a weight is not finite.
pub fn weight_diff(base: &Path, model: &Path) -> Result<WeightDiff> {
    let (before, after) = (MergedWeights::open(base)?, MergedWeights::open(model)?);
    let mut tensors = Vec::new();
    for (tensor, partner) in partners(base, &before.stored, model, &after.stored)? {
        let (old, new) = (before.values(tensor)?, after.values(partner)?);
        for (dir, values) in [(base, &old), (model, &new)] {
            if let Some(value) = values.iter().find(|value| !value.is_finite()) {
                return Err(Error::input(format!("{}: `{}` holds {value}", dir.display(), tensor.name)));
            }
        }
        let part = before.architecture.part(&tensor.name);
        tensors.push(tensor_diff(tensor.name.clone(), part, tensor.shape.clone(), &old, new));
    }
    Ok(WeightDiff {
        base: base.display().to_string(),
        model: model.display().to_string(),
        parts: by_part(&tensors),
        tensors,
    })
}

fn tensor_diff(name: String, part: Part, shape: Vec<usize>, old: &[f32], mut new: Vec<f32>) -> TensorDiff {
    // Sums of pieces, added in order: the same on any number of threads.
    let sums: Vec<(f64, f64, usize, usize)> = (old.par_chunks(CHUNK).zip(new.par_chunks(CHUNK)))
        .map(|(old, new)| {
            let mut sums = (0.0, 0.0, 0, 0);
            for (&a, &b) in old.iter().zip(new) {
                sums.0 += (f64::from(b) - f64::from(a)).powi(2);
                sums.1 += f64::from(a).powi(2);
                sums.2 += usize::from(a.to_bits() != b.to_bits());
                sums.3 += usize::from(bf16::from_f32(a).to_bits() != bf16::from_f32(b).to_bits());
            }
            sums
        })
        .collect();
    let total = sums.iter().fold((0.0, 0.0, 0, 0), |t, s| (t.0 + s.0, t.1 + s.1, t.2 + s.2, t.3 + s.3));
    let rows = shape.first().copied().unwrap_or(1);
    let cols = old.len() / rows.max(1);
    let singular = match shape.len() >= 2 && total.0 > 0.0 {
        true => {
            new.par_iter_mut().zip(old).for_each(|(new, old)| *new -= old);
            singular_values(&new, rows, cols)
        }
        false => Vec::new(),
    };
    TensorDiff {
        name,
        part,
        shape,
        norm: total.0.sqrt(),
        base_norm: total.1.sqrt(),
        changed: total.2,
        changed_bf16: total.3,
        effective_rank: effective_rank(&singular),
        stable_rank: stable_rank(&singular),
    }
}

/// The parts in the order of their first tensor, then all of them together.
fn by_part(tensors: &[TensorDiff]) -> Vec<PartDiff> {
    let mut names: Vec<&str> = Vec::new();
    for tensor in tensors {
        if !names.contains(&tensor.part.name()) {
            names.push(tensor.part.name());
        }
    }
    let of = |name: &str, own: Vec<&TensorDiff>| {
        let squares = |of: fn(&TensorDiff) -> f64| own.iter().map(|tensor| of(tensor).powi(2)).sum::<f64>();
        let parameters: usize = own.iter().map(|tensor| tensor.parameters()).sum();
        let share = |of: fn(&TensorDiff) -> usize| {
            own.iter().map(|tensor| of(tensor)).sum::<usize>() as f64 / parameters.max(1) as f64
        };
        let mean = |of: fn(&TensorDiff) -> Option<f64>| {
            let found: Vec<f64> = own.iter().filter_map(|tensor| of(tensor)).collect();
            (!found.is_empty()).then(|| found.iter().sum::<f64>() / found.len() as f64)
        };
        let (norm, base_norm) = (squares(|tensor| tensor.norm).sqrt(), squares(|tensor| tensor.base_norm).sqrt());
        PartDiff {
            part: name.to_string(),
            parameters,
            norm,
            relative_norm: if norm == 0.0 { 0.0 } else { norm / base_norm.max(f64::MIN_POSITIVE) },
            changed: share(|tensor| tensor.changed),
            changed_bf16: share(|tensor| tensor.changed_bf16),
            effective_rank: mean(|tensor| tensor.effective_rank),
            effective_rank_share: mean(|tensor| {
                let rows = tensor.shape[0];
                let highest = rows.min(tensor.parameters() / rows.max(1));
                Some(tensor.effective_rank? / highest as f64)
            }),
            stable_rank: mean(|tensor| tensor.stable_rank),
        }
    };
    let mut parts: Vec<PartDiff> = names
        .iter()
        .map(|name| of(name, tensors.iter().filter(|tensor| tensor.part.name() == *name).collect()))
        .collect();
    parts.push(of(ALL_PARTS, tensors.iter().collect()));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::init::{Preset, write_checkpoint};
    use crate::model::interpolate_weights::interpolate;
    use crate::model::lora;
    use crate::model::weight_dtype::WeightDtype;

    #[test]
    fn a_tensor_is_compared_as_numpy_does() {
        let recorded: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/fixtures/outcomes.json")).unwrap();
        for case in recorded["weight_diff"].as_array().unwrap() {
            let numbers = |name: &str| -> Vec<f32> {
                case[name].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
            };
            let shape: Vec<usize> =
                case["shape"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect();
            let got = tensor_diff("w".into(), Part::Decoder, shape, &numbers("old"), numbers("new"));
            let number = |name: &str| case[name].as_f64().unwrap();
            for (got, name) in [
                (got.norm, "norm"),
                (got.base_norm, "base_norm"),
                (got.effective_rank.unwrap_or(0.0), "effective_rank"),
                (got.stable_rank.unwrap_or(0.0), "stable_rank"),
            ] {
                assert!((got - number(name)).abs() <= 1e-6 * number(name), "{name}: {got} is not {}", number(name));
            }
            assert_eq!((got.changed as f64, got.changed_bf16 as f64), (number("changed"), number("changed_bf16")));
        }
    }

    #[test]
    fn a_model_does_not_differ_from_itself_and_differs_from_another_in_every_part() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        write_checkpoint(&at("a"), Preset::Tiny, 1).unwrap();
        write_checkpoint(&at("b"), Preset::Tiny, 2).unwrap();
        let same = weight_diff(&at("a"), &at("a")).unwrap();
        let all = same.parts.last().unwrap();
        assert_eq!((all.part.as_str(), all.norm, all.changed, all.effective_rank), (ALL_PARTS, 0.0, 0.0, None));
        let names: Vec<&str> = same.parts.iter().map(|part| part.part.as_str()).collect();
        assert_eq!(names, ["vision tower", "merger", "embeddings", "decoder", ALL_PARTS]);

        let other = weight_diff(&at("a"), &at("b")).unwrap();
        assert!(other.parts.iter().all(|part| part.changed > 0.9 && part.changed_bf16 > 0.9), "{:?}", other.parts);
        let (parts, all) = other.parts.split_at(other.parts.len() - 1);
        let sum: f64 = parts.iter().map(|part| part.norm.powi(2)).sum();
        assert!((sum.sqrt() - all[0].norm).abs() < 1e-9 * all[0].norm);
        // Halfway there, half the distance in the same directions.
        interpolate(&at("a"), &at("b"), 0.5, &at("half"), false).unwrap();
        let half = weight_diff(&at("a"), &at("half")).unwrap();
        let (half, all) = (half.parts.last().unwrap(), &all[0]);
        assert!((2.0 * half.norm / all.norm - 1.0).abs() < 1e-5, "{half:?}");
        assert!((half.stable_rank.unwrap() / all.stable_rank.unwrap() - 1.0).abs() < 1e-4);
    }

    #[test]
    fn an_adapter_is_compared_as_the_model_that_it_makes() {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let (base, adapter) = (fixture.join("checkpoint/model"), fixture.join("lora/names"));
        let merged = tempfile::tempdir().unwrap();
        let out = merged.path().join("merged");
        lora::merge(&adapter, &out, WeightDtype::F32, false).unwrap();
        let (as_adapter, as_model) = (weight_diff(&base, &adapter).unwrap(), weight_diff(&base, &out).unwrap());
        assert_eq!(as_adapter.parts, as_model.parts);
        let adapted = as_adapter.tensors.iter().filter(|tensor| tensor.stable_rank.is_some());
        assert!(adapted.clone().count() > 0 && adapted.clone().all(|tensor| tensor.name.ends_with(".weight")));
    }

    #[test]
    fn models_that_do_not_fit_together_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        write_checkpoint(&dir.path().join("a"), Preset::Tiny, 1).unwrap();
        let error = weight_diff(&dir.path().join("a"), &dir.path().join("nowhere")).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
    }
}
