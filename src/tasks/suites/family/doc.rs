//! Look a value up in a form of captioned boxes or a table of a head line and a line of values.

use super::question::Question;
use crate::data::canvas::{FONTS, draw_in_slots};
use crate::rng::Rng;
use crate::tasks::suites::objects::{CELL, CELLS, SIDE};
use image::{Rgb, RgbImage};
use rand::RngExt;
use rand::seq::SliceRandom;

/// Width of a character with its gap, and height of a line, in pixels: a patch of the vision tower.
const SLOT: f32 = 14.0;

/// Captions of the boxes of forms and heads of the columns of tables.
const KEYS: [&str; 12] = ["AD", "BY", "CM", "DR", "ED", "ID", "KG", "NO", "PC", "TV", "UP", "VS"];

pub fn question(rng: &mut Rng, index: usize) -> Question {
    let (image, fields, kind) = match index.is_multiple_of(2) {
        true => {
            let (image, fields) = form(rng);
            (image, fields, "form")
        }
        false => {
            let (image, fields) = table(rng);
            (image, fields, "table")
        }
    };
    let (key, value) = &fields[rng.random_range(0..fields.len())];
    let text = format!("What is the value of {key} in the {kind}?");
    Question::new(image, kind, "anls", text, value.clone()).wanting("the value").thinking(format!("{key}: {value}"))
}

/// A form of three to six boxes anywhere, each a caption above its value: the picture, and each caption with its value in reading order.
pub fn form(rng: &mut Rng) -> (RgbImage, Vec<(String, String)>) {
    let mut places: Vec<usize> = (0..CELLS * CELLS).collect();
    places.shuffle(rng);
    places.truncate(rng.random_range(3..=6));
    places.sort_unstable();
    let mut page = Page::new(rng);
    let keys = page.keys(rng);
    let fields = places.into_iter().zip(keys).map(|(place, key)| page.field(rng, key, place));
    let fields = fields.collect();
    (page.image, fields)
}

/// One or two tables of three columns, the heads on a strip above the values: the picture, and each head with its value in reading order.
pub fn table(rng: &mut Rng) -> (RgbImage, Vec<(String, String)>) {
    let mut rows: Vec<usize> = (0..CELLS).collect();
    rows.shuffle(rng);
    rows.truncate(rng.random_range(1..=2));
    rows.sort_unstable();
    let mut page = Page::new(rng);
    let mut keys = page.keys(rng).into_iter();
    let mut fields = Vec::new();
    for row in rows {
        page.strip(row);
        for (column, key) in keys.by_ref().take(CELLS).enumerate() {
            fields.push(page.field(rng, key, row * CELLS + column));
        }
    }
    (page.image, fields)
}

/// A dark screen with light text in one font.
struct Page {
    image: RgbImage,
    font: usize,
    size: f32,
    field: [u8; 3],
    ink: [u8; 3],
}

impl Page {
    fn new(rng: &mut Rng) -> Page {
        let field = [0, 1, 2].map(|_| rng.random_range(0..=70));
        let ink = [0, 1, 2].map(|_| rng.random_range(185..=255));
        Page {
            image: RgbImage::from_pixel(SIDE, SIDE, Rgb(field)),
            font: rng.random_range(0..FONTS),
            size: rng.random_range(15.0..18.0),
            field,
            ink,
        }
    }

    fn keys(&self, rng: &mut Rng) -> [&'static str; KEYS.len()] {
        let mut keys = KEYS;
        keys.shuffle(rng);
        keys
    }

    /// A caption and a random value below it, in a cell; both.
    fn field(&mut self, rng: &mut Rng, key: &str, place: usize) -> (String, String) {
        let value = rng.random_range(10..100).to_string();
        for (line, text) in [key, &value].into_iter().enumerate() {
            let left = (place % CELLS) as f32 * CELL as f32 + rng.random_range(-0.8..0.8f32);
            let top = (place / CELLS) as f32 * CELL as f32;
            let middle = top + (line as f32 + 0.5) * SLOT + rng.random_range(-0.8..0.8f32);
            draw_in_slots(&mut self.image, text, self.font, self.size, SLOT, [left, middle], self.ink);
        }
        (key.to_string(), value)
    }

    /// A lighter strip behind the heads of a table.
    fn strip(&mut self, row: usize) {
        let lighter = self.field.map(|channel| channel + 40);
        let top = row as u32 * CELL;
        for y in top..top + SLOT as u32 {
            (0..SIDE).for_each(|x| self.image.put_pixel(x, y, Rgb(lighter)));
        }
    }
}
