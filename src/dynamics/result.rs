//! The result of a measurement, as `dynamics.json` holds it, summed up from single pairs.

use super::influence::{Influence, InfluenceConfig};
use super::kl_regression::KlAndForgetting;
use super::on_policy::OnPolicyResult;
use super::pairing::Pair;
use super::perplexity::{Perplexity, median};
use super::perplexity_and_change::{PerplexityAndChange, perplexity_and_change};
use crate::Result;
use crate::forgetting::ModelRef;
use crate::io::files;
use crate::stats::{
    Agreement, ClusterTotal, Interval, RESAMPLES, ResampleUnit, bootstrap, clustered_mean, nan_if_null,
};
use crate::tasks::benchmarks::Protocol;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;

/// Raised whenever the format of `dynamics.json` changes.
const FORMAT_VERSION: u32 = 3;

/// Seed of all bootstraps: the same pairs have the same interval whenever and wherever it is computed.
pub const BOOTSTRAP_SEED: u64 = 0;

/// A regime's training data or a family of prior knowledge, as the base sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SampleSetResult {
    /// Name.
    pub name: String,
    /// File or dataset directory.
    pub path: String,
    /// Split of a dataset directory; empty for a file.
    pub split: String,
    /// SHA-256 over the examples used, with their images.
    pub data: String,
    /// How the examples are put to the model.
    pub protocol: Protocol,
    /// Examples in the set.
    pub examples: usize,
    /// Responses that are the base's greedy answers, because the data has none.
    pub answered_by_base: usize,
    /// How likely the base finds the responses used.
    pub perplexity: Perplexity,
}

/// Summary of the pairs of one regime with one prior family, or with all, under one checkpoint. Intervals are for new training samples:
/// all pairs of one u are one observation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PairSummary {
    /// The regime.
    pub regime: String,
    /// The prior family; `None` for all families.
    pub prior: Option<String>,
    /// Pairs.
    pub pairs: usize,
    /// Different training samples among them.
    pub samples: usize,
    /// Mean of LBK, BCa bootstrap.
    pub lbk: Interval,
    /// Median of LBK.
    #[serde(deserialize_with = "nan_if_null")]
    pub lbk_median: f64,
    /// Mean of LBK per token of u, BCa bootstrap.
    pub lbk_per_token: Interval,
    /// Pairs without an LBK: the model is certain of u, so its gradient is zero.
    pub zero_gradient_pairs: usize,
    /// Mean of ||d log pi(v) / d eta||_F^2, the square that LBK divides, BCa bootstrap.
    pub effect: Interval,
    /// Mean of KL(pi(v) || pi'(v)) per token of v after an SGD step, in nats per eta^2, BCa bootstrap.
    pub sgd_kl: Interval,
    /// Mean of <grad l(u), grad l(v)>, the change of v's log-likelihood in nats per unit of eta, t interval.
    pub change: Interval,
    /// Share of the pairs in which v becomes less likely.
    #[serde(deserialize_with = "nan_if_null")]
    pub harmed: f64,
    /// Mean cosine of the gradients, t interval.
    pub cosine: Interval,
    /// After the step of Adam: mean of KL(pi(v) || pi'(v)) per token of v in nats, BCa bootstrap.
    pub adam_kl: Interval,
    /// After the step of Adam: mean change of v's log-likelihood in nats, t interval.
    pub adam_change: Interval,
    /// Share of the pairs in which the step of Adam makes v less likely.
    #[serde(deserialize_with = "nan_if_null")]
    pub adam_harmed: f64,
    /// How exact the measurement is.
    pub check: StepCheck,
}

/// Three measurements of one number, <grad l(u), grad l(v)>: whether the SGD steps were of a good size, and what rounding to f32 left of them. By
/// construction all three are equal in the limit of small steps, whatever the model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StepCheck {
    /// Change of v by steps on u against change of u by steps on v.
    pub both_ways: Agreement,
    /// <grad l(u), grad l(v)> against the change of v by steps on u.
    pub gradients: Agreement,
    /// Pairs whose change of distributions is uncertain by more than 5 % because of rounding to f32.
    pub rounded_pairs: usize,
    /// Pairs whose change of distributions is uncertain by more than 5 % because the steps were large.
    pub curved_pairs: usize,
}

/// One checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointResult {
    /// The model.
    pub model: ModelRef,
    /// Each regime with all prior families together, then with each.
    pub summaries: Vec<PairSummary>,
    /// The change of v against the perplexity of u under the base, over the pairs of all regimes and of each.
    pub perplexity_and_change: Vec<PerplexityAndChange>,
    /// How exact the measurement is, over all pairs.
    pub check: StepCheck,
    /// The checkpoint's own responses, if they were asked for.
    pub on_policy: Option<OnPolicyResult>,
    /// It is an adapter, and only the adapter takes the step: the kernel is over its parameters alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adapter: bool,
}

/// The whole result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DynamicsResult {
    /// Version of the file format.
    pub format_version: u32,
    /// Version of the program.
    pub jigsaw: String,
    /// Resamples of each bootstrap.
    pub resamples: usize,
    /// The settings.
    pub config: InfluenceConfig,
    /// The base model, under which perplexities are computed.
    pub base: ModelRef,
    /// Training data.
    pub regimes: Vec<SampleSetResult>,
    /// Prior knowledge.
    pub priors: Vec<SampleSetResult>,
    /// Edges of the histogram bins that all sets share, in nats per token.
    pub bin_edges: Vec<f64>,
    /// The checkpoints, in the order given.
    pub checkpoints: Vec<CheckpointResult>,
    /// KL to the base and forgetting, if comparisons were given.
    pub kl: Option<KlAndForgetting>,
}

impl DynamicsResult {
    /// The result of this version of the program.
    pub fn new(
        config: InfluenceConfig,
        base: ModelRef,
        (regimes, priors): (Vec<SampleSetResult>, Vec<SampleSetResult>),
        bin_edges: Vec<f64>,
        checkpoints: Vec<CheckpointResult>,
        kl: Option<KlAndForgetting>,
    ) -> DynamicsResult {
        let jigsaw = env!("CARGO_PKG_VERSION").to_string();
        DynamicsResult {
            format_version: FORMAT_VERSION,
            jigsaw,
            resamples: RESAMPLES,
            config,
            base,
            regimes,
            priors,
            bin_edges,
            checkpoints,
            kl,
        }
    }

    /// Read `dynamics.json`.
    pub fn read(path: &Path) -> Result<DynamicsResult> {
        files::read_versioned(path, FORMAT_VERSION, "run the command that wrote it again")
    }
}

impl CheckpointResult {
    /// Summarize the pairs of one checkpoint of a whole model.
    pub fn of(model: ModelRef, pairs: &[&Pair], regimes: &[&str], priors: &[&str]) -> CheckpointResult {
        let mut summaries = Vec::new();
        for regime in regimes {
            let of_regime: Vec<&Pair> = pairs.iter().copied().filter(|p| p.regime == *regime).collect();
            summaries.push(PairSummary::of(regime, None, &of_regime));
            for prior in priors.iter().filter(|_| priors.len() > 1) {
                let of_both: Vec<&Pair> = of_regime.iter().copied().filter(|p| p.prior == *prior).collect();
                summaries.push(PairSummary::of(regime, Some(prior), &of_both));
            }
        }
        if let [only] = priors {
            summaries.iter_mut().for_each(|cell| cell.prior = Some((*only).to_string()));
        }
        CheckpointResult {
            model,
            summaries,
            perplexity_and_change: perplexity_and_change(pairs, regimes),
            check: StepCheck::of(pairs),
            on_policy: None,
            adapter: false,
        }
    }

    /// The summaries over all prior families, a regime each.
    pub fn overall(&self) -> impl Iterator<Item = &PairSummary> {
        let mut seen: Vec<&str> = Vec::new();
        self.summaries.iter().filter(move |cell| {
            let first = !seen.contains(&cell.regime.as_str());
            seen.push(&cell.regime);
            first
        })
    }
}

impl PairSummary {
    fn of(regime: &str, prior: Option<&str>, pairs: &[&Pair]) -> PairSummary {
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        for pair in pairs {
            let next = numbers.len();
            numbers.entry(&pair.u).or_insert(next);
        }
        let totals = |of: fn(&Influence) -> f64| -> Vec<ClusterTotal> {
            let mut totals = vec![(0.0, 0.0); numbers.len()];
            for pair in pairs {
                let value = of(&pair.influence);
                let total = &mut totals[numbers[pair.u.as_str()]];
                if value.is_finite() {
                    *total = (total.0 + value, total.1 + 1.0);
                }
            }
            totals.retain(|&(_, count)| count > 0.0);
            totals
        };
        let share = |is: fn(&Influence) -> bool| {
            pairs.iter().filter(|pair| is(&pair.influence)).count() as f64 / pairs.len() as f64
        };
        let mut lbk: Vec<f64> = pairs.iter().map(|p| p.influence.lbk).filter(|x| x.is_finite()).collect();
        PairSummary {
            regime: regime.to_string(),
            prior: prior.map(String::from),
            pairs: pairs.len(),
            samples: numbers.len(),
            lbk: skewed_mean(&totals(|i| i.lbk)),
            zero_gradient_pairs: pairs.len() - lbk.len(),
            lbk_median: median(&mut lbk),
            lbk_per_token: skewed_mean(&totals(Influence::lbk_per_token)),
            effect: skewed_mean(&totals(|i| i.slope_squares)),
            sgd_kl: skewed_mean(&totals(|i| i.sgd_kl)),
            change: clustered_mean(&totals(|i| i.inner_product)).mean,
            harmed: share(|i| i.inner_product < 0.0),
            cosine: clustered_mean(&totals(|i| i.cosine)).mean,
            adam_kl: skewed_mean(&totals(|i| i.adam_kl)),
            adam_change: clustered_mean(&totals(|i| i.adam_change)).mean,
            adam_harmed: share(|i| i.adam_change < 0.0),
            check: StepCheck::of(pairs),
        }
    }
}

impl StepCheck {
    fn of(pairs: &[&Pair]) -> StepCheck {
        let agreement = |of: fn(&Influence) -> (f64, f64)| {
            Agreement::of(&pairs.iter().map(|pair| of(&pair.influence)).collect::<Vec<_>>())
        };
        StepCheck {
            both_ways: agreement(|i| (i.v_slope, i.u_slope)),
            gradients: agreement(|i| (i.inner_product, i.v_slope)),
            rounded_pairs: pairs.iter().filter(|pair| pair.influence.is_rounded()).count(),
            curved_pairs: pairs.iter().filter(|pair| pair.influence.is_curved()).count(),
        }
    }
}

/// The mean over the values of all clusters. Squares have a long tail, so the interval is a BCa bootstrap, which may be asymmetric.
fn skewed_mean(totals: &[ClusterTotal]) -> Interval {
    let units: Vec<ResampleUnit> =
        totals.iter().map(|&(first, count)| ResampleUnit { first, second: 0.0, count }).collect();
    let found = bootstrap(&[units], |means| means[0].0, RESAMPLES, BOOTSTRAP_SEED);
    // All resamples of a single cluster are equal; it has no interval.
    if totals.len() < 2 { Interval { low: f64::NAN, high: f64::NAN, ..found } } else { found }
}
