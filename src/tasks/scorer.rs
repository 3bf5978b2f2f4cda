//! The [`Scorer`] of one example, and what it can draw of it.

use super::chance::Chance;
use super::score::Score;
use crate::Result;
use image::RgbImage;
use serde::Serialize;

/// The gold answer of one example and how a response is compared with it.
pub trait Scorer: Send + Sync {
    /// Name that records and results know it by.
    fn name(&self) -> &str;

    /// Raised whenever some response would be scored otherwise than before.
    fn version(&self) -> u32;

    /// Score a response.
    fn score(&self, response: &str) -> Score;

    /// What guessing earns; `None` if that is not known.
    fn chance(&self) -> Option<Chance> {
        None
    }

    /// The example with its gold answer drawn, given the image shown to the model; `None` if there is nothing to draw.
    ///
    /// # Errors
    /// An input error if the image does not belong to the example.
    fn draw_gold(&self, _shown: &RgbImage) -> Result<Option<GoldDrawing>> {
        Ok(None)
    }

    /// A response drawn over the image shown to the model; `None` if it holds no valid answer, or there is nothing to draw.
    fn draw_answer(&self, _shown: &RgbImage, _response: &str) -> Option<AnswerDrawing> {
        None
    }
}

/// An example with its gold answer, drawn.
#[derive(Debug, Clone)]
pub struct GoldDrawing {
    /// Kind of example in a word (for a jigsaw, its grid).
    pub kind: String,
    /// Labels on the image shown to the model.
    pub shown: Vec<RegionMark>,
    /// What the gold answer makes of that image.
    pub picture: RgbImage,
    /// What the frames of answers mean, as a sentence.
    pub legend: &'static str,
}

/// A response, drawn.
#[derive(Debug, Clone)]
pub struct AnswerDrawing {
    /// What the answer makes of the image shown to the model.
    pub picture: RgbImage,
    /// Its parts, right and wrong.
    pub marks: Vec<RegionMark>,
    /// How many parts are right, in words.
    pub verdict: String,
}

/// A labelled rectangle of a picture, in pixels.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RegionMark {
    /// Left edge.
    pub x: f64,
    /// Upper edge.
    pub y: f64,
    /// Width.
    pub w: f64,
    /// Height.
    pub h: f64,
    /// What is there.
    pub label: String,
    /// It is right.
    pub right: bool,
}
