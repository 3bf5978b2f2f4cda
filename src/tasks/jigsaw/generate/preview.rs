//! The contact sheet: each puzzle shuffled, with its tiles numbered, beside the picture restored from the answer. It is made
//! from the dataset on disk, with the parser that scores models, so it shows what is scored.

use super::font;
use super::stream::PuzzleStream;
use crate::data::{Dataset, Manifest, OpenStream, Record};
use crate::io::files;
use crate::tasks::jigsaw::{self, Grid, Permutation};
use crate::tasks::response::answer_block;
use crate::tasks::split::SPLITS;
use crate::{Error, Result};
use image::{Rgb, RgbImage, imageops};
use std::path::{Path, PathBuf};

const PAPER: Rgb<u8> = Rgb([250, 250, 248]);
const INK: Rgb<u8> = Rgb([20, 20, 20]);
const WHITE: Rgb<u8> = Rgb([255, 255, 255]);
const TILE: Rgb<u8> = Rgb([0, 170, 80]);
const SEEN_FROM: Rgb<u8> = Rgb([230, 110, 0]);
/// Space around and between pictures.
const GAP: u32 = 10;
/// Small puzzles are enlarged towards this width.
const PICTURE: u32 = 168;
/// Pairs of pictures beside each other.
const COLUMNS: u32 = 4;
/// Most puzzles on a sheet.
const MAX_PUZZLES: usize = 200;

/// Write `preview.png` with the first `count` puzzles (at most 200) into the dataset directory `dir`; returns its path.
pub fn write_preview(dir: &Path, manifest: &Manifest, count: usize) -> Result<PathBuf> {
    let mut panels: Vec<RgbImage> = Vec::new();
    for split in SPLITS.into_iter().filter(|s| manifest.splits.contains_key(*s)) {
        let open_stream: OpenStream = |path| Ok(Box::new(PuzzleStream::open(path)?));
        let dataset = Dataset::open_with(dir, split, open_stream, |_, _| Ok(()))?;
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

/// Shuffled beside restored, and a line of text below.
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
    let mut shuffled = enlarge(image);
    let mut restored = enlarge(&jigsaw::restore(image, grid, &permutation));
    for place in 0..grid.tiles() {
        number(&mut shuffled, grid, place, place + 1, INK);
    }
    let caption = match pair.as_deref() {
        Some(&[tile, seen_from]) if (1..=grid.tiles()).contains(&tile) && (1..=grid.tiles()).contains(&seen_from) => {
            mark(&mut restored, grid, &permutation, tile, TILE);
            mark(&mut restored, grid, &permutation, seen_from, SEEN_FROM);
            let choice = record.messages[0].content.lines().find(|line| line.starts_with(&format!("{answer}. ")));
            format!("{tile} FROM {seen_from}: {}", choice.ok_or_else(|| broken("choice"))?)
        }
        _ => answer.to_owned(),
    };
    let (width, height) = shuffled.dimensions();
    let letters: Vec<char> = caption.chars().collect();
    let lines = letters.chunks(((2 * width + GAP) / font::ADVANCE).max(1) as usize);
    let line_height = font::HEIGHT + 3;
    let mut panel = RgbImage::from_pixel(2 * width + GAP, height + GAP + lines.len() as u32 * line_height, PAPER);
    imageops::replace(&mut panel, &shuffled, 0, 0);
    imageops::replace(&mut panel, &restored, i64::from(width + GAP), 0);
    for (i, line) in (0u32..).zip(lines) {
        font::draw(&mut panel, &line.iter().collect::<String>(), 0, height + GAP / 2 + i * line_height, 1, INK);
    }
    Ok(panel)
}

/// Outline tile number `tile` where it belongs and write its number there.
fn mark(restored: &mut RgbImage, grid: Grid, permutation: &Permutation, tile: usize, color: Rgb<u8>) {
    let cell = permutation.inverse().places()[tile - 1];
    let (left, top, width, height) = area(restored, grid, cell);
    for (x, y, w, h) in [
        (left, top, width, 2),
        (left, top + height - 2, width, 2),
        (left, top, 2, height),
        (left + width - 2, top, 2, height),
    ] {
        font::fill(restored, x, y, w, h, color);
    }
    number(restored, grid, cell, tile, color);
}

/// Write `n` in a box in the corner of a cell.
fn number(image: &mut RgbImage, grid: Grid, cell: usize, n: usize, color: Rgb<u8>) {
    let (left, top, width, _) = area(image, grid, cell);
    let scale = (width / 28).clamp(1, 3);
    let text = n.to_string();
    let box_width = (text.len() as u32 * font::ADVANCE + 1) * scale;
    font::fill(image, left, top, box_width, (font::HEIGHT + 2) * scale, color);
    font::draw(image, &text, left + scale, top + scale, scale, WHITE);
}

/// Left, top, width and height of a cell.
fn area(image: &RgbImage, grid: Grid, cell: usize) -> (u32, u32, u32, u32) {
    let (width, height) = (image.width() / grid.cols() as u32, image.height() / grid.rows() as u32);
    let (row, col) = grid.place(cell);
    (col as u32 * width, row as u32 * height, width, height)
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
