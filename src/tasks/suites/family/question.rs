//! A question with its picture and its answer.

use crate::rng::Rng;
use crate::tasks::response::{Style, ask, respond};
use image::RgbImage;
use rand::RngExt;
use rand::seq::SliceRandom;

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
    pub(super) fn new(
        image: RgbImage,
        kind: &'static str,
        scorer: &'static str,
        text: String,
        answer: String,
    ) -> Question {
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
            source: crate::data::Record::SYNTHETIC.into(),
        }
    }

    pub(super) fn wanting(self, wanted: impl Into<String>) -> Question {
        Question { wanted: wanted.into(), ..self }
    }

    pub(super) fn thinking(self, thought: impl Into<String>) -> Question {
        Question { thought: thought.into(), ..self }
    }

    /// A lettered question: `right` among `others`, in random order.
    pub(super) fn choice(
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

/// `n` different ones of `all` that are not `right`, in random order.
pub fn others(all: impl Iterator<Item = String>, right: &str, n: usize, rng: &mut Rng) -> Vec<String> {
    let mut rest: Vec<String> = all.filter(|x| x != right).collect();
    rest.shuffle(rng);
    rest.truncate(n);
    rest
}
