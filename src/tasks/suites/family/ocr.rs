//! Read a word or a number.

use super::question::Question;
use crate::data::canvas::{FONTS, draw_in_slots};
use crate::rng::Rng;
use crate::tasks::suites::objects::SIDE;
use image::{Rgb, RgbImage};
use rand::RngExt;

/// Width of a character with its gap, in pixels: a patch of the vision tower.
const SLOT: f32 = 14.0;

/// Words on signs.
const WORDS: [&str; 96] = [
    "STOP", "EXIT", "OPEN", "SALE", "BANK", "HOTEL", "TAXI", "BUS", "PARK", "FOOD", "CAFE", "BAR", "ROOM", "DOOR",
    "PUSH", "PULL", "FIRE", "SLOW", "HELP", "INFO", "SHOP", "BOOK", "MILK", "RICE", "SALT", "FISH", "TEA", "CAKE",
    "SOAP", "GOLD", "IRON", "WOOD", "SAND", "ROCK", "SNOW", "RAIN", "WIND", "SUN", "MOON", "STAR", "TREE", "LEAF",
    "ROSE", "BIRD", "DUCK", "GOAT", "BEAR", "WOLF", "LION", "DEER", "FROG", "HAND", "FOOT", "HEAD", "KING", "LADY",
    "BOY", "GIRL", "TEAM", "GAME", "BALL", "KITE", "DRUM", "SONG", "RED", "BLUE", "GREY", "PINK", "ONE", "TWO", "FIVE",
    "TEN", "LEFT", "UP", "DOWN", "EAST", "WEST", "NORTH", "SOUTH", "ROAD", "CITY", "TOWN", "LAKE", "HILL", "FARM",
    "MILL", "SHIP", "BOAT", "CAR", "TRAM", "JUMP", "WALK", "QUIZ", "ZERO", "VAN", "YES",
];

pub fn question(rng: &mut Rng) -> Question {
    let (kind, text) = match rng.random_range(0..10) {
        0..6 => ("word", WORDS[rng.random_range(0..WORDS.len())].to_string()),
        6..8 => ("letters", (0..3).map(|_| char::from(rng.random_range(b'A'..=b'Z'))).collect()),
        _ => ("number", (0..rng.random_range(2..=4)).map(|_| char::from(rng.random_range(b'0'..=b'9'))).collect()),
    };
    let shown = if kind == "word" && rng.random_range(0..4) == 0 { text.to_lowercase() } else { text.clone() };
    let spelled: Vec<String> = text.chars().map(String::from).collect();
    Question::new(draw(rng, &shown), kind, "exact", "Read the text in the image.".into(), text)
        .wanting("the text in capital letters")
        .thinking(spelled.join(" "))
}

/// The text on one line, light on dark, a character to each slot of [`SLOT`] pixels.
fn draw(rng: &mut Rng, text: &str) -> RgbImage {
    let font = rng.random_range(0..FONTS);
    let size = rng.random_range(21.0..25.0f32);
    let at = [rng.random_range(-1.0..1.0f32), SIDE as f32 / 2.0 + rng.random_range(-3.0..3.0f32)];
    let mut tone = |low: u8, high: u8| [0, 1, 2].map(|_| rng.random_range(low..=high));
    let (dark, light) = (tone(0, 70), tone(185, 255));
    let mut image = RgbImage::from_pixel(SIDE, SIDE, Rgb(dark));
    draw_in_slots(&mut image, text, font, size, SLOT, at, light);
    image
}
