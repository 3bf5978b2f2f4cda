//! Dataset directories in and out: the records on disk, the images they are made from, the sampler and its cursor.

pub mod canvas;
pub mod source;
pub mod tsv;

mod dataset;
mod image_sizes;
mod jsonl;
mod manifest;
mod mix;
mod own_records;
mod png;
mod record;
mod record_file;
mod record_stream;
mod resize;
mod sampler;
mod stored_records;
mod writer;

pub use dataset::{Dataset, is_dataset};
pub use manifest::{Attribution, MANIFEST, Manifest, Skipped, SplitSummary};
pub use mix::{MixPart, mix, parse_part};
pub use record::{Digest, IMAGE_PLACEHOLDER, Inspection, METADATA, Message, Record, Seen, rough_size};
pub use record_stream::{OpenStream, RecordStream, STREAM};
pub use resize::resize;
pub use sampler::{Cursor, ExampleSampler};
pub use stored_records::Embedded;
pub use writer::{DatasetWriter, dataset_names};
