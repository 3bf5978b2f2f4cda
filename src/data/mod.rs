//! Dataset directories in and out: the records on disk, the sampler and its cursor.

mod record;

pub use record::{Message, Record};
