//! How the heads lie in a row of queries, keys and values.

/// Head counts and width of a head.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Heads {
    /// Query heads.
    pub query: usize,
    /// Key and value heads; a divisor of `query`.
    pub key_value: usize,
    /// Elements of a head.
    pub dim: usize,
}

impl Heads {
    /// Elements of a row that holds all query, then all key, then all value heads.
    pub fn stride(self) -> usize {
        (self.query + 2 * self.key_value) * self.dim
    }

    pub(super) fn group(self) -> usize {
        self.query / self.key_value
    }

    pub(super) fn query_at(self, head: usize) -> usize {
        head * self.dim
    }

    pub(super) fn key_at(self, kv_head: usize) -> usize {
        (self.query + kv_head) * self.dim
    }

    pub(super) fn value_at(self, kv_head: usize) -> usize {
        (self.query + self.key_value + kv_head) * self.dim
    }
}
