//! Dataset directories in and out: the records on disk, the images they are made from, the sampler and its cursor.

pub mod generate;
pub mod source;
pub mod tsv;

mod dataset;
mod deflate;
mod manifest;
mod png;
mod record;
mod sampler;
mod writer;

pub use dataset::Dataset;
pub use manifest::{Attribution, MANIFEST, Manifest, Skipped, SplitSummary};
pub use record::{Message, Record};
pub use sampler::{Cursor, Sampler};
pub use writer::{DatasetWriter, Digest};

/// The file of a split that holds its records, one JSON object a line.
pub const METADATA: &str = "metadata.jsonl";
/// Stands in a message for the next image of the record.
pub const IMAGE_PLACEHOLDER: &str = "<image>";
