//! How well the distance from the base predicts forgetting: a least-squares line through KL(base || tuned) and the mean loss of prior
//! knowledge over models that were compared with their base, the share of the variance that it explains, and Spearman's rank correlation. The
//! checkpoints of one run are not independent, so the interval of the slope is clustered by run (cluster-robust, CR1).
//!
//! Shenfeld et al., RL's Razor (arXiv 2509.04259), find that the distance on the new task's prompts predicts forgetting whatever the method of
//! training. The distance on the prompts of prior knowledge is given beside it. It is over held-out sets if there are any; else over the
//! benchmarks that the loss is measured on, and then partly forgetting itself.

use crate::forgetting::{ForgettingResult, NEW_TASK, TunedResult};
use crate::stats::{LinearFit, nan_if_null};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// One tuned model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KlPoint {
    /// Name of the model.
    pub model: String,
    /// Its directory.
    pub dir: String,
    /// KL(base || tuned) on the new task's prompts, in nats per token.
    pub per_token: f64,
    /// The same in nats per response.
    pub per_response: f64,
    /// KL(base || tuned) on the prompts of prior knowledge, in nats per token ([`TunedResult::prior_kl`]); NaN if it was not measured.
    #[serde(default = "nan", deserialize_with = "nan_if_null")]
    pub prior_per_token: f64,
    /// Mean loss over the benchmarks of prior knowledge, a share; negative for a gain.
    pub forgetting: f64,
}

/// Distance and forgetting of the models of several comparisons.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KlAndForgetting {
    /// The models.
    pub points: Vec<KlPoint>,
    /// Models that are left out, with the reason.
    pub left_out: Vec<String>,
    /// Forgetting against nats per token.
    pub per_token: LinearFit,
    /// Forgetting against nats per response.
    pub per_response: LinearFit,
    /// Forgetting against nats per token on the prompts of prior knowledge; none in files that were written before it was fitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prior_per_token: Option<LinearFit>,
}

/// What files of before a number was computed have for it.
fn nan() -> f64 {
    f64::NAN
}

/// Fit a line through the models of several comparisons, each given with its path. All must have the same base and benchmarks.
///
/// # Errors
/// An input error that names both paths if bases, benchmarks or their examples differ: such losses cannot be compared.
pub fn kl_and_forgetting(found: &[(String, ForgettingResult)]) -> Result<KlAndForgetting> {
    // Path of the first comparison, hash of its base, and its benchmarks by name and hash of their data.
    type First<'a> = (&'a str, &'a str, Vec<(&'a str, &'a str)>);
    let mut first: Option<First<'_>> = None;
    let mut points: Vec<KlPoint> = Vec::new();
    let mut left_out = Vec::new();
    // The run of each point, by number. A model of no run is one by itself.
    let mut runs: Vec<usize> = Vec::new();
    let mut dirs: HashMap<&str, usize> = HashMap::new();
    let mut number = |dir| {
        let next = dirs.len();
        *dirs.entry(dir).or_insert(next)
    };
    let mut seen: Vec<(&str, f64)> = Vec::new();
    for (place, forgetting) in found {
        for tuned in &forgetting.tuned {
            let benchmarks: Vec<_> = tuned.benchmarks.iter().map(|b| (b.name.as_str(), b.data.as_str())).collect();
            match &first {
                None => first = Some((place, &forgetting.base.hash, benchmarks)),
                Some((other, base, _)) if *base != forgetting.base.hash => {
                    return Err(Error::input(format!(
                        "{other} and {place} are comparisons with different bases ({} and {}); their models cannot be \
                         compared",
                        crate::forgetting::brief(base),
                        crate::forgetting::brief(&forgetting.base.hash)
                    )));
                }
                Some((other, _, known)) if *known != benchmarks => {
                    let names = |list: &[(&str, &str)]| list.iter().map(|b| b.0).collect::<Vec<_>>().join(", ");
                    let what = match names(known) == names(&benchmarks) {
                        true => format!("the examples of {} differ", names(known)),
                        false => format!("{} there, {} here", names(known), names(&benchmarks)),
                    };
                    return Err(Error::input(format!("{other} and {place} are about different benchmarks: {what}")));
                }
                Some(_) => {}
            }
            match point(tuned) {
                Ok(point) if seen.contains(&(&tuned.model.hash, point.per_token)) => {}
                Ok(point) => {
                    seen.push((&tuned.model.hash, point.per_token));
                    points.push(point);
                    runs.push(number(
                        tuned.model.run.as_ref().map_or(tuned.model.dir.as_str(), |run| run.dir.as_str()),
                    ));
                }
                Err(why) => left_out.push(format!("{} ({place}): {why}", tuned.model.name)),
            }
        }
    }
    let line = |of: fn(&KlPoint) -> f64| {
        let known = || points.iter().zip(&runs).filter(|(point, _)| of(point).is_finite());
        let (through, clusters): (Vec<(f64, f64)>, Vec<usize>) =
            known().map(|(point, run)| ((of(point), point.forgetting), *run)).unzip();
        LinearFit::through(&through, &clusters)
    };
    let (per_token, per_response) = (line(|p| p.per_token), line(|p| p.per_response));
    let prior_per_token = Some(line(|p| p.prior_per_token)).filter(|fit| fit.n > 0);
    Ok(KlAndForgetting { per_token, per_response, prior_per_token, points, left_out })
}

fn point(tuned: &TunedResult) -> Result<KlPoint, &'static str> {
    let all = tuned.all.as_ref().ok_or("no benchmark of prior knowledge")?;
    let new_task = tuned.divergence.iter().find(|d| d.prompts_of == NEW_TASK);
    let forward =
        new_task.ok_or("no divergence on the new task's prompts (--data and --kl-prompts of `jigsaw eval`)")?.forward;
    let point = KlPoint {
        model: tuned.model.name.clone(),
        dir: tuned.model.dir.clone(),
        per_token: forward.per_token.value,
        per_response: forward.per_response.value,
        prior_per_token: tuned.prior_kl().map_or(f64::NAN, |kl| kl.value),
        // `0.0 - x`, because `-x` would write no change as -0.
        forgetting: 0.0 - all.change.value,
    };
    let finite = [point.per_token, point.per_response, point.forgetting].iter().all(|x| x.is_finite());
    if finite { Ok(point) } else { Err("a number that is not finite") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::{Divergence, DivergenceStats, PromptRole};
    use crate::forgetting::RunRef;
    use crate::forgetting::fixtures::{compared, model, paired_scores};
    use crate::stats::Interval;

    /// `lost` of 100 answers, at a distance of `kl`.
    fn one(name: &str, lost: usize, kl: Option<f64>) -> TunedResult {
        let at = |value| Interval { value, low: value, high: value };
        let direction =
            |kl: f64| DivergenceStats { tokens: 10, unfinished: 0, per_token: at(kl), per_response: at(10.0 * kl) };
        let divergence = kl.map(|kl| Divergence {
            prompts_of: NEW_TASK.into(),
            role: PromptRole::NewTask,
            prompts: 4,
            seed: 0,
            forward: direction(kl),
            reverse: direction(7.0),
            own: None,
        });
        let benchmarks = vec![compared("bench", &paired_scores(100, 80, lost, 0))];
        TunedResult::of(model(name), None, benchmarks, divergence.into_iter().collect())
    }

    #[test]
    fn the_line_goes_through_the_models_of_all_comparisons() {
        let first = ForgettingResult::new(model("base"), vec![one("a", 10, Some(0.1)), one("b", 20, Some(0.2))]);
        let second = ForgettingResult::new(model("base"), vec![one("c", 40, Some(0.4)), one("d", 7, None)]);
        let found = kl_and_forgetting(&[("x".into(), first.clone()), ("y".into(), second)]).unwrap();
        assert_eq!(found.points.len(), 3);
        assert!((found.points[2].forgetting - 0.4).abs() < 1e-12 && found.points[2].per_response == 4.0);
        assert!((found.per_token.slope.value - 1.0).abs() < 1e-9 && (found.per_token.r2 - 1.0).abs() < 1e-9);
        assert!((found.per_response.slope.value - 0.1).abs() < 1e-9 && found.per_token.n == 3);
        assert!(found.per_token.clusters == 3 && (found.per_token.spearman - 1.0).abs() < 1e-12);
        assert!(found.prior_per_token.is_none(), "no prompts of prior knowledge were compared");
        assert!(found.left_out[0].contains("d (y): no divergence"), "{:?}", found.left_out);
        // The same comparison twice counts once.
        let twice = kl_and_forgetting(&[("x".into(), first.clone()), ("z".into(), first)]).unwrap();
        assert_eq!(twice.points.len(), 2);
        assert_eq!(kl_and_forgetting(&[]).unwrap().per_token.n, 0);
    }

    #[test]
    fn checkpoints_of_one_run_are_one_cluster_and_prior_prompts_have_a_line_of_their_own() {
        let run = |name: &str, step: u64| RunRef {
            name: name.into(),
            dir: format!("/runs/{name}"),
            step: Some(step),
            seed: Some(1),
            data_hash: String::new(),
            model_hash: String::new(),
        };
        let models = [("a", 1, 10, 0.1), ("a", 2, 18, 0.3), ("b", 1, 20, 0.2), ("b", 2, 45, 0.4), ("c", 1, 30, 0.6)];
        let tuned = models.map(|(name, step, lost, kl)| {
            let mut tuned = one(&format!("{name}{step}"), lost, Some(kl));
            tuned.model.run = Some(run(name, step));
            let own = tuned.divergence[0].clone();
            tuned.divergence.push(Divergence { prompts_of: "bench".into(), role: PromptRole::Benchmark, ..own });
            tuned
        });
        let found = ForgettingResult::new(model("base"), tuned.to_vec());
        let found = kl_and_forgetting(&[("x".into(), found)]).unwrap();
        assert_eq!((found.per_token.n, found.per_token.clusters), (5, 3));
        assert_eq!(found.prior_per_token, Some(found.per_token), "the same distances here");
    }

    #[test]
    fn other_bases_and_other_benchmarks_are_refused_with_both_places() {
        let of = |base: &str, tuned: TunedResult| ForgettingResult::new(model(base), vec![tuned]);
        let first = ("x".to_string(), of("base", one("a", 1, Some(0.1))));
        let refused = |second: ForgettingResult, said: &str| {
            let error = kl_and_forgetting(&[first.clone(), ("y".into(), second)]).unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains("x and y"), "{error}");
            assert!(error.to_string().contains(said), "{error}");
        };
        refused(of("other", one("b", 1, Some(0.1))), "different bases");
        let mut renamed = one("b", 1, Some(0.1));
        renamed.benchmarks[0].name = "elsewhere".into();
        refused(of("base", renamed), "bench there, elsewhere here");
        let mut changed = one("b", 1, Some(0.1));
        changed.benchmarks[0].data = "other".into();
        refused(of("base", changed), "the examples of bench differ");
    }
}
