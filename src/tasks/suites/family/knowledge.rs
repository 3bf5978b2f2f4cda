//! What a real photo shows.

use super::question::{Question, others};
use crate::data::resize;
use crate::rng::Rng;
use crate::tasks::suites::objects::SIDE;
use crate::{Error, Result};
use image::{RgbImage, imageops};
use rand::RngExt;

/// Choices besides the right one.
const WRONG: usize = 3;
/// Smallest crop to train on, as a share of the largest square, each way; a varied crop keeps a model from memorising the photo.
const MIN_CROP: f64 = 0.5;
/// The same for validation and test: nearly the whole photo.
const MIN_CROP_HELD_OUT: f64 = 0.85;
/// To train on, a picture is made brighter or darker, its contrast higher or lower, and each colour channel stronger or weaker,
/// by at most this share.
const TONE: f32 = 0.2;

/// The photos of a split.
#[derive(Default)]
pub struct Photos {
    /// All of them: name and picture.
    pub all: Vec<(String, RgbImage)>,
    /// Classes, each with the indices of its photos; sorted by name.
    pub classes: Vec<(String, Vec<usize>)>,
    /// The split is for evaluation: pictures are shown without augmentation.
    pub held_out: bool,
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

    /// A random square crop of photo `index`, 84 x 84 pixels; for training it may be mirrored and its tones changed.
    pub fn crop(&self, index: usize, rng: &mut Rng) -> RgbImage {
        let image = &self.all[index].1;
        let largest = image.width().min(image.height());
        let smallest = ((f64::from(largest) * if self.held_out { MIN_CROP_HELD_OUT } else { MIN_CROP }).ceil() as u32)
            .clamp(1, largest);
        let side = rng.random_range(smallest..=largest);
        let (x, y) = (rng.random_range(0..=image.width() - side), rng.random_range(0..=image.height() - side));
        let mut small = resize(image, [x, y, side, side], SIDE, SIDE);
        if self.held_out {
            return small;
        }
        let mut gain = || 1.0 + rng.random_range(-TONE..TONE);
        let (contrast, tint) = (gain(), [gain(), gain(), gain()]);
        let shift = 128.0 * rng.random_range(-TONE..TONE);
        for pixel in small.pixels_mut() {
            for (value, tint) in pixel.0.iter_mut().zip(tint) {
                let toned = (f32::from(*value) - 128.0) * contrast + 128.0 + shift;
                *value = (toned * tint).round().clamp(0.0, 255.0) as u8;
            }
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
