//! (in progress)

mod reward;

pub use reward::{PermutationRule, Reward, RewardConfig};
