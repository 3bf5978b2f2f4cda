//! Runs of 1, 2 and 4 ranks end with the same bytes: weights, optimizer, metrics, samples.

use jigsaw::Result;
use jigsaw::comm::{Communicator, Single, threads};
use jigsaw::model::init::{Preset, write_checkpoint};
use jigsaw::model::{LanguageModel as _, Model, Prompt, Sequence, TokenGrads, distributed, load as load_model};
use std::sync::Arc;

const WORLDS: [usize; 3] = [1, 2, 4];

/// `count` prompts without pictures, two responses to each.
fn batch(count: usize) -> Vec<Sequence> {
    let text = |n: usize, k: usize| (0..n).map(|j| ((j * 31 + k * 17) % 900) as u32).collect::<Vec<u32>>();
    let prompt = |i: usize| Arc::new(Prompt { ids: text(90 + i % 7, i), images: Vec::new() });
    let both = |i: usize| {
        let prompt = prompt(i);
        [9, 12].map(|n| Sequence { prompt: Arc::clone(&prompt), response: text(n, i + n) })
    };
    (0..count).flat_map(both).collect()
}

/// The gradients of two passes over `batch`, on every rank; and the log-probabilities.
fn gradients(
    load: &(dyn Fn() -> Model + Sync),
    batch: &[Sequence],
    comm: &dyn Communicator,
) -> Result<(Vec<Option<Vec<f32>>>, Vec<f32>)> {
    let model = load();
    for weight in [1.0, -0.3] {
        model.distributed_backward(comm, batch, 1.0, None, &|shard, stats| {
            let of = |(i, s): (usize, &Sequence)| vec![weight * (1.0 + (shard.start + i) as f32); s.response.len()];
            let logprobs: Vec<f32> = batch[shard.clone()].iter().enumerate().flat_map(of).collect();
            assert_eq!(logprobs.len(), stats.logprobs.len());
            Ok(TokenGrads { logprobs, entropies: None, kl: None })
        })?;
    }
    let numbers = |grad: candle_core::Tensor| grad.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let gradients = model.parameters().iter().map(|p| p.grad().map(numbers)).collect();
    Ok((gradients, distributed::score(comm, &model, batch, 1.0)?))
}

#[test]
fn gradients_of_small_and_large_models_do_not_depend_on_the_number_of_ranks() {
    let dir = tempfile::tempdir().unwrap();
    for (preset, counts) in [(Preset::Tiny, [30, 2]), (Preset::Small, [15, 2])] {
        let path = dir.path().join(format!("{preset:?}"));
        write_checkpoint(&path, preset, 3).unwrap();
        let load = || load_model(&path, &candle_core::Device::Cpu).unwrap();
        for count in counts {
            let batch = batch(count);
            let alone = gradients(&load, &batch, &Single).unwrap();
            for world_size in WORLDS {
                for found in threads::run(world_size, |comm| gradients(&load, &batch, comm)) {
                    assert!(found.unwrap() == alone, "{preset:?}, {count} prompts, {world_size} ranks");
                }
            }
        }
    }
}

#[test]
fn on_other_devices_ranks_agree_to_the_last_bit_and_with_a_single_one_within_rounding() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    write_checkpoint(&path, Preset::Tiny, 3).unwrap();
    let load = || load_model(&path, &candle_core::Device::Cpu).unwrap().without_fused_kernels();
    let batch = batch(5);
    let (alone, _) = gradients(&load, &batch, &Single).unwrap();
    let found: Vec<_> = threads::run(3, |comm| gradients(&load, &batch, comm)).into_iter().map(Result::unwrap).collect();
    assert!(found.iter().all(|other| other == &found[0]));
    for (one, three) in alone.iter().zip(&found[0].0) {
        let (Some(one), Some(three)) = (one, three) else {
            assert!(one.is_none() && three.is_none());
            continue;
        };
        let size = one.iter().map(|x| x.abs()).fold(0.0, f32::max);
        let off = one.iter().zip(three).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off <= 2e-5 * size, "{off} of {size}");
    }
}
