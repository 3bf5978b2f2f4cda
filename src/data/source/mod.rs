//! Image files of the user: listing a folder, reading headers, decoding. A file that cannot be used gives a reason, never a panic.

mod attribution;
mod decode;
mod jpeg;
mod rgb;
mod walk;

pub use attribution::attribution;
#[cfg(feature = "parquet")]
pub(super) use decode::guarded;
pub use decode::{MAX_FILE_BYTES, MAX_PIXELS, PixelBudget, decode, probe, probe_header, read};
pub use rgb::to_rgb;
pub use walk::{SourceFile, walk};
