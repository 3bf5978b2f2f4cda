//! Supervised fine-tuning: mean negative log-probability of the response tokens of the window.

use super::Window;
use crate::model::{TokenGrads, TokenStats};

/// This micro-batch's part of the loss (the parts of a window add up to the mean over its response tokens, as transformers
/// computes it with `num_items_in_batch`) and its gradient.
pub fn sft(stats: &TokenStats, window: &Window) -> (f64, TokenGrads) {
    let tokens = window.tokens.max(1.0);
    let sum: f64 = stats.logprobs.iter().map(|&l| f64::from(l)).sum();
    let grads = TokenGrads { logprobs: vec![(-1.0 / tokens) as f32; stats.logprobs.len()], entropies: None, kl: None };
    (-sum / tokens, grads)
}

/// As [`sft`], with every sequence weighing the same: the mean over the window's sequences of the mean over their own
/// response tokens. `lengths` are those of the responses in `stats`, in order.
pub fn sft_by_sequence(
    stats: &TokenStats,
    lengths: impl IntoIterator<Item = usize>,
    window: &Window,
) -> (f64, TokenGrads) {
    let sequences = window.sequences.max(1) as f64;
    let weights = lengths.into_iter().flat_map(|n| std::iter::repeat_n(1.0 / (sequences * n.max(1) as f64), n));
    let weights: Vec<f64> = weights.collect();
    let sum: f64 = stats.logprobs.iter().zip(&weights).map(|(&l, w)| f64::from(l) * w).sum();
    let logprobs = weights.into_iter().map(|w| -w as f32).collect();
    (-sum, TokenGrads { logprobs, entropies: None, kl: None })
}

/// The divergence from a reference model: its mean over tokens, each with the weight that the negative log-likelihood gave it (`nll`, its
/// gradient), and the gradient of `coef` times that mean.
pub fn kl_penalty(nats: &[f32], nll: &TokenGrads, coef: f64) -> (f64, Vec<f32>) {
    let mean = nats.iter().zip(&nll.logprobs).map(|(&nats, &weight)| -f64::from(nats) * f64::from(weight)).sum();
    (mean, nll.logprobs.iter().map(|&weight| (-coef * f64::from(weight)) as f32).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_divergence_is_averaged_like_the_likelihood() {
        let stats = TokenStats { logprobs: vec![-1.0; 3], entropies: vec![0.0; 3], kl: None };
        let window = Window::of([1, 2], 1);
        let (mean, grads) = kl_penalty(&[1.0, 2.0, 6.0], &sft(&stats, &window).1, 0.5);
        assert!((mean - 3.0).abs() < 1e-6 && grads.iter().all(|g| (g - 0.5 / 3.0).abs() < 1e-7), "{mean} {grads:?}");
        let (mean, grads) = kl_penalty(&[1.0, 2.0, 6.0], &sft_by_sequence(&stats, [1, 2], &window).1, 1.0);
        assert!((mean - 2.5).abs() < 1e-6, "{mean}");
        assert_eq!(grads, [0.5, 0.25, 0.25]);
    }

    #[test]
    fn eight_micro_batches_give_the_loss_and_gradient_of_one_batch_of_eight() {
        let logprobs: Vec<f32> = (0..40).map(|i| -0.1 * i as f32).collect();
        let lengths = [1, 2, 3, 4, 5, 6, 7, 12];
        let stats = |l: &[f32]| TokenStats { logprobs: l.to_vec(), entropies: vec![0.0; l.len()], kl: None };
        let (whole, whole_grads) = sft(&stats(&logprobs), &Window::of(lengths, 1));
        let window = Window::of(lengths, 8);
        let (mut sum, mut grads, mut at) = (0.0, Vec::new(), 0);
        for n in lengths {
            let (part, g) = sft(&stats(&logprobs[at..at + n]), &window);
            sum += part;
            grads.extend(g.logprobs);
            at += n;
        }
        assert!((sum - whole).abs() < 1e-12, "{sum} {whole}");
        assert_eq!(grads, whole_grads.logprobs);
        let (by_sequence, grads) = sft_by_sequence(&stats(&logprobs), lengths, &Window::of(lengths, 1));
        let (mut mean, mut at) = (0.0, 0);
        for n in lengths {
            mean -= logprobs[at..at + n].iter().map(|&l| f64::from(l)).sum::<f64>() / n as f64 / 8.0;
            assert_eq!(grads.logprobs[at..at + n], vec![(-1.0 / (8.0 * n as f64)) as f32; n]);
            at += n;
        }
        assert!((by_sequence - mean).abs() < 1e-12, "{by_sequence} {mean}");
        assert!((whole - logprobs.iter().map(|&l| -f64::from(l)).sum::<f64>() / 40.0).abs() < 1e-12);
    }
}
