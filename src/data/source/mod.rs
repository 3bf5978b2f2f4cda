//! Images from outside: finding them in a folder, looking at their headers, decoding them. Whatever a file holds, the worst
//! that happens is a reason for leaving it out.

mod attribution;
mod decode;
mod jpeg;
mod walk;

pub use attribution::attribution;
pub use decode::{MAX_FILE_BYTES, MAX_PIXELS, PixelBudget, decode, probe, read};
pub use walk::{SourceFile, walk};
