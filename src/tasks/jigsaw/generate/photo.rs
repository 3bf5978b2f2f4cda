//! What puzzles are cut from: a photo, or a synthetic scene in its place.

use crate::tasks::jigsaw::Grid;
use std::path::PathBuf;

/// Fewest pixels of the photo that a tile is cut from, each way. Less shows nothing.
pub const MIN_SOURCE_TILE: u32 = 8;

/// A photo or scene that is used.
#[derive(Debug, Clone)]
pub struct Photo {
    /// Where it is.
    pub source: ImageSource,
    /// Path relative to the images folder.
    pub name: String,
    /// SHA-256 of the file.
    pub hash: [u8; 32],
    /// Width and height in pixels.
    pub size: (u32, u32),
}

impl Photo {
    /// Is it a synthetic scene?
    pub fn is_scene(&self) -> bool {
        matches!(self.source, ImageSource::Scene(_))
    }
}

/// Where a photo comes from.
#[derive(Debug, Clone)]
pub enum ImageSource {
    /// A file.
    File(PathBuf),
    /// The synthetic scene of this number.
    Scene(u64),
}

/// Can a photo of this size give puzzles of this grid?
pub fn check_size(size: (u32, u32), grid: Grid) -> std::result::Result<(), String> {
    if largest_unit(size, grid) < MIN_SOURCE_TILE {
        return Err(format!(
            "{} x {} pixels is too small for {grid} tiles of at least {MIN_SOURCE_TILE} pixels",
            size.0, size.1
        ));
    }
    Ok(())
}

/// Side in photo pixels of a tile of the largest crop with the grid's aspect.
pub fn largest_unit((width, height): (u32, u32), grid: Grid) -> u32 {
    (width / grid.cols() as u32).min(height / grid.rows() as u32)
}
