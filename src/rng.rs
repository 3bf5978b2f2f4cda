//! Seeded randomness that does not depend on platform, thread count or call order.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use sha2::{Digest, Sha256};

/// The generator used everywhere: portable; the seed fixes its stream.
pub type Rng = ChaCha8Rng;

/// An independent stream for (seed, label, indices): the same arguments always give the same stream.
/// `label` names the use ("puzzle", "rollout", ...), so that two uses of a seed draw different numbers.
pub fn stream(seed: u64, label: &str, indices: &[u64]) -> Rng {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    hash.update((label.len() as u64).to_le_bytes());
    hash.update(label.as_bytes());
    for index in indices {
        hash.update(index.to_le_bytes());
    }
    ChaCha8Rng::from_seed(hash.finalize().into())
}
