//! Dataset directories in and out: the records on disk, the images they are made from, the sampler and its cursor.

pub mod draw;
pub mod source;
pub mod tsv;

mod dataset;
mod jsonl;
mod manifest;
mod png;
mod record;
mod resize;
mod sampler;
mod writer;

pub use dataset::Dataset;
pub use manifest::{Attribution, MANIFEST, Manifest, Skipped, SplitSummary};
pub use record::{Digest, Message, Record};
pub use resize::resize;
pub use sampler::{Cursor, Sampler};
pub use writer::DatasetWriter;

use std::path::Path;

/// The file of a split that holds its records, one JSON object a line.
pub const METADATA: &str = "metadata.jsonl";
/// Stands in a message for the next image of the record.
pub const IMAGE_PLACEHOLDER: &str = "<image>";

/// Whether a path names what [`Dataset::open`] reads, a directory or a `.jsonl` file, rather than the file of a benchmark.
pub fn is_dataset(path: &Path) -> bool {
    path.is_dir() || jsonl::is_jsonl(path)
}
