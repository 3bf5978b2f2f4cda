//! Choosing the next token from logits: greedy, temperature, top-k, top-p.

use crate::model::sequence::IsStopped;
use crate::model::{Completion, MAX_NEW_TOKENS, SamplingParams};
use crate::nn::{log_sum_exp, sample_index, unnormalized_softmax};
use crate::rng::Rng;
use crate::{Error, Result};
use rand::RngExt;

/// A chosen token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SampledToken {
    /// Its id.
    pub id: u32,
    /// Its log-probability under logits / temperature, before any token was excluded (temperature 1 when greedy).
    pub logprob: f32,
}

/// Checked sampling settings with the tokens that end a response and those that must not be chosen.
pub struct TokenSampler<'a> {
    settings: SamplingParams,
    eos: Vec<u32>,
    is_stopped: Option<IsStopped<'a>>,
    banned: Vec<u32>,
}

impl<'a> TokenSampler<'a> {
    /// Check the settings against a vocabulary of `vocab` tokens.
    ///
    /// # Errors
    /// An input error that names the setting that is out of range.
    pub fn new(settings: &SamplingParams, eos: &[u32], banned: &[u32], vocab: usize) -> Result<Self> {
        let bad = |what: &str| Err(Error::input(format!("sampling: {what}")));
        if !(1..=MAX_NEW_TOKENS).contains(&settings.max_new_tokens) {
            return bad(&format!("max_new_tokens must be from 1 to {MAX_NEW_TOKENS}, not {}", settings.max_new_tokens));
        }
        if !(settings.temperature >= 0.0 && settings.temperature.is_finite()) {
            return bad(&format!("temperature must be 0 (greedy) or above, not {}", settings.temperature));
        }
        if !(settings.top_p > 0.0 && settings.top_p <= 1.0) {
            return bad(&format!("top_p must be in (0, 1], not {}", settings.top_p));
        }
        let banned: Vec<u32> =
            banned.iter().copied().filter(|&id| (id as usize) < vocab && !eos.contains(&id)).collect();
        Ok(TokenSampler { settings: settings.clone(), eos: eos.to_vec(), is_stopped: None, banned })
    }

    /// The same, where a response may also end by what it says (see [`crate::model::ResponseEnd`]).
    pub fn with_stop(self, is_stopped: Option<IsStopped<'a>>) -> Self {
        TokenSampler { is_stopped, ..self }
    }

    /// The settings.
    pub fn settings(&self) -> &SamplingParams {
        &self.settings
    }

    /// Tokens that are never chosen.
    pub fn banned(&self) -> &[u32] {
        &self.banned
    }

    /// The seed of the settings.
    pub fn seed(&self) -> u64 {
        self.settings.seed
    }

    /// Whether the last of these tokens ends their response.
    pub fn is_end(&self, ids: &[u32]) -> bool {
        ids.last().is_some_and(|id| self.eos.contains(id)) || self.is_stopped.is_some_and(|stopped| stopped(ids))
    }

    /// Whether a response is over.
    pub fn ended(&self, completion: &Completion) -> bool {
        completion.finished || completion.ids.len() >= self.settings.max_new_tokens
    }

    /// Choose from one row of logits.
    pub fn draw(&self, logits: &[f32], rng: &mut Rng) -> SampledToken {
        if self.settings.temperature == 0.0 {
            let id = self.likeliest(logits);
            return SampledToken { id: id as u32, logprob: logits[id] - log_sum_exp(logits, 1.0) };
        }
        let inverse = 1.0 / self.settings.temperature;
        let mut weights = logits.to_vec();
        let normaliser = unnormalized_softmax(&mut weights, inverse);
        self.banned.iter().for_each(|&id| weights[id as usize] = 0.0);
        self.truncate(&mut weights);
        let share = rng.random::<f64>();
        let id = sample_index(&weights, share).unwrap_or_else(|| {
            // A banned token is so likely that beside it all others vanish.
            weights.copy_from_slice(logits);
            self.exclude(&mut weights);
            unnormalized_softmax(&mut weights, inverse);
            self.truncate(&mut weights);
            sample_index(&weights, share).unwrap_or(0)
        });
        SampledToken { id: id as u32, logprob: logits[id] * inverse - normaliser }
    }

    /// The likeliest token that is not banned; the first of equals.
    fn likeliest(&self, logits: &[f32]) -> usize {
        let mut open = logits.to_vec();
        self.exclude(&mut open);
        let mut best = 0;
        for (i, l) in open.iter().enumerate() {
            if *l > open[best] {
                best = i;
            }
        }
        best
    }

    fn exclude(&self, logits: &mut [f32]) {
        for &id in &self.banned {
            logits[id as usize] = f32::NEG_INFINITY;
        }
    }

    /// Zero the weights outside the top k, then outside the nucleus of the rest.
    fn truncate(&self, weights: &mut [f32]) {
        let (k, p) = (self.settings.top_k, self.settings.top_p);
        if k == 0 && p >= 1.0 {
            return;
        }
        let mut order: Vec<usize> = (0..weights.len()).filter(|&i| weights[i] > 0.0).collect();
        let limit = if k == 0 { order.len() } else { k.min(order.len()) };
        let falling = |&a: &usize, &b: &usize| weights[b].total_cmp(&weights[a]).then(a.cmp(&b));
        // The likeliest `limit` tokens come first; in order only as far as they are looked at.
        if limit < order.len() {
            order.select_nth_unstable_by(limit, falling);
        }
        let mut kept = limit;
        if p < 1.0 {
            let total: f64 = order[..limit].iter().map(|&i| f64::from(weights[i])).sum();
            let (mut sorted, mut mass) = (0, 0.0);
            // The token that crosses p is kept.
            'tokens: while sorted < limit {
                let next = limit.min((8 * sorted).max(128));
                if next < limit {
                    order[sorted..limit].select_nth_unstable_by(next - sorted, falling);
                }
                order[sorted..next].sort_unstable_by(falling);
                for (i, &token) in order[..next].iter().enumerate().skip(sorted) {
                    mass += f64::from(weights[token]);
                    if mass >= f64::from(p) * total {
                        kept = i + 1;
                        break 'tokens;
                    }
                }
                sorted = next;
            }
        }
        for &i in &order[kept..] {
            weights[i] = 0.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;

    fn settings(temperature: f32, top_k: usize, top_p: f32) -> SamplingParams {
        SamplingParams { max_new_tokens: 4, temperature, top_p, top_k, stop: Vec::new(), seed: 0 }
    }

    /// Relative frequencies of 20,000 draws.
    fn frequencies(settings: &SamplingParams, banned: &[u32], logits: &[f32]) -> Vec<f64> {
        let sampler = TokenSampler::new(settings, &[], banned, logits.len()).unwrap();
        let mut rng = rng::stream(1, "test", &[]);
        let mut counts = vec![0.0; logits.len()];
        for _ in 0..20_000 {
            counts[sampler.draw(logits, &mut rng).id as usize] += 1.0 / 20_000.0;
        }
        counts
    }

    #[test]
    fn frequencies_follow_the_tempered_distribution() {
        let logits = [0.5f32, -1.0, 2.0, 0.0];
        for temperature in [0.5f32, 1.0, 2.0] {
            let weights: Vec<f64> = logits.iter().map(|&l| f64::from(l / temperature).exp()).collect();
            let total: f64 = weights.iter().sum();
            for (f, w) in frequencies(&settings(temperature, 0, 1.0), &[], &logits).iter().zip(&weights) {
                assert!((f - w / total).abs() < 0.015, "{f} against {}", w / total);
            }
        }
    }

    #[test]
    fn top_k_top_p_and_bans_exclude_what_they_should() {
        // Probabilities 0.4, 0.3, 0.2, 0.1.
        let logits = [0.4f32.ln(), 0.3f32.ln(), 0.2f32.ln(), 0.1f32.ln()];
        let f = frequencies(&settings(1.0, 2, 1.0), &[], &logits);
        assert!((f[0] - 4.0 / 7.0).abs() < 0.015 && f[2] == 0.0 && f[3] == 0.0);
        let f = frequencies(&settings(1.0, 0, 0.65), &[], &logits);
        assert!(f[1] > 0.3 && f[2] == 0.0);
        let f = frequencies(&settings(1.0, 0, 0.75), &[], &logits);
        assert!(f[2] > 0.15 && f[3] == 0.0);
        let f = frequencies(&settings(1.0, 0, 1.0), &[0, 3], &logits);
        assert!(f[0] == 0.0 && f[3] == 0.0 && (f[1] - 0.6).abs() < 0.015);
        let f = frequencies(&settings(0.0, 0, 1.0), &[0], &logits);
        assert!((f[1] - 1.0).abs() < 1e-9);
    }

    #[test]
    fn the_nucleus_of_a_large_vocabulary_is_that_of_a_full_sort() {
        let logits: Vec<f32> = (0..5000).map(|i| ((i * 7919) % 5000) as f32 * 0.002).collect();
        for (k, p) in [(0, 0.3), (0, 0.97), (3000, 0.9), (700, 1.0), (1, 0.5)] {
            let sampler = TokenSampler::new(&settings(1.0, k, p), &[], &[], logits.len()).unwrap();
            let mut weights: Vec<f32> = logits.iter().map(|l| l.exp()).collect();
            let mut order: Vec<usize> = (0..weights.len()).collect();
            order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]).then(a.cmp(&b)));
            order.truncate(if k == 0 { order.len() } else { k });
            let total: f64 = order.iter().map(|&i| f64::from(weights[i])).sum();
            let mut mass = 0.0;
            let cut = order.iter().position(|&i| {
                mass += f64::from(weights[i]);
                mass >= f64::from(p) * total
            });
            order.truncate(cut.map_or(order.len(), |cut| cut + 1));
            order.sort();
            sampler.truncate(&mut weights);
            let kept: Vec<usize> = (0..weights.len()).filter(|&i| weights[i] > 0.0).collect();
            assert_eq!(kept, order, "{k} {p}");
        }
    }

    #[test]
    fn beside_an_overwhelming_banned_token_the_others_keep_their_shares() {
        let f = frequencies(&settings(1.0, 0, 1.0), &[0], &[500.0, 1.0, 1.0, -1e4]);
        assert!((f[1] - 0.5).abs() < 0.015 && (f[2] - 0.5).abs() < 0.015, "{f:?}");
    }

    #[test]
    fn the_log_probability_is_that_of_the_whole_distribution() {
        let logits = [1.0f32, 2.0, 3.0];
        let sampler = TokenSampler::new(&settings(2.0, 1, 1.0), &[], &[2], 3).unwrap();
        let draw = sampler.draw(&logits, &mut rng::stream(0, "test", &[]));
        let total: f32 = [0.5f32, 1.0, 1.5].iter().map(|l| l.exp()).sum();
        assert_eq!(draw.id, 1);
        assert!((draw.logprob - (1.0 - total.ln())).abs() < 1e-6);
    }

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        for (bad, name) in [
            (SamplingParams { max_new_tokens: 0, ..settings(1.0, 0, 1.0) }, "max_new_tokens"),
            (settings(-1.0, 0, 1.0), "temperature"),
            (settings(f32::NAN, 0, 1.0), "temperature"),
            (settings(1.0, 0, 0.0), "top_p"),
        ] {
            let error = TokenSampler::new(&bad, &[], &[], 4).err().unwrap().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
