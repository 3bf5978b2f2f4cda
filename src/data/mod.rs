//! Dataset directories in and out: the records on disk, the images they are made from, the sampler and its cursor.

pub mod canvas;
pub mod source;
pub mod tsv;

mod dataset;
mod jsonl;
mod manifest;
mod mix;
mod png;
mod record;
mod record_stream;
mod resize;
mod sampler;
mod writer;

pub use dataset::{Dataset, is_dataset};
pub use manifest::{Attribution, MANIFEST, Manifest, Skipped, SplitSummary};
pub use mix::{MixPart, mix, parse_part};
pub use record::{Digest, IMAGE_PLACEHOLDER, METADATA, Message, Record};
pub use record_stream::{OpenStream, RecordStream, STREAM};
pub use resize::resize;
pub use sampler::{Cursor, ExampleSampler};
pub use writer::{DatasetWriter, dataset_names};
