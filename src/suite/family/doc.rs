//! Look a value up in a form of three lines or a table of two rows.

use super::Question;
use crate::draw::{FONTS, draw_text, text_width};
use crate::rng::Rng;
use crate::suite::objects::{CELL, SIDE};
use image::{Rgb, RgbImage};
use rand::RngExt;
use rand::seq::SliceRandom;

/// Names of the fields of forms and of the rows of tables.
const KEYS: [&str; 12] = ["AGE", "DAY", "SUM", "TAX", "FEE", "NO", "ROW", "BOX", "ID", "PAY", "TIP", "KM"];

pub fn question(rng: &mut Rng, index: usize) -> Question {
    let mut keys = KEYS;
    keys.shuffle(rng);
    if index.is_multiple_of(2) { form(rng, &keys) } else { table(rng, &keys) }
}

fn form(rng: &mut Rng, keys: &[&str]) -> Question {
    let values: Vec<String> = (0..3).map(|_| rng.random_range(10..100).to_string()).collect();
    let mut page = Page::new(rng);
    for (line, (key, value)) in keys.iter().zip(&values).enumerate() {
        page.write(rng, key, 0.0, 48.0, line);
        page.write(rng, value, 52.0, 84.0, line);
    }
    let asked = rng.random_range(0..3);
    let (key, value) = (keys[asked], values[asked].clone());
    Question::new(page.image, "form", "anls", format!("What is the value of {key} in the document?"), value.clone())
        .wanting("the value")
        .thinking(format!("{key}: {value}"))
}

fn table(rng: &mut Rng, keys: &[&str]) -> Question {
    let heads = if rng.random() { ["A", "B"] } else { ["B", "A"] };
    let values: Vec<String> = (0..4).map(|_| rng.random_range(10..100).to_string()).collect();
    let mut page = Page::new(rng);
    let cell = CELL as f32;
    for (column, head) in heads.iter().enumerate() {
        page.write(rng, head, (column + 1) as f32 * cell, (column + 2) as f32 * cell, 0);
    }
    for row in 0..2 {
        page.write(rng, keys[row], 0.0, cell, row + 1);
        for column in 0..2 {
            let left = (column + 1) as f32 * cell;
            page.write(rng, &values[row * 2 + column], left, left + cell, row + 1);
        }
    }
    let (row, column) = (rng.random_range(0..2), rng.random_range(0..2));
    let (key, head, value) = (keys[row], heads[column], values[row * 2 + column].clone());
    let text = format!("What is the value of {key} in column {head} of the table?");
    let thought = format!("{key}: {} {}", values[row * 2], values[row * 2 + 1]);
    Question::new(page.image, "table", "anls", text, value).wanting("the value").thinking(thought)
}

/// A light page with dark ink in one font.
struct Page {
    image: RgbImage,
    font: usize,
    ink: [u8; 3],
}

impl Page {
    fn new(rng: &mut Rng) -> Page {
        let paper = [0, 1, 2].map(|_| rng.random_range(215..=255));
        let ink = [0, 1, 2].map(|_| rng.random_range(0..=60));
        Page { image: RgbImage::from_pixel(SIDE, SIDE, Rgb(paper)), font: rng.random_range(0..FONTS), ink }
    }

    /// Write on one of three lines between two columns of pixels, in the middle of them.
    fn write(&mut self, rng: &mut Rng, text: &str, left: f32, right: f32, line: usize) {
        let size = ((right - left - 4.0) / text_width(text, self.font, 100.0) * 100.0).min(22.0);
        let spare = right - left - text_width(text, self.font, size);
        let x = left + spare / 2.0 + rng.random_range(-1.0..1.0f32);
        let middle = (line as f32 + 0.5) * CELL as f32 + rng.random_range(-2.0..2.0f32);
        draw_text(&mut self.image, text, self.font, size, x, middle, self.ink);
    }
}
