//! Look a value up in a form of three lines or a table of two rows.

use super::Question;
use crate::draw::{FONTS, draw_in_slots};
use crate::rng::Rng;
use crate::suite::objects::{CELL, SIDE};
use image::{Rgb, RgbImage};
use rand::RngExt;
use rand::seq::SliceRandom;

/// Width of a character with its gap, in pixels: a patch of the vision tower.
const SLOT: f32 = 14.0;

/// Names of the fields of forms and of the rows of tables.
const KEYS: [&str; 12] = ["AD", "BY", "CM", "DR", "ED", "ID", "KG", "NO", "PC", "TV", "UP", "VS"];

pub fn question(rng: &mut Rng, index: usize) -> Question {
    if index.is_multiple_of(2) {
        let (image, lines) = form(rng);
        let (key, value) = &lines[rng.random_range(0..lines.len())];
        let text = format!("What is the value of {key} in the document?");
        return Question::new(image, "form", "anls", text, value.clone())
            .wanting("the value")
            .thinking(format!("{key}: {value}"));
    }
    let (image, cells) = table(rng);
    let asked = rng.random_range(0..cells.len());
    let (names, value) = &cells[asked];
    let (key, head) = names.split_once(' ').unwrap_or((names, ""));
    let row = &cells[asked / 2 * 2..][..2];
    let text = format!("What is the value of {key} in column {head} of the table?");
    let thought = format!("{key}: {} {}", row[0].1, row[1].1);
    Question::new(image, "table", "anls", text, value.clone()).wanting("the value").thinking(thought)
}

/// A form of three lines: the picture, and each key with its value from the top.
pub fn form(rng: &mut Rng) -> (RgbImage, Vec<(String, String)>) {
    let mut keys = KEYS;
    keys.shuffle(rng);
    let values: Vec<String> = (0..3).map(|_| rng.random_range(10..100).to_string()).collect();
    let mut page = Page::new(rng);
    for (line, (key, value)) in keys.iter().zip(&values).enumerate() {
        page.write(rng, key, 0, line);
        page.write(rng, value, 4, line);
    }
    (page.image, keys.iter().map(|key| key.to_string()).zip(values).collect())
}

/// A table of two rows and two columns: the picture, and each row's key and column's head, as `KEY HEAD`, with the value, row by row.
pub fn table(rng: &mut Rng) -> (RgbImage, Vec<(String, String)>) {
    let mut keys = KEYS;
    keys.shuffle(rng);
    let heads = if rng.random() { ["A", "B"] } else { ["B", "A"] };
    let mut page = Page::new(rng);
    for (column, head) in heads.iter().enumerate() {
        page.write(rng, head, 2 * column + 2, 0);
    }
    let mut cells = Vec::with_capacity(4);
    for (row, key) in keys[..2].iter().enumerate() {
        page.write(rng, key, 0, row + 1);
        for (column, head) in heads.iter().enumerate() {
            let value = rng.random_range(10..100).to_string();
            page.write(rng, &value, 2 * column + 2, row + 1);
            cells.push((format!("{key} {head}"), value));
        }
    }
    (page.image, cells)
}

/// A dark screen with light text in one font.
struct Page {
    image: RgbImage,
    font: usize,
    size: f32,
    ink: [u8; 3],
}

impl Page {
    fn new(rng: &mut Rng) -> Page {
        let field = [0, 1, 2].map(|_| rng.random_range(0..=70));
        let ink = [0, 1, 2].map(|_| rng.random_range(185..=255));
        Page {
            image: RgbImage::from_pixel(SIDE, SIDE, Rgb(field)),
            font: rng.random_range(0..FONTS),
            size: rng.random_range(21.0..25.0),
            ink,
        }
    }

    /// Write on one of three lines from a slot on.
    fn write(&mut self, rng: &mut Rng, text: &str, slot: usize, line: usize) {
        let left = slot as f32 * SLOT + rng.random_range(-1.0..1.0f32);
        let middle = (line as f32 + 0.5) * CELL as f32 + rng.random_range(-1.5..1.5f32);
        draw_in_slots(&mut self.image, text, self.font, self.size, SLOT, [left, middle], self.ink);
    }
}
