//! The families of prior knowledge: one file each, a question from a random stream.

mod describe;
mod doc;
mod grounding;
mod knowledge;
mod lists;
mod ocr;
mod order;
mod pope;
mod vqa;

pub use knowledge::Photos;

use crate::rng::Rng;
use crate::tasks::response::{Style, ask, respond};
use crate::{Error, Result};
use image::RgbImage;
use rand::RngExt;
use rand::seq::SliceRandom;
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

/// One question with its picture and its answer, independent of the style.
pub struct Question {
    /// The picture.
    pub image: RgbImage,
    /// The question, without the request for a form.
    pub text: String,
    /// What the answer tags should hold, in words.
    pub wanted: String,
    /// The reference thought.
    pub thought: String,
    /// The reference response's content of the answer tags.
    pub response: String,
    /// The gold answer as the scorer reads it.
    pub answer: String,
    /// The scorer that scores it.
    pub scorer: &'static str,
    /// Kind of question within the family.
    pub kind: &'static str,
    /// Lettered choices, if any.
    pub options: Vec<String>,
    /// Where the picture comes from.
    pub source: String,
}

impl Question {
    /// A question about a synthetic picture, whose answer is as the response gives it.
    fn new(image: RgbImage, kind: &'static str, scorer: &'static str, text: String, answer: String) -> Question {
        Question {
            image,
            text,
            wanted: String::new(),
            thought: String::new(),
            response: answer.clone(),
            answer,
            scorer,
            kind,
            options: Vec::new(),
            source: "synthetic".into(),
        }
    }

    fn wanting(self, wanted: impl Into<String>) -> Question {
        Question { wanted: wanted.into(), ..self }
    }

    fn thinking(self, thought: impl Into<String>) -> Question {
        Question { thought: thought.into(), ..self }
    }

    /// A lettered question: `right` among `others`, in random order.
    fn choice(
        image: RgbImage,
        kind: &'static str,
        text: String,
        right: String,
        others: Vec<String>,
        rng: &mut Rng,
    ) -> Question {
        let mut options = others;
        let place = rng.random_range(0..=options.len());
        options.insert(place, right);
        let letter = ('A'..).nth(place).unwrap_or('A').to_string();
        let listed: String = ('A'..).zip(&options).map(|(letter, option)| format!("\n{letter}. {option}")).collect();
        Question { options, ..Question::new(image, kind, "choice", text + &listed, letter) }
            .wanting("the letter of the right choice")
    }

    /// The whole text of the question in a style.
    pub fn asked(&self, style: Style) -> String {
        format!("{}\n{}", self.text, ask(style, &self.wanted))
    }

    /// The reference response in a style.
    pub fn reference(&self, style: Style) -> String {
        respond(style, &self.thought, &self.response)
    }
}

/// Draw pictures until one allows the question.
fn retry(mut attempt: impl FnMut() -> Option<Question>) -> Result<Question> {
    const TRIES: usize = 10_000;
    (0..TRIES)
        .find_map(|_| attempt())
        .ok_or_else(|| Error::failed(format!("{TRIES} random pictures allowed no question of this kind")))
}

/// `n` different ones of `all` that are not `right`, in random order.
fn others(all: impl Iterator<Item = String>, right: &str, n: usize, rng: &mut Rng) -> Vec<String> {
    let mut rest: Vec<String> = all.filter(|x| x != right).collect();
    rest.shuffle(rng);
    rest.truncate(n);
    rest
}

#[cfg(test)]
mod tests;
