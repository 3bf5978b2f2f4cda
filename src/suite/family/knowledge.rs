//! What a real photo shows.

use super::{Question, others};
use crate::rng::Rng;
use crate::suite::objects::SIDE;
use crate::{Error, Result, puzzle};
use image::{RgbImage, imageops};
use rand::RngExt;

/// Choices besides the right one.
const WRONG: usize = 3;
/// Smallest crop, as a share of the largest square, each way.
const MIN_CROP: f64 = 0.6;
/// A picture is made brighter or darker, and its contrast higher or lower, by at most this share.
const TONE: f32 = 0.2;

/// The photos of a split.
#[derive(Default)]
pub struct Photos {
    /// All of them: name and picture.
    pub all: Vec<(String, RgbImage)>,
    /// Classes, each with the indices of its photos; sorted by name.
    pub classes: Vec<(String, Vec<usize>)>,
}

impl Photos {
    /// An input error if the classes are too few for a lettered question.
    pub fn check_classes(&self) -> Result<()> {
        if self.classes.len() > WRONG {
            return Ok(());
        }
        Err(Error::input(format!(
            "the knowledge suite needs photos of at least {} classes in every split, there are {} in one of them; name them in the \
             column `class` of the images folder's ATTRIBUTION.tsv, or give that split more photos",
            WRONG + 1,
            self.classes.len()
        )))
    }

    /// A random square crop of photo `index`, perhaps mirrored, a little brighter or darker: a picture of 84 x 84 pixels.
    pub fn crop(&self, index: usize, rng: &mut Rng) -> RgbImage {
        let image = &self.all[index].1;
        let largest = image.width().min(image.height());
        let smallest = ((f64::from(largest) * MIN_CROP).ceil() as u32).clamp(1, largest);
        let side = rng.random_range(smallest..=largest);
        let (x, y) = (rng.random_range(0..=image.width() - side), rng.random_range(0..=image.height() - side));
        let mut small = puzzle::resize(image, [x, y, side, side], SIDE, SIDE);
        let (contrast, shift) = (1.0 + rng.random_range(-TONE..TONE), 128.0 * rng.random_range(-TONE..TONE));
        for value in small.iter_mut() {
            *value = ((f32::from(*value) - 128.0) * contrast + 128.0 + shift).round().clamp(0.0, 255.0) as u8;
        }
        if rng.random() { imageops::flip_horizontal(&small) } else { small }
    }
}

pub fn question(rng: &mut Rng, index: usize, photos: &Photos) -> Result<Question> {
    photos.check_classes()?;
    let classes = &photos.classes;
    let (class, members) = &classes[index % classes.len()];
    let photo = members[rng.random_range(0..members.len())];
    let wrong = others(classes.iter().map(|c| c.0.clone()), class, WRONG, rng);
    let image = photos.crop(photo, rng);
    let text = "What is in the picture?".to_string();
    let question = Question::choice(image, "class", text, class.clone(), wrong, rng);
    Ok(Question { source: photos.all[photo].0.clone(), ..question }.thinking(format!("It shows: {class}.")))
}
