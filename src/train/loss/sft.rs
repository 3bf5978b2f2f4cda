//! Supervised fine-tuning: mean negative log-probability of the response tokens of the window.

use super::Window;
use crate::model::{TokenGrads, TokenStats};

/// This micro-batch's part of the loss (the parts of a window add up to the mean over its response tokens, as transformers
/// computes it with `num_items_in_batch`) and its gradient.
pub fn sft(stats: &TokenStats, window: &Window) -> (f64, TokenGrads) {
    let tokens = window.tokens.max(1.0);
    let sum: f64 = stats.logprobs.iter().map(|&l| f64::from(l)).sum();
    let grads = TokenGrads { logprobs: vec![(-1.0 / tokens) as f32; stats.logprobs.len()], entropies: None };
    (-sum / tokens, grads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_micro_batches_give_the_loss_and_gradient_of_one_batch_of_eight() {
        let logprobs: Vec<f32> = (0..40).map(|i| -0.1 * i as f32).collect();
        let lengths = [1, 2, 3, 4, 5, 6, 7, 12];
        let stats = |l: &[f32]| TokenStats { logprobs: l.to_vec(), entropies: vec![0.0; l.len()] };
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
        assert!((whole - logprobs.iter().map(|&l| -f64::from(l)).sum::<f64>() / 40.0).abs() < 1e-12);
    }
}
