//! Instructions whose answer is numbers in an order. They share the words of other questions about tiles, not the question:
//! nothing here asks where a tile belongs.

use super::knowledge::Photos;
use super::question::Question;
use crate::Result;
use crate::data::canvas::{FONTS, draw_in_slots};
use crate::rng::Rng;
use image::{Rgb, RgbImage};
use rand::RngExt;
use rand::seq::SliceRandom;

/// Side of a tile in pixels.
const TILE: u32 = 28;
/// Least difference in mean brightness (of 255) between two tiles that have to be ordered.
const STEP: f64 = 4.0;
/// Strongest channel of the darkest ink.
const INK: u8 = 185;

pub fn question(rng: &mut Rng, index: usize, photos: &Photos) -> Result<Question> {
    let (rows, cols) = if rng.random() { (3, 3) } else { (rng.random_range(2..=3), rng.random_range(2..=3)) };
    let tiles = (rows * cols) as usize;
    let mut numbers: Vec<usize> = (1..=tiles).collect();
    numbers.shuffle(rng);
    let words = |n: &[usize]| n.iter().map(usize::to_string).collect::<Vec<_>>().join(" ");
    let picture = format!("This picture was cut into {rows} rows and {cols} columns, and its tiles");
    let (kind, image, text, answer, thought, source) = match index % 4 {
        0 => {
            let text = format!(
                "{picture} were given numbers and shuffled. For each place, row by row, which number is there?"
            );
            let thought = format!("There are {tiles} numbers.");
            ("read", numbered(rng, cols, &numbers, photos), text, words(&numbers), thought, None)
        }
        1 => {
            let mut places = vec![0; tiles];
            for (place, &number) in numbers.iter().enumerate() {
                places[number - 1] = place + 1;
            }
            let text = format!(
                "{picture} were given numbers and shuffled. Number the places 1 to {tiles}, row by row. For each number of the \
                 tiles, from 1 to {tiles}, which place belongs to it?"
            );
            ("find", numbered(rng, cols, &numbers, photos), text, words(&places), words(&numbers), None)
        }
        _ => {
            let (image, source) = if photos.all.is_empty() || index % 4 == 2 {
                (shaded(rng, cols, &numbers), None)
            } else {
                let photo = rng.random_range(0..photos.all.len());
                let whole = photos.crop(photo, rng);
                let cut = image::imageops::crop_imm(&whole, 0, 0, cols * TILE, rows * TILE).to_image();
                (cut, Some(photos.all[photo].0.clone()))
            };
            let light = brightness(&image, rows, cols);
            let mut order: Vec<usize> = (0..tiles).collect();
            order.sort_by(|&a, &b| light[a].total_cmp(&light[b]).then(a.cmp(&b)));
            let order: Vec<usize> = order.into_iter().map(|t| t + 1).collect();
            let state = if source.is_some() { "stayed in the original order" } else { "were shuffled" };
            let text =
                format!("{picture} {state}. Number the tiles 1 to {tiles}, row by row. Order them from dark to light.");
            let thought = format!("{} is dark, {} is light.", order[0], order[tiles - 1]);
            (if source.is_some() { "photo" } else { "shade" }, image, text, words(&order), thought, source)
        }
    };
    let question =
        Question::new(image, kind, "exact", text, answer).wanting(format!("the {tiles} numbers separated by spaces"));
    Ok(Question { source: source.unwrap_or_else(|| crate::data::Record::SYNTHETIC.into()), ..question }
        .thinking(thought))
}

/// Tiles that carry numbers, each as wide as a character of the other families' texts and in the same half of its tile. For
/// training, a third of them are on a photo and may be too faint to read; the model can then still learn that each number occurs once.
fn numbered(rng: &mut Rng, cols: u32, numbers: &[usize], photos: &Photos) -> RgbImage {
    let clear = clear(rng, cols, numbers);
    if photos.held_out || photos.all.is_empty() || rng.random_range(0..3) > 0 {
        return clear;
    }
    let photo = photos.crop(rng.random_range(0..photos.all.len()), rng);
    let strength: f32 = rng.random_range(0.0..1.0);
    RgbImage::from_fn(clear.width(), clear.height(), |x, y| {
        let (over, under) = (clear.get_pixel(x, y), photo.get_pixel(x, y));
        if over.0.iter().all(|channel| *channel < INK) {
            return *under;
        }
        Rgb([0, 1, 2].map(|c| {
            let (ink, paper) = (f32::from(over.0[c]), f32::from(under.0[c]));
            (paper + (ink - paper) * strength) as u8
        }))
    })
}

/// Tiles that carry numbers, every one readable.
fn clear(rng: &mut Rng, cols: u32, numbers: &[usize]) -> RgbImage {
    let font = rng.random_range(0..FONTS);
    let size = rng.random_range(21.0..25.0f32);
    let half = if rng.random() { 0.0 } else { TILE as f32 / 2.0 };
    let rows = numbers.len() as u32 / cols;
    let mut image = RgbImage::new(cols * TILE, rows * TILE);
    for (place, number) in numbers.iter().enumerate() {
        let (x, y) = (place as u32 % cols * TILE, place as u32 / cols * TILE);
        let field = [0, 1, 2].map(|_| rng.random_range(0..=70));
        for (px, py) in (y..y + TILE).flat_map(|py| (x..x + TILE).map(move |px| (px, py))) {
            image.put_pixel(px, py, Rgb(field));
        }
        let left = x as f32 + half + rng.random_range(-1.0..1.0f32);
        let middle = y as f32 + TILE as f32 / 2.0 + rng.random_range(-1.5..1.5f32);
        let ink = [0, 1, 2].map(|_| rng.random_range(185..=255));
        draw_in_slots(&mut image, &number.to_string(), font, size, TILE as f32 / 2.0, [left, middle], ink);
    }
    image
}

/// Plain tiles of different brightness and tint; tile `i` is the `ranks[i]`-th darkest.
fn shaded(rng: &mut Rng, cols: u32, ranks: &[usize]) -> RgbImage {
    let rows = ranks.len() as u32 / cols;
    let tint = [0, 1, 2].map(|_| rng.random_range(0.8..1.2f64));
    let gap = 230.0 / ranks.len() as f64;
    let tones: Vec<f64> = ranks.iter().map(|&r| r as f64 * gap + rng.random_range(-0.3..0.3) * (gap - STEP)).collect();
    RgbImage::from_fn(cols * TILE, rows * TILE, |x, y| {
        let tone = tones[(y / TILE * cols + x / TILE) as usize];
        Rgb(tint.map(|t| (tone * t).clamp(0.0, 255.0) as u8))
    })
}

/// Mean brightness of each tile, Rec. 601 weights, in [0, 255].
fn brightness(image: &RgbImage, rows: u32, cols: u32) -> Vec<f64> {
    let mut sums = vec![0.0; (rows * cols) as usize];
    for (x, y, p) in image.enumerate_pixels() {
        let [r, g, b] = p.0.map(f64::from);
        sums[(y / TILE * cols + x / TILE) as usize] += 0.299 * r + 0.587 * g + 0.114 * b;
    }
    sums.into_iter().map(|s| s / f64::from(TILE * TILE)).collect()
}
