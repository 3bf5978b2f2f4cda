//! Images from outside: finding them in a folder, looking at their headers, decoding them. Whatever a file holds, the worst
//! that happens is a reason for leaving it out.

mod attribution;
mod decode;
mod jpeg;
mod rgb;
mod walk;

pub use attribution::attribution;
#[cfg(feature = "parquet")]
pub(super) use decode::guarded;
pub use decode::{MAX_FILE_BYTES, MAX_PIXELS, PixelBudget, decode, probe, probe_start, read};
pub use rgb::to_rgb;
pub use walk::{SourceFile, walk};
