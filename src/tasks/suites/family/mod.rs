//! The families of prior knowledge: one file each, a question from a random stream.

mod describe;
mod doc;
mod grounding;
mod knowledge;
mod lists;
mod ocr;
mod order;
mod pope;
mod question;
mod vqa;

pub use knowledge::Photos;
pub use question::Question;

use crate::rng::Rng;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// A family of prior knowledge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Where a described object is, as a box in JSON.
    Grounding,
    /// Read a rendered word or number.
    Ocr,
    /// Look a value up in a form or a small table.
    Doc,
    /// Colour, shape, count and position of objects, lettered choices.
    Vqa,
    /// Is an object there? Yes or no.
    Pope,
    /// What a real photo shows, lettered choices, from the classes of the photos' table.
    Knowledge,
    /// What each cell of a grid holds.
    Describe,
    /// Follow an instruction whose answer is numbers in an order: read numbered tiles, order tiles by brightness. No
    /// tiles have to be put back into place.
    Order,
    /// Many look-ups in one answer: training data for the look-ups of the other families.
    Lists,
}

impl Family {
    /// All of them.
    pub const ALL: [Family; 9] = [
        Family::Grounding,
        Family::Ocr,
        Family::Doc,
        Family::Vqa,
        Family::Pope,
        Family::Knowledge,
        Family::Describe,
        Family::Order,
        Family::Lists,
    ];

    /// Its name on the command line and in records.
    pub fn name(self) -> &'static str {
        match self {
            Family::Grounding => "grounding",
            Family::Ocr => "ocr",
            Family::Doc => "doc",
            Family::Vqa => "vqa",
            Family::Pope => "pope",
            Family::Knowledge => "knowledge",
            Family::Describe => "describe",
            Family::Order => "order",
            Family::Lists => "lists",
        }
    }

    /// Does it show real photos?
    pub fn needs_photos(self) -> bool {
        matches!(self, Family::Knowledge | Family::Order)
    }

    /// Question `index` of a split; `photos` are those of the split.
    pub fn question(self, rng: &mut Rng, index: usize, photos: &Photos) -> Result<Question> {
        match self {
            Family::Grounding => retry(|| grounding::question(rng)),
            Family::Ocr => Ok(ocr::question(rng)),
            Family::Doc => Ok(doc::question(rng, index)),
            Family::Vqa => retry(|| vqa::question(rng, index, photos.held_out)),
            Family::Pope => retry(|| pope::question(rng, index)),
            Family::Knowledge => knowledge::question(rng, index, photos),
            Family::Describe => Ok(describe::question(rng)),
            Family::Order => order::question(rng, index, photos),
            Family::Lists => Ok(lists::question(rng, index)),
        }
    }
}

/// Draw pictures until one allows the question.
fn retry(mut attempt: impl FnMut() -> Option<Question>) -> Result<Question> {
    const TRIES: usize = 10_000;
    (0..TRIES)
        .find_map(|_| attempt())
        .ok_or_else(|| Error::failed(format!("{TRIES} random pictures allowed no question of this kind")))
}

#[cfg(test)]
mod tests;
