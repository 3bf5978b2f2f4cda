//! Training: SFT and GRPO over the same model, optimizer, run directory and checkpoints.

pub mod loss;
