//! One number for each outcome of a tuned model, over its sets of prompts and its benchmarks.

use super::result::{BenchmarkChange, NEW_TASK, TunedResult};
use super::transitions::{TransitionShare, Transitions};
use crate::eval::{Divergence, PromptRole};
use crate::stats::{Interval, mean_of_intervals};

/// Which of the two divergences.
type Direction = fn(&Divergence) -> Interval;

impl TunedResult {
    /// KL(base || tuned) on the new task's prompts, in nats per token.
    pub fn new_task_kl(&self) -> Option<Interval> {
        self.divergence.iter().find(|d| d.prompts_of == NEW_TASK).map(|d| d.forward.per_token)
    }

    /// KL(base || tuned) on prompts of prior knowledge, in nats per token: the mean over the held-out sets, or over the benchmarks if no set was
    /// held out.
    pub fn prior_kl(&self) -> Option<Interval> {
        self.mean_prior_kl(|d| d.forward.per_token)
    }

    /// The same for KL(tuned || base), on the tuned model's responses.
    pub fn prior_reverse_kl(&self) -> Option<Interval> {
        self.mean_prior_kl(|d| d.reverse.per_token)
    }

    fn mean_prior_kl(&self, direction: Direction) -> Option<Interval> {
        let of = |role: PromptRole| -> Vec<Interval> {
            self.divergence.iter().filter(|d| d.role == role).map(direction).collect()
        };
        let sets = [of(PromptRole::HeldOut), of(PromptRole::Benchmark)].into_iter().find(|sets| !sets.is_empty())?;
        Some(mean_of_intervals(&sets))
    }

    /// Whether the divergence on prior prompts is that on prompts held out from the benchmarks.
    pub fn has_held_out_prompts(&self) -> bool {
        self.divergence.iter().any(|d| d.role == PromptRole::HeldOut)
    }

    /// Shares of the answers to prior questions that turned from right to wrong, and from wrong to right, beyond what guessing explains: means over
    /// all benchmarks. `None` without benchmarks. Benchmarks of one family may ask the same questions in two styles, so their errors are taken
    /// to agree fully, which is the widest that they can make the interval; families are independent.
    pub fn transitions(&self) -> Option<[Interval; 2]> {
        let mean = |direction: fn(&Transitions) -> &TransitionShare| {
            let of = |one: &&BenchmarkChange| direction(&one.transitions).adjusted;
            let m = self.benchmarks.len() as f64;
            let mut families: Vec<(&str, f64, f64)> = Vec::new();
            let mut value = 0.0;
            for one in &self.benchmarks {
                let own = of(&one);
                let (below, above) = ((own.value - own.low) / m, (own.high - own.value) / m);
                value += own.value / m;
                match families.iter_mut().find(|(name, ..)| *name == one.family) {
                    Some(family) => (family.1, family.2) = (family.1 + below, family.2 + above),
                    None => families.push((&one.family, below, above)),
                }
            }
            let error = |side: fn(&(&str, f64, f64)) -> f64| {
                families.iter().map(|family| side(family).powi(2)).sum::<f64>().sqrt()
            };
            Interval { value, low: (value - error(|f| f.1)).max(0.0), high: value + error(|f| f.2) }
        };
        (!self.benchmarks.is_empty()).then(|| [mean(|t| &t.right_to_wrong), mean(|t| &t.wrong_to_right)])
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{compared, near, paired_scores, tuned};
    use crate::eval::{Divergence, DivergenceStats, PromptRole};
    use crate::stats::Interval;

    #[test]
    fn the_divergence_on_prior_prompts_is_that_on_held_out_ones_where_there_are_any() {
        let divergence = |role, value: f64| {
            let per_token = Interval { value, low: value, high: value };
            let stats = DivergenceStats { tokens: 1, unfinished: 0, per_token, per_response: per_token };
            let reverse = DivergenceStats { per_token: Interval { value: 2.0 * value, ..per_token }, ..stats };
            Divergence { prompts_of: "set".into(), role, prompts: 1, seed: 0, forward: stats, reverse, own: None }
        };
        let mut found = tuned(Vec::new());
        assert!(found.prior_kl().is_none());
        found.divergence = vec![divergence(PromptRole::Benchmark, 0.5)];
        near(found.prior_kl().unwrap().value, 0.5);
        found.divergence.extend([divergence(PromptRole::HeldOut, 0.1), divergence(PromptRole::HeldOut, 0.3)]);
        near(found.prior_kl().unwrap().value, 0.2);
        near(found.prior_reverse_kl().unwrap().value, 0.4);
    }

    #[test]
    fn the_errors_of_a_family_add_up_and_those_of_families_by_their_squares() {
        let mut found = tuned(vec![
            compared("a-direct", &paired_scores(100, 80, 8, 1)),
            compared("a-think", &paired_scores(100, 80, 4, 0)),
            compared("b", &paired_scores(100, 80, 0, 3)),
        ]);
        found.benchmarks[2].family = "ocr".into();
        // No chance level is known, so the shares are the raw ones with Wilson's intervals (statsmodels, proportion_confint, wilson):
        // 8 of 100: 0.041093 to 0.149981; 4 of 100: 0.015663 to 0.098371; 0 of 100: 0 to 0.036993.
        let [lost, gained] = found.transitions().unwrap();
        near(lost.value, 0.04);
        let close = |got: f64, expected: f64| assert!((got - expected).abs() < 1e-6, "{got} is not {expected}");
        // (0.038907 + 0.024337) / 3 below; above sqrt((0.069981 + 0.058371)^2 + 0.036993^2) / 3.
        close(lost.low, 0.04 - 0.063_243_23 / 3.0);
        close(lost.high, 0.04 + (0.128_351_79_f64.powi(2) + 0.036_993_50_f64.powi(2)).sqrt() / 3.0);
        near(gained.value, 0.04 / 3.0);
        assert!(tuned(Vec::new()).transitions().is_none());
    }
}
