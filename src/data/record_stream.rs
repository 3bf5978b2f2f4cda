//! Records that are made when they are asked for: a split without a gigabyte of images.

use super::Record;
use crate::Result;
use image::RgbImage;
use std::fmt::Debug;
use std::path::Path;

/// The file of a split, in place of its records, that says how they are made.
pub const STREAM: &str = "stream.json";

/// Makes the records of a split. A record is a function of its number, whatever was asked for before and on whichever thread.
pub trait RecordStream: Debug + Send + Sync {
    /// Number of records.
    fn count(&self) -> usize;
    /// Record `i`.
    ///
    /// # Errors
    /// An input error if a source has changed.
    fn record(&self, i: usize) -> Result<Record>;
    /// The images of record `i`.
    ///
    /// # Errors
    /// As [`RecordStream::record`].
    fn images(&self, i: usize) -> Result<Vec<RgbImage>>;
    /// Width and height of the images of record `i`.
    fn image_sizes(&self, i: usize) -> Vec<(u32, u32)>;
    /// How many of the first records are as large as any: of all of them, the longest text and the largest image is among these.
    fn measured(&self) -> usize;
}

/// Opens the stream that a [`STREAM`] file describes.
pub type OpenStream = fn(&Path) -> Result<Box<dyn RecordStream>>;
