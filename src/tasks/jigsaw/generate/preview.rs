//! The contact sheet: each puzzle by its id, the shuffled tiles apart with their numbers above them, and beside them the picture restored from
//! the answer. It is made from the dataset on disk, with the parser that scores models, so it shows what is scored. Nothing is written over
//! a picture.

use super::stream::PuzzleStream;
use crate::data::canvas::{Color, draw_text, text_width};
use crate::data::{Dataset, Inspection, Manifest, OpenStream, Record};
use crate::io::files;
use crate::io::text::wrapped;
use crate::tasks::jigsaw::{self, Grid};
use crate::tasks::response::answer_block;
use crate::tasks::split::SPLITS;
use crate::{Error, Result};
use image::{Rgb, RgbImage, imageops};
use std::path::{Path, PathBuf};

const PAPER: Rgb<u8> = Rgb([250, 250, 248]);
const INK: Color = [20, 20, 20];
const GREY: Color = [90, 90, 90];
const TILE: Color = [0, 120, 55];
const SEEN_FROM: Color = [185, 80, 0];
/// Space around and between pictures.
const GAP: u32 = 12;
/// Space between tiles.
const SEAM: u32 = 6;
/// Width of the frame around a tile that the question names; it lies in the seam.
const FRAME: u32 = 2;
/// Small puzzles are enlarged towards this width.
const PICTURE: u32 = 168;
/// Pairs of pictures beside each other.
const COLUMNS: u32 = 4;
/// Most puzzles on a sheet.
const MAX_PUZZLES: usize = 200;
/// Index of the font (Hack, a monospaced one), size of its letters, and height of a line, in pixels.
const FONT: usize = 2;
const LETTERS: f32 = 14.0;
const LINE: u32 = 18;

/// Write `preview.png` with the first `count` puzzles (at most 200) into the dataset directory `dir`; returns its path.
pub fn write_preview(dir: &Path, manifest: &Manifest, count: usize) -> Result<PathBuf> {
    let mut panels: Vec<RgbImage> = Vec::new();
    for split in SPLITS.into_iter().filter(|s| manifest.splits.contains_key(*s)) {
        let open_stream: OpenStream = |path| Ok(Box::new(PuzzleStream::open(path)?));
        let dataset = Dataset::open_with(dir, split, open_stream, Inspection::NONE)?;
        let wanted = count.min(MAX_PUZZLES) - panels.len();
        for i in 0..wanted.min(dataset.len()) {
            let (record, image) = (dataset.record(i)?, dataset.images(i)?.remove(0));
            panels.push(panel(&record, &image).map_err(|e| e.context(format!("preview of `{}`", record.id)))?);
        }
    }
    let path = dir.join("preview.png");
    let mut bytes = std::io::Cursor::new(Vec::new());
    sheet(&panels)
        .write_to(&mut bytes, image::ImageFormat::Png)
        .map_err(|e| Error::failed(format!("cannot encode {}: {e}", path.display())))?;
    files::write_atomic(&path, bytes.get_ref())?;
    Ok(path)
}

/// The id; the shuffled tiles beside the restored picture; the answer.
fn panel(record: &Record, image: &RgbImage) -> Result<RgbImage> {
    let broken = |what: &str| Error::failed(format!("the record's {what} cannot be read back"));
    let text = |field: &str| record.meta.get(field).and_then(|v| v.as_str());
    let grid: Grid = text("grid").ok_or_else(|| broken("meta.grid"))?.parse()?;
    let answer = record.response().and_then(|r| answer_block(r).ok()).ok_or_else(|| broken("response"))?;
    let pair: Option<Vec<usize>> = record.meta.get("tiles").and_then(|v| serde_json::from_value(v.clone()).ok());
    let order = if pair.is_some() { text("order").ok_or_else(|| broken("meta.order"))? } else { answer };
    let permutation = jigsaw::permutation_answer(order, grid.tiles()).map_err(|fault| broken(&fault.to_string()))?;

    let zoom = (PICTURE / image.width().max(1)).max(1);
    let enlarge =
        |i: &RgbImage| imageops::resize(i, i.width() * zoom, i.height() * zoom, imageops::FilterType::Nearest);
    let shuffled = apart(&enlarge(image), grid, |place| Some((place + 1, INK)));
    let whole = enlarge(&jigsaw::restore(image, grid, &permutation));
    let (restored, caption) = match pair.as_deref() {
        Some(&[tile, seen_from]) if (1..=grid.tiles()).contains(&tile) && (1..=grid.tiles()).contains(&seen_from) => {
            let named = |place: usize| match permutation.places()[place] + 1 {
                n if n == tile => Some((n, TILE)),
                n if n == seen_from => Some((n, SEEN_FROM)),
                _ => None,
            };
            let choice = record.messages[0].content.lines().find(|line| line.starts_with(&format!("{answer}. ")));
            let choice = choice.ok_or_else(|| broken("choice"))?;
            (apart(&whole, grid, named), format!("tile {tile} seen from {seen_from}: {choice}"))
        }
        _ => (whole, format!("answer: {answer}")),
    };
    let width = shuffled.width() + GAP + restored.width();
    let lines = wrapped(&caption, |line| text_width(line, FONT, LETTERS) <= width as f32);
    let height = LINE + shuffled.height().max(restored.height()) + GAP / 2 + lines.len() as u32 * LINE;
    let mut panel = RgbImage::from_pixel(width, height, PAPER);
    line(&mut panel, &record.id, 0, 0, GREY);
    // Both end at the same height.
    let bottom = LINE + shuffled.height().max(restored.height());
    imageops::replace(&mut panel, &shuffled, 0, i64::from(bottom - shuffled.height()));
    let left = i64::from(shuffled.width() + GAP);
    imageops::replace(&mut panel, &restored, left, i64::from(bottom - restored.height()));
    for (i, text) in (0u32..).zip(&lines) {
        line(&mut panel, text, 0, bottom + GAP / 2 + i * LINE, INK);
    }
    Ok(panel)
}

/// The cells of a picture apart from each other; a cell with a label has its number above it, and a frame of the label's colour unless it is ink.
fn apart(image: &RgbImage, grid: Grid, label: impl Fn(usize) -> Option<(usize, Color)>) -> RgbImage {
    let (cols, rows) = (grid.cols() as u32, grid.rows() as u32);
    let (width, height) = (image.width() / cols, image.height() / rows);
    let (step_x, step_y) = (width + SEAM, height + SEAM + LINE);
    let mut sheet = RgbImage::from_pixel(cols * step_x, rows * step_y, PAPER);
    for cell in 0..grid.tiles() {
        let (row, col) = grid.place(cell);
        let (left, top) = (col as u32 * step_x + SEAM / 2, row as u32 * step_y + LINE + SEAM / 2);
        if let Some((number, color)) = label(cell) {
            line(&mut sheet, &number.to_string(), left, top - LINE - FRAME, color);
            if color != INK {
                let frame = RgbImage::from_pixel(width + 2 * FRAME, height + 2 * FRAME, Rgb(color));
                imageops::replace(&mut sheet, &frame, i64::from(left - FRAME), i64::from(top - FRAME));
            }
        }
        let tile = imageops::crop_imm(image, col as u32 * width, row as u32 * height, width, height).to_image();
        imageops::replace(&mut sheet, &tile, i64::from(left), i64::from(top));
    }
    sheet
}

/// A line of text whose cell begins at `(left, top)`.
fn line(image: &mut RgbImage, text: &str, left: u32, top: u32, color: Color) {
    draw_text(image, text, FONT, LETTERS, left as f32, (top + LINE / 2) as f32, color);
}

/// The panels, [`COLUMNS`] to a line.
fn sheet(panels: &[RgbImage]) -> RgbImage {
    let width = panels.iter().map(RgbImage::width).max().unwrap_or(1);
    let height = panels.iter().map(RgbImage::height).max().unwrap_or(1);
    let columns = COLUMNS.min(panels.len() as u32).max(1);
    let rows = (panels.len() as u32).div_ceil(columns).max(1);
    let (step_x, step_y) = (width + 2 * GAP, height + 2 * GAP);
    let mut sheet = RgbImage::from_pixel(columns * step_x + GAP, rows * step_y + GAP, PAPER);
    for (i, panel) in (0u32..).zip(panels) {
        let (x, y) = (GAP + i % columns * step_x, GAP + i / columns * step_y);
        imageops::replace(&mut sheet, panel, i64::from(x), i64::from(y));
    }
    sheet
}
