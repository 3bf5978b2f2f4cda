//! Which rows attend to which.

use std::ops::Range;

/// Query rows of one span and the rows they attend to.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Query rows; they are keys for each other.
    pub rows: Range<usize>,
    /// Rows of the same span group to which every query row attends; may be empty.
    pub prefix: Range<usize>,
    /// Whether a row attends only to rows of the span up to itself, or to all of them.
    pub causal: bool,
}

/// Spans that attend to rows of one another, and to a prefix of another group that they all share.
#[derive(Debug, Clone, PartialEq)]
pub struct SpanGroup {
    /// Rows of another span group, to which every span attends first; may be empty. That group attends to no row of this one.
    pub shared_prefix: Range<usize>,
    /// The spans.
    pub spans: Vec<Span>,
}

impl SpanGroup {
    /// A group of one span without a prefix.
    pub fn single(rows: Range<usize>, causal: bool) -> Self {
        let prefix = rows.start..rows.start;
        SpanGroup { shared_prefix: prefix.clone(), spans: vec![Span { rows, prefix, causal }] }
    }
}
