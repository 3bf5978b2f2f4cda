//! The order in which patches go through a vision tower: windows are runs of rows. A tower without windows has one window an image.

use crate::Result;
use crate::model::sequence::ImageInput;
use crate::nn::SpanGroup;
use candle_core::{Device, Tensor};
use std::ops::Range;
use std::sync::Arc;

/// The order in which the merged patches ("units") of a batch of images go through the tower
/// (transformers' `get_window_index`).
pub struct WindowOrder {
    /// (image, unit of the image in reading order) of each row group.
    units: Vec<(usize, usize)>,
    /// Patches of a unit.
    unit: usize,
    /// For each image, the row group of each of its units.
    pub places: Vec<Vec<u32>>,
    /// Patch rows of each window.
    pub windows: Vec<Range<usize>>,
    /// Patch rows of each frame of each image.
    pub frames: Vec<Range<usize>>,
    /// Row and column of each patch in its image.
    pub positions: Vec<[u32; 2]>,
}

/// A window as large as any image.
pub const WHOLE_IMAGES: usize = usize::MAX;

impl WindowOrder {
    /// Of images whose `merge` x `merge` patches become one token, in windows of `window` x `window` tokens.
    pub fn new(images: &[Arc<ImageInput>], merge: usize, window: usize) -> Self {
        let unit = merge * merge;
        let mut order = WindowOrder {
            units: Vec::new(),
            unit,
            places: Vec::new(),
            windows: Vec::new(),
            frames: Vec::new(),
            positions: Vec::new(),
        };
        for (image, [t, h, w]) in images.iter().map(|image| image.grid).enumerate() {
            let (h, w) = (h / merge, w / merge);
            let mut places = vec![0; t * h * w];
            for frame in 0..t {
                let frame_start = order.units.len() * unit;
                for top in (0..h).step_by(window) {
                    for left in (0..w).step_by(window) {
                        let start = order.units.len() * unit;
                        for row in top..top.saturating_add(window).min(h) {
                            for column in left..left.saturating_add(window).min(w) {
                                let index = (frame * h + row) * w + column;
                                places[index] = order.units.len() as u32;
                                order.units.push((image, index));
                                order.positions.extend(
                                    (0..unit).map(|i| {
                                        [(row * merge + i / merge) as u32, (column * merge + i % merge) as u32]
                                    }),
                                );
                            }
                        }
                        order.windows.push(start..order.units.len() * unit);
                    }
                }
                order.frames.push(frame_start..order.units.len() * unit);
            }
            order.places.push(places);
        }
        order
    }

    /// The patches of the images, `[rows, patch_len]`, in this order.
    pub fn pixels(&self, images: &[Arc<ImageInput>], patch_len: usize, device: &Device) -> Result<Tensor> {
        let floats = self.unit * patch_len;
        let mut pixels = Vec::with_capacity(self.units.len() * floats);
        for &(image, unit) in &self.units {
            pixels.extend_from_slice(&images[image].patches[unit * floats..(unit + 1) * floats]);
        }
        let rows = self.units.len() * self.unit;
        Ok(Tensor::from_vec(pixels, (rows, patch_len), device)?)
    }
}

/// Rows that see each other, from runs of rows.
pub fn spans(runs: &[Range<usize>]) -> Arc<Vec<SpanGroup>> {
    Arc::new(runs.iter().map(|run| SpanGroup::single(run.clone(), false)).collect())
}
