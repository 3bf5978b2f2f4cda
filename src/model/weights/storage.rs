//! In which type weights are held in memory.

/// In which type weights are held in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightStorage {
    /// As f32: needed to train them.
    F32,
    /// Matrices stored in bf16 as bf16, everything else as f32. The kernels widen a block at a time; the results are the same.
    Stored,
    /// As bf16 also those that are stored in more and have no more than bf16 holds.
    Lossless,
    /// All matrices as bf16, rounded where they are stored in more.
    Bf16,
}
