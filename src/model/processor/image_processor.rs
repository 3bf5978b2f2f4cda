//! Image -> patches, as the published `preprocessor_config.json` says.
//!
//! The reference is transformers 5's `Qwen2VLImageProcessorPil` (its torchvision twin differs in the last digit):
//! resize to a multiple of the merged patch, rescale in f64 and round to f32, normalise in f32, repeat the frame, and lay
//! the patches out so that those that the merger joins are neighbours. The values are equal bit by bit.

use super::pillow_bicubic;
use crate::io::files;
use crate::model::ImageInput;
use crate::model::json_fields::Fields;
use crate::{Error, Result};
use image::RgbImage;
use std::path::Path;

/// Defaults of transformers' image processor: the fewest and most pixels after resizing.
const DEFAULT_PIXELS: (usize, usize) = (56 * 56, 28 * 28 * 1280);
/// Most pixels of a resized image that can be asked for: 16,384 tokens, `max_pixels` of the published checkpoints of Qwen2-VL.
pub const MAX_PIXELS: usize = 16_384 * 28 * 28;
/// Default mean and standard deviation of the channels (CLIP's).
const DEFAULT_MEAN: [f64; 3] = [0.48145466, 0.4578275, 0.40821073];
const DEFAULT_STD: [f64; 3] = [0.26862954, 0.26130258, 0.27577711];
/// Longest side over shortest side from which transformers refuses an image.
const MAX_ASPECT: f64 = 200.0;
/// Pillow's number for bicubic.
const PILLOW_BICUBIC: usize = 3;
/// What the names of image processors that work like this one begin with.
const TYPES: [&str; 2] = ["Qwen2VLImageProcessor", "Qwen2_5_VLImageProcessor"];
/// The keys of `size` that are bounds: transformers' own and those of its version 4.
const SIZE_KEYS: [&str; 4] = ["shortest_edge", "longest_edge", "min_pixels", "max_pixels"];

/// The image preprocessor of a checkpoint.
#[derive(Debug, Clone)]
pub struct ImageProcessor {
    /// Fewest pixels of a resized image.
    pub min_pixels: usize,
    /// Most pixels of a resized image.
    pub max_pixels: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Times that a still image is repeated in a patch.
    pub temporal_patch_size: usize,
    /// Side, in patches, of the square that becomes one token.
    pub merge_size: usize,
    /// Mean of each channel, in [0, 1].
    pub mean: [f64; 3],
    /// Standard deviation of each channel.
    pub std: [f64; 3],
    /// The normalised value of each byte, by channel.
    values: [[f32; 256]; 3],
}

impl ImageProcessor {
    /// Read the settings of a checkpoint directory: the `image_processor` of `processor_config.json` (transformers 5) or
    /// `preprocessor_config.json`.
    ///
    /// # Errors
    /// An input error that names the file and the field, for a missing file or a setting that is not supported.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let unified = dir.join("processor_config.json");
        if unified.exists() {
            let value: serde_json::Value = files::read_json(&unified)?;
            let fields = Fields::root(&value).and_then(|root| root.section("image_processor"));
            if let Some(fields) = fields.map_err(|e| e.context(unified.display()))? {
                return Self::from_fields(&fields).map_err(|e| e.context(unified.display()));
            }
        }
        let path = dir.join("preprocessor_config.json");
        if !path.exists() {
            return Err(Error::input(format!(
                "{} not found: it holds the image settings; copy it from the checkpoint that this one was made from, \
                 or save that checkpoint's processor here with transformers' `AutoProcessor`",
                path.display()
            )));
        }
        let value: serde_json::Value = files::read_json(&path)?;
        Fields::root(&value).and_then(|fields| Self::from_fields(&fields)).map_err(|e| e.context(path.display()))
    }

    fn from_fields(f: &Fields) -> Result<Self> {
        for step in ["do_resize", "do_rescale", "do_normalize"] {
            if f.boolean(step)? == Some(false) {
                return Err(f.error(step, "false is not supported; Qwen2.5-VL needs every preprocessing step"));
            }
        }
        if let Some(filter) = f.count("resample")?
            && filter != PILLOW_BICUBIC
        {
            return Err(f.error("resample", format!("filter {filter} is not supported; only 3 (bicubic) is")));
        }
        if let Some(kind) = f.string("image_processor_type")?
            && !TYPES.iter().any(|name| kind.starts_with(name))
        {
            return Err(f.error("image_processor_type", format!("`{kind}` is not supported; only {} is", TYPES[0])));
        }
        let size = f.section("size")?;
        if let Some(key) = size.iter().flat_map(Fields::keys).find(|key| !SIZE_KEYS.contains(key)) {
            return Err(f.error(
                &format!("size.{key}"),
                "is not supported, nor is it by transformers for this family: images keep their shape, and their size is bounded by \
                 size.shortest_edge and size.longest_edge, the fewest and most pixels",
            ));
        }
        // transformers: the top-level name wins; `size` has had both spellings, and must have both bounds.
        let bound = |top: &str, edge: &str, default: usize| -> Result<usize> {
            if let Some(pixels) = f.positive(top)? {
                return Ok(pixels);
            }
            let Some(size) = &size else { return Ok(default) };
            let pixels = size.positive(edge)?.or(size.positive(top)?);
            pixels.ok_or_else(|| f.error("size", format!("has no {edge}; it needs shortest_edge and longest_edge")))
        };
        let min_pixels = bound("min_pixels", "shortest_edge", DEFAULT_PIXELS.0)?;
        let max_pixels = bound("max_pixels", "longest_edge", DEFAULT_PIXELS.1)?;
        if min_pixels > MAX_PIXELS {
            return Err(
                f.error("min_pixels", format!("{min_pixels} is more than the {MAX_PIXELS} that an image can have"))
            );
        }
        if min_pixels > max_pixels {
            return Err(f.error("min_pixels", format!("{min_pixels} is more than max_pixels {max_pixels}")));
        }
        let rescale = f.positive_number("rescale_factor")?.unwrap_or(1.0 / 255.0);
        let channels = |key: &str, default: [f64; 3]| -> Result<[f64; 3]> {
            let Some(numbers) = f.numbers(key)? else { return Ok(default) };
            <[f64; 3]>::try_from(numbers)
                .map_err(|n| f.error(key, format!("has {} numbers, one per channel is 3", n.len())))
        };
        let (mean, std) = (channels("image_mean", DEFAULT_MEAN)?, channels("image_std", DEFAULT_STD)?);
        if std.iter().any(|&s| s <= 0.0) {
            return Err(f.error("image_std", format!("{std:?} must be above 0")));
        }
        Ok(ImageProcessor {
            min_pixels,
            max_pixels,
            patch_size: f.square("patch_size")?.unwrap_or(14),
            temporal_patch_size: f.square("temporal_patch_size")?.unwrap_or(2),
            merge_size: f.positive("merge_size")?.unwrap_or(2),
            mean,
            std,
            values: std::array::from_fn(|c| {
                std::array::from_fn(|byte| ((byte as f64 * rescale) as f32 - mean[c] as f32) / std[c] as f32)
            }),
        })
    }

    /// Side, in pixels, of the square that becomes one token.
    pub fn factor(&self) -> usize {
        self.patch_size * self.merge_size
    }

    /// `(width, height)` that an image of `width` x `height` pixels is resized to.
    pub fn resized(&self, width: u32, height: u32) -> Result<(u32, u32)> {
        smart_resize(width, height, self.factor(), self.min_pixels, self.max_pixels)
    }

    /// Patches of a resized image of `width` x `height` pixels: frames, rows, columns.
    pub fn grid(&self, (width, height): (u32, u32)) -> [usize; 3] {
        [1, height as usize / self.patch_size, width as usize / self.patch_size]
    }

    /// Numbers of a patch.
    pub fn patch_len(&self) -> usize {
        3 * self.temporal_patch_size * self.patch_size * self.patch_size
    }

    /// Image tokens of an image of `width` x `height` pixels.
    pub fn tokens(&self, width: u32, height: u32) -> Result<usize> {
        let (width, height) = self.resized(width, height)?;
        Ok((width as usize / self.factor()) * (height as usize / self.factor()))
    }

    /// Image tokens of a preprocessed image.
    pub fn tokens_of(&self, grid: [usize; 3]) -> usize {
        grid.iter().product::<usize>() / (self.merge_size * self.merge_size)
    }

    /// Resize, normalise and cut an image into patches.
    pub fn process(&self, image: &RgbImage) -> Result<ImageInput> {
        let (width, height) = self.resized(image.width(), image.height())?;
        let resized;
        let pixels = if (width, height) == image.dimensions() {
            image
        } else {
            resized = pillow_bicubic::bicubic(image, width, height);
            &resized
        };
        let [frames, rows, columns] = self.grid((width, height));
        Ok(ImageInput { patches: self.patchify(pixels.as_raw(), rows, columns), grid: [frames, rows, columns] })
    }

    /// Patches in merge order: by merged row, merged column, row and column within the square; the values of each by
    /// channel, frame, row, column.
    fn patchify(&self, pixels: &[u8], rows: usize, columns: usize) -> Vec<f32> {
        let (patch, merge) = (self.patch_size, self.merge_size);
        let frame = patch * patch;
        let line = columns * patch * 3;
        let mut out = Vec::with_capacity(rows * columns * self.patch_len());
        for merged_row in 0..rows / merge {
            for merged_column in 0..columns / merge {
                for (row, column) in (0..merge).flat_map(|r| (0..merge).map(move |c| (r, c))) {
                    let top = (merged_row * merge + row) * patch;
                    let left = (merged_column * merge + column) * patch;
                    for (channel, values) in self.values.iter().enumerate() {
                        let start = out.len();
                        for y in top..top + patch {
                            let from = y * line + left * 3;
                            let bytes = pixels[from..from + patch * 3].chunks_exact(3);
                            out.extend(bytes.map(|pixel| values[usize::from(pixel[channel])]));
                        }
                        for _ in 1..self.temporal_patch_size {
                            out.extend_from_within(start..start + frame);
                        }
                    }
                }
            }
        }
        out
    }
}

/// `(width, height)` that an image is resized to: multiples of `factor`, the area within the bounds, the aspect ratio kept
/// as far as that allows. Source: `smart_resize` of Qwen2-VL, with Python's round-half-to-even.
///
/// # Errors
/// An input error for an image without pixels, or one more than 200 times as long as wide.
pub fn smart_resize(
    width: u32,
    height: u32,
    factor: usize,
    min_pixels: usize,
    max_pixels: usize,
) -> Result<(u32, u32)> {
    if width == 0 || height == 0 {
        return Err(Error::input(format!("an image of {width} x {height} pixels has nothing to see")));
    }
    let (w, h, factor) = (f64::from(width), f64::from(height), factor as f64);
    let aspect = w.max(h) / w.min(h);
    if aspect > MAX_ASPECT {
        return Err(Error::input(format!(
            "an image of {width} x {height} pixels is {aspect:.0} times as long as wide; at most {MAX_ASPECT} is allowed"
        )));
    }
    let mut to_w = (w / factor).round_ties_even() * factor;
    let mut to_h = (h / factor).round_ties_even() * factor;
    if to_w * to_h > max_pixels as f64 {
        let beta = (h * w / max_pixels as f64).sqrt();
        to_w = ((w / beta / factor).floor() * factor).max(factor);
        to_h = ((h / beta / factor).floor() * factor).max(factor);
    } else if to_w * to_h < min_pixels as f64 {
        let beta = (min_pixels as f64 / (h * w)).sqrt();
        to_w = (w * beta / factor).ceil() * factor;
        to_h = (h * beta / factor).ceil() * factor;
    }
    Ok((to_w as u32, to_h as u32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn published() -> ImageProcessor {
        read(json!({"min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14, "temporal_patch_size": 2,
            "merge_size": 2, "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711], "image_processor_type": "Qwen2VLImageProcessor"}))
        .unwrap()
    }

    fn read(value: serde_json::Value) -> Result<ImageProcessor> {
        ImageProcessor::from_fields(&Fields::root(&value)?)
    }

    /// Recorded with transformers 5.23.0: `smart_resize(height, width, 28, min_pixels, max_pixels)`, sides swapped.
    #[test]
    fn sizes_equal_those_of_transformers() {
        for ((w, h), (min, max), expected) in [
            ((640, 480), (3136, 12845056), (644, 476)),
            ((480, 640), (3136, 1003520), (476, 644)),
            ((84, 84), (784, 200704), (84, 84)),
            ((56, 56), (784, 200704), (56, 56)),
            ((56, 56), (3136, 1003520), (56, 56)),
            ((10, 10), (3136, 12845056), (56, 56)),
            ((1, 1), (784, 200704), (28, 28)),
            ((4000, 3000), (3136, 1003520), (1148, 840)),
            ((5000, 30), (3136, 1003520), (5012, 28)),
            ((13, 900), (784, 200704), (28, 252)),
            ((42, 70), (784, 200704), (56, 56)),
            ((333, 251), (3136, 1003520), (336, 252)),
            ((97, 103), (6272, 12544), (84, 112)),
            ((40000, 40000), (3136, 12845056), (3556, 3556)),
            ((1999, 10), (784, 784), (420, 28)),
        ] {
            assert_eq!(smart_resize(w, h, 28, min, max).unwrap(), expected, "{w} x {h} in {min}..{max}");
        }
    }

    #[test]
    fn halves_round_to_even_as_in_python() {
        // 42 / 28 = 1.5 rounds to 2, 70 / 28 = 2.5 rounds to 2, 98 / 28 = 3.5 rounds to 4.
        for (side, expected) in [(42, 56), (70, 56), (98, 112), (126, 112)] {
            assert_eq!(smart_resize(side, 280, 28, 1, 1 << 30).unwrap().0, expected);
        }
    }

    #[test]
    fn an_image_too_long_or_empty_is_refused() {
        assert!(smart_resize(200, 1, 28, 1, 1000).is_ok());
        let error = smart_resize(201, 1, 28, 1, 1000).unwrap_err().to_string();
        assert!(error.contains("201 x 1 pixels is 201 times"), "{error}");
        assert!(smart_resize(0, 5, 28, 1, 1000).is_err());
    }

    #[test]
    fn both_spellings_of_the_pixel_bounds_are_read() {
        let bounds = |value| read(value).map(|p| (p.min_pixels, p.max_pixels)).unwrap();
        assert_eq!(bounds(json!({"min_pixels": 784, "max_pixels": 7840})), (784, 7840));
        assert_eq!(bounds(json!({"size": {"shortest_edge": 784, "longest_edge": 7840}})), (784, 7840));
        assert_eq!(bounds(json!({"size": {"min_pixels": 784, "max_pixels": 7840}})), (784, 7840));
        assert_eq!(bounds(json!({"min_pixels": 1, "size": {"shortest_edge": 784, "longest_edge": 7840}})), (1, 7840));
        assert_eq!(bounds(json!({})), (3136, 1003520));
    }

    #[test]
    fn settings_that_cannot_be_honoured_are_refused_by_name() {
        for (value, expected) in [
            (json!({"resample": 2}), "resample: filter 2"),
            (json!({"do_resize": false}), "do_resize: false"),
            (json!({"min_pixels": 100, "max_pixels": 99}), "min_pixels: 100 is more than max_pixels 99"),
            (json!({"image_mean": [0.5]}), "image_mean: has 1 numbers"),
            (json!({"image_std": [0.5, 0.0, 0.5]}), "image_std: "),
            (json!({"size": {"height": 56, "width": 56}}), "size.height: is not supported"),
            (json!({"min_pixels": 784, "size": {"max_height": 56}}), "size.max_height: is not supported"),
            (json!({"size": {"longest_edge": 7840}}), "size: has no shortest_edge"),
            (json!({"size": 224}), "size: must be an object"),
            (
                json!({"image_processor_type": "CLIPImageProcessor"}),
                "image_processor_type: `CLIPImageProcessor` is not",
            ),
        ] {
            let error = read(value).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn neighbours_of_a_merged_square_are_neighbours_in_the_patches() {
        // One grey level per patch of a 4 x 4 grid, numbered in reading order.
        let image = RgbImage::from_fn(56, 56, |x, y| image::Rgb([(y / 14 * 4 + x / 14) as u8; 3]));
        let input = published().process(&image).unwrap();
        assert_eq!((input.grid, input.patches.len()), ([1, 4, 4], 16 * 1176));
        let first = |level: usize| published().values[0][level];
        let order: Vec<f32> = input.patches.chunks(1176).map(|patch| patch[0]).collect();
        assert_eq!(order, [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15].map(first));
    }

    #[test]
    fn a_patch_holds_channel_then_frame_then_row() {
        let image = RgbImage::from_fn(56, 56, |x, y| image::Rgb([x as u8, y as u8, 200]));
        let processor = published();
        let patch = &processor.process(&image).unwrap().patches[..1176];
        assert_eq!(patch[..196], patch[196..392], "both frames are the same");
        assert_eq!(patch[15], processor.values[0][1], "red follows the column");
        assert_eq!(patch[392 + 15], processor.values[1][1], "green follows the row");
        assert!(patch[784..].iter().all(|&v| v == processor.values[2][200]));
    }
}
