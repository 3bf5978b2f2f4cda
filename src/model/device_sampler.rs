//! Choosing the next token on a device, in candle ops: what [`TokenSampler::draw`] does with a row of logits, for all rows at once. Ids and
//! log-probabilities come to main memory in one read; logits never do.
//!
//! The share of the cumulative sum at which a token is drawn comes from the sample's own stream, as on a CPU, so that the two draw the
//! same token but where rounding decides. No op sorts: candle's sort on a GPU holds a row in one block's memory, which a vocabulary
//! does not fit into. Cut-offs are found by bisection, cumulative sums in two levels.

use super::token_sampler::{SampledToken, TokenSampler};
use crate::nn::{MAX_TILE_LOGITS, read_together};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};

/// Halvings of a range of logits: enough to tell neighbouring numbers of f32 apart.
const HALVINGS: usize = 44;
/// Below every logit.
const LOWEST: f64 = -1e30;
/// The largest vocabulary whose ids f32 holds exactly.
const MAX_VOCABULARY: usize = 1 << 24;

/// What the rows of a call of `generate` share.
pub struct DeviceSampler<'a, 'b> {
    sampler: &'a TokenSampler<'b>,
    /// 0 for a token that may be chosen, [`LOWEST`] for one that may not: `[1, vocab]`.
    bans: Tensor,
    allowed: usize,
    /// Ids `[1, vocab]`.
    ids: Tensor,
}

impl<'a, 'b> DeviceSampler<'a, 'b> {
    /// For logits over `vocab` tokens.
    pub fn new(sampler: &'a TokenSampler<'b>, vocab: usize, device: &Device) -> Result<Self> {
        if vocab > MAX_VOCABULARY {
            return Err(Error::input(format!("a vocabulary of {vocab} tokens is too large for this device")));
        }
        let mut bans = vec![0f32; vocab];
        sampler.banned().iter().for_each(|&id| bans[id as usize] = LOWEST as f32);
        let allowed = bans.iter().filter(|ban| **ban == 0.0).count();
        let bans = Tensor::from_vec(bans, (1, vocab), device)?;
        let ids = Tensor::arange(0f32, vocab as f32, device)?.unsqueeze(0)?;
        Ok(DeviceSampler { sampler, bans, allowed, ids })
    }

    /// A token for each row of `logits` `[rows, vocab]`. `shares` in [0, 1), one for each row, decide; greedy choice has no use for them.
    pub fn draw(&self, logits: &Tensor, shares: &[f64]) -> Result<Vec<SampledToken>> {
        let (rows, vocab) = logits.dims2()?;
        let at_once = (MAX_TILE_LOGITS / vocab.max(1)).max(1);
        let starts = (0..rows).step_by(at_once);
        let drawn = starts.map(|start| {
            let count = at_once.min(rows - start);
            self.draw_rows(&logits.narrow(0, start, count)?.to_dtype(DType::F32)?, &shares[start..start + count])
        });
        let drawn = read_together(&drawn.collect::<Result<Vec<_>>>()?)?.concat();
        let token = |[id, logprob]: &[f64; 2]| SampledToken { id: *id as u32, logprob: *logprob as f32 };
        Ok(drawn.as_chunks().0.iter().map(token).collect())
    }

    /// Id and log-probability of a token for each row, `[rows, 2]`.
    fn draw_rows(&self, logits: &Tensor, shares: &[f64]) -> Result<Tensor> {
        let settings = self.sampler.settings();
        let greedy = settings.temperature == 0.0;
        let scaled = if greedy { logits.clone() } else { (logits / f64::from(settings.temperature))? };
        let top = scaled.max_keepdim(1)?;
        let normaliser = (scaled.broadcast_sub(&top)?.exp()?.sum_keepdim(1)?.log()? + &top)?;
        let open = scaled.broadcast_add(&self.bans)?;
        let best = open.max_keepdim(1)?;
        let id = match greedy {
            true => self.first(&open.broadcast_ge(&best)?)?,
            // The likeliest of the open tokens has weight 1.
            false => self.sample(&open.broadcast_sub(&best)?, shares)?,
        };
        let chosen = scaled.gather(&id.to_dtype(DType::U32)?, 1)?;
        Ok(Tensor::cat(&[id, (chosen - normaliser)?], 1)?)
    }

    /// The ids `[rows, 1]` drawn with probability proportional to the exponentials of `scores` `[rows, vocab]`, which are at most 0.
    fn sample(&self, scores: &Tensor, shares: &[f64]) -> Result<Tensor> {
        let (rows, _) = scores.dims2()?;
        let mut weights = scores.exp()?;
        let settings = self.sampler.settings();
        if settings.top_k > 0 && settings.top_k < self.allowed {
            let target = Tensor::full(settings.top_k as f32, (rows, 1), scores.device())?;
            weights = (&weights * self.largest(scores, &weights.ones_like()?, &target)?)?;
        }
        if settings.top_p < 1.0 {
            let target = (weights.sum_keepdim(1)? * f64::from(settings.top_p))?;
            weights = (&weights * self.largest(scores, &weights, &target)?)?;
        }
        let sums = prefix_sums(&weights)?;
        let shares = shares.iter().map(|&share| share as f32).collect();
        let shares = Tensor::from_vec(shares, (rows, 1), scores.device())?;
        let point = (weights.sum_keepdim(1)? * shares)?;
        // A sum is rounded: only a token of some weight may be drawn, the last one if no sum goes beyond the point.
        let has_weight = weights.gt(0.0)?;
        let last = has_weight.where_cond(&self.ids.broadcast_as(weights.shape())?, &weights.zeros_like()?)?;
        let last = last.max_keepdim(1)?;
        let beyond = (sums.broadcast_gt(&point)?.to_dtype(DType::F32)? * has_weight.to_dtype(DType::F32)?)?;
        Ok(self.first(&beyond.gt(0.0)?)?.minimum(&last)?)
    }

    /// The first id `[rows, 1]` of each row of `found` `[rows, vocab]`; the last of all where there is none.
    fn first(&self, found: &Tensor) -> Result<Tensor> {
        let ids = self.ids.broadcast_as(found.shape())?;
        let none = Tensor::full(found.dim(1)?.saturating_sub(1) as f32, found.shape(), found.device())?;
        Ok(found.where_cond(&ids, &none)?.min_keepdim(1)?)
    }

    /// 1 for the largest `scores` that together have at least the `target` `[rows, 1]` of `amounts`, and as few as that takes; 0 for the
    /// others. Of equal scores the first.
    fn largest(&self, scores: &Tensor, amounts: &Tensor, target: &Tensor) -> Result<Tensor> {
        let amount = |marked: &Tensor| (marked * amounts)?.sum_keepdim(1);
        let above = |bound: &Tensor| scores.broadcast_ge(bound)?.to_dtype(DType::F32);
        // From `low` on there is enough, from `high` on there is not.
        let open = self.bans.ge(0.0)?.broadcast_as(scores.shape())?;
        let mut low = open.where_cond(scores, &scores.zeros_like()?)?.min_keepdim(1)?;
        let mut high = Tensor::ones(low.shape(), DType::F32, scores.device())?;
        for _ in 0..HALVINGS {
            let middle = ((&low + &high)? * 0.5)?;
            let enough = amount(&above(&middle)?)?.ge(target)?;
            (low, high) = (enough.where_cond(&middle, &low)?, enough.where_cond(&high, &middle)?);
        }
        let sure = above(&high)?;
        let equal = (above(&low)? - &sure)?;
        let of_equal = (&equal * amounts)?;
        let before = (prefix_sums(&of_equal)? - &of_equal)?.broadcast_add(&amount(&sure)?)?;
        Ok((sure + (equal * before.broadcast_lt(target)?.to_dtype(DType::F32)?)?)?)
    }
}

/// The sums of each row up to and with each of its numbers, `[rows, n]`: candle's own `cumsum` multiplies by an n x n matrix.
fn prefix_sums(values: &Tensor) -> Result<Tensor> {
    let (rows, n) = values.dims2()?;
    let width = n.isqrt().max(1);
    let count = n.div_ceil(width);
    let upper = |n: usize| Tensor::triu2(n, DType::F32, values.device());
    let padded = values.pad_with_zeros(1, 0, count * width - n)?.reshape((rows * count, width))?;
    let within = padded.matmul(&upper(width)?)?.reshape((rows, count, width))?;
    let whole = padded.sum_keepdim(1)?.reshape((rows, count))?;
    let before = (whole.matmul(&upper(count)?)? - &whole)?.unsqueeze(2)?;
    Ok(within.broadcast_add(&before)?.reshape((rows, count * width))?.narrow(1, 0, n)?.contiguous()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SamplingParams;
    use crate::rng;
    use rand::RngExt;

    /// Rows of logits with some equal ones.
    fn logits(rows: usize, vocab: usize) -> Vec<f32> {
        (0..rows * vocab).map(|i| (((i * 7919) % 1009) as f32 * 0.37).sin() * 3.0).collect()
    }

    fn check(settings: SamplingParams, vocab: usize, banned: &[u32]) {
        let rows = 12;
        let sampler = TokenSampler::new(&settings, &[], banned, vocab).unwrap();
        let on_device = DeviceSampler::new(&sampler, vocab, &Device::Cpu).unwrap();
        let data = logits(rows, vocab);
        let tensor = Tensor::from_slice(&data, (rows, vocab), &Device::Cpu).unwrap();
        for round in 0..20 {
            let stream = |row: usize| rng::stream(7, "test", &[round, row as u64]);
            let shares: Vec<f64> = (0..rows).map(|row| stream(row).random::<f64>()).collect();
            let drawn = on_device.draw(&tensor, &shares).unwrap();
            for (row, drawn) in drawn.iter().enumerate() {
                let want = sampler.draw(&data[row * vocab..(row + 1) * vocab], &mut stream(row));
                assert_eq!(drawn.id, want.id, "{settings:?} {vocab} row {row}");
                assert!((drawn.logprob - want.logprob).abs() < 2e-5, "{drawn:?} {want:?}");
            }
        }
    }

    #[test]
    fn tokens_are_those_of_the_sampler_in_main_memory() {
        let params = |temperature, top_k, top_p| SamplingParams {
            max_new_tokens: 4,
            temperature,
            top_p,
            top_k,
            stop: Vec::new(),
            seed: 0,
        };
        for vocab in [1, 5, 300, 2500] {
            let banned: &[u32] = if vocab > 1 { &[0, 3] } else { &[] };
            for (temperature, k, p) in
                [(0.0, 0, 1.0), (1.0, 0, 1.0), (0.7, 3, 1.0), (1.3, 0, 0.6), (1.0, 200, 0.9), (1.0, 1, 0.5)]
            {
                check(params(temperature, k, p), vocab, &[]);
                check(params(temperature, k, p), vocab, banned);
            }
        }
    }

    #[test]
    fn of_equal_scores_the_first_are_kept() {
        let settings = SamplingParams { temperature: 1.0, ..SamplingParams::greedy(4) };
        let sampler = TokenSampler::new(&settings, &[], &[], 6).unwrap();
        let on_device = DeviceSampler::new(&sampler, 6, &Device::Cpu).unwrap();
        let scores = Tensor::new(&[[-1f32, 0.0, -1.0, -1.0, -2.0, -1.0]], &Device::Cpu).unwrap();
        let kept = |amounts: &Tensor, target: f32| {
            let target = Tensor::new(&[[target]], &Device::Cpu).unwrap();
            on_device.largest(&scores, amounts, &target).unwrap().to_vec2::<f32>().unwrap().concat()
        };
        let ones = scores.ones_like().unwrap();
        assert_eq!(kept(&ones, 1.0), [0.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(kept(&ones, 3.0), [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]);
        assert_eq!(kept(&ones, 6.0), [1.0; 6]);
        // Weights 1 and 0.37: two of the equal ones reach 1.7.
        assert_eq!(kept(&scores.exp().unwrap(), 1.7), [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn a_banned_token_is_never_drawn_however_likely() {
        let settings = SamplingParams { temperature: 1.0, ..SamplingParams::greedy(4) };
        let sampler = TokenSampler::new(&settings, &[], &[0, 2], 4).unwrap();
        let on_device = DeviceSampler::new(&sampler, 4, &Device::Cpu).unwrap();
        let logits = Tensor::new(&[[500f32, 1.0, 400.0, 1.0]], &Device::Cpu).unwrap();
        let drawn = |share: f64| on_device.draw(&logits, &[share]).unwrap()[0].id;
        assert_eq!([0.0, 0.4999, 0.5001, 0.999_999_999_999].map(drawn), [1, 1, 3, 3]);
    }
}
