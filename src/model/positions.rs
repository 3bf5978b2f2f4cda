//! Position ids: where each token of a sequence stands.

/// Positions of a sequence's tokens, and where the next token will stand.
///
/// A token has a position in time, height and width. Families without images keep all three equal.
#[derive(Debug, Clone, PartialEq)]
pub struct Positions {
    /// Temporal, height and width position of every token; each as long as the sequence.
    pub axes: [Vec<u32>; 3],
    /// Position, on all three axes, of the first text token after the sequence: the largest position + 1.
    pub next: u32,
}

impl Positions {
    /// `count` text tokens, numbered from 0.
    pub fn of_text(count: usize) -> Self {
        Positions { axes: std::array::from_fn(|_| (0..count as u32).collect()), next: count as u32 }
    }

    /// Next position minus length: what transformers calls `rope_deltas`. A decoded token at index `i` of the sequence
    /// stands at `i + delta`.
    pub fn delta(&self) -> i64 {
        i64::from(self.next) - self.axes[0].len() as i64
    }

    /// Append `count` text tokens (a response after its prompt).
    pub fn extend_text(&mut self, count: usize) {
        for axis in &mut self.axes {
            axis.extend(self.next..self.next + count as u32);
        }
        self.next += count as u32;
    }
}
