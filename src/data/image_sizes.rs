//! Sizes of image files, from their headers.

use super::source;
use crate::io::files;
use std::collections::HashMap;
use std::io::Read as _;
use std::path::Path;
use std::sync::{PoisonError, RwLock};

/// Bytes of an image file read first for its size; most formats hold it there.
const HEADER_BYTES: u64 = 16 << 10;
/// Images whose sizes are held, because several records may have the same one.
const HELD: usize = 4096;

/// The sizes of the images below a directory, as far as they were looked at.
#[derive(Debug, Default)]
pub(super) struct ImageSizes(RwLock<HashMap<String, (u32, u32)>>);

impl ImageSizes {
    /// Width and height of the image `name` in `root`; `None` of what is no readable image. Reads only the beginning of a file if it holds
    /// the size.
    pub fn of(&self, root: &Path, name: &str) -> Option<(u32, u32)> {
        if let Some(size) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Some(*size);
        }
        let path = root.join(name);
        let mut start = Vec::with_capacity(HEADER_BYTES as usize);
        files::open_regular(&path).ok()?.take(HEADER_BYTES).read_to_end(&mut start).ok()?;
        let size = source::probe_header(&start).or_else(|_| source::probe(&source::read(&path)?)).ok()?;
        let mut held = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if held.len() >= HELD {
            held.clear();
        }
        held.insert(name.to_string(), size);
        Some(size)
    }
}
