//! Examples with the models' answers drawn in, as their scorers draw them: the image shown, what the gold answer makes of it, and
//! what each answer does.

use super::picture::data_uri;
use crate::data::Record;
use crate::sampling::ScoredResponse;
use crate::tasks::{RegionMark, scorer};
use crate::{Error, Result};
use image::RgbImage;
use serde::Serialize;
use std::borrow::Cow;

/// Longer side of a picture on the page in pixels at most.
const SIDE: u32 = 224;
/// Bytes of a response that are shown.
const RESPONSE: usize = 2000;

/// One example and the answers to it, ready for the page.
#[derive(Debug, Serialize)]
pub struct Card {
    /// Id of the record.
    pub id: String,
    /// Source image.
    pub source: String,
    /// Kind of example, in words.
    pub kind: String,
    /// Width and height in pixels of the picture as shown to the model, which marks are in.
    pub size: (u32, u32),
    /// The picture as shown to the model, as a data URI.
    pub shown: String,
    /// What the gold answer makes of the picture, as a data URI, if the task draws that.
    pub original: Option<String>,
    /// Labels on the shown picture.
    pub marks: Vec<RegionMark>,
    /// What the frames of answers mean; empty if none are drawn.
    pub legend: &'static str,
    /// The gold answer.
    pub gold: String,
    /// One for each evaluation.
    pub answers: Vec<AnsweredExample>,
}

/// One response, drawn.
#[derive(Debug, Serialize)]
pub struct AnsweredExample {
    /// Name of the evaluation.
    pub name: String,
    /// The run that the model is of, where that has another name.
    pub run: Option<String>,
    /// Number of its colour; none of a base.
    pub colour: Option<usize>,
    /// What the answer makes of the picture, as a data URI; none if the task does not draw it.
    pub drawn: Option<String>,
    /// Its parts, right and wrong.
    pub marks: Vec<RegionMark>,
    /// The whole answer is right.
    pub correct: bool,
    /// What came of it, in a few words.
    pub verdict: String,
    /// The response as generated, or the beginning of a long one.
    pub response: String,
}

/// A response that is to be drawn.
pub struct Answer<'a> {
    /// Name of the evaluation or the model.
    pub name: String,
    /// The run that the model is of, where that has another name.
    pub run: Option<String>,
    /// Number of its colour; none of a base.
    pub colour: Option<usize>,
    /// What was answered: the example, in the words that it was asked in.
    pub record: Cow<'a, Record>,
    /// The response.
    pub outcome: &'a ScoredResponse,
}

/// Draw a record with the answers to it.
pub fn card(record: &Record, shown: &RgbImage, answers: Vec<Answer<'_>>) -> Result<Card> {
    let named = |e: Error| e.context(format!("record {}", record.id));
    let gold = scorer(record).and_then(|scorer| scorer.draw_gold(shown)).map_err(named)?;
    let answers = answers.into_iter().map(|Answer { name, run, colour, record, outcome }| {
        let mut answer = AnsweredExample {
            name,
            run,
            colour,
            drawn: None,
            marks: Vec::new(),
            correct: outcome.score.correct,
            verdict: verdict(outcome),
            response: cut(&outcome.response, RESPONSE),
        };
        if let Some(drawing) = scorer(&record).map_err(named)?.draw_answer(shown, &outcome.response) {
            answer.drawn = Some(data_uri(&drawing.picture, SIDE)?);
            answer.marks = drawing.marks;
            answer.verdict = drawing.verdict;
        }
        Ok(answer)
    });
    Ok(Card {
        id: record.id.clone(),
        source: record.source.clone(),
        kind: gold.as_ref().map_or_else(|| record.task.clone(), |gold| gold.kind.clone()),
        size: shown.dimensions(),
        shown: data_uri(shown, SIDE)?,
        original: gold.as_ref().map(|gold| data_uri(&gold.picture, SIDE)).transpose()?,
        legend: gold.as_ref().map_or("", |gold| gold.legend),
        marks: gold.map_or_else(Vec::new, |gold| gold.shown),
        gold: record.answer.clone(),
        answers: answers.collect::<Result<_>>()?,
    })
}

fn verdict(outcome: &ScoredResponse) -> String {
    match (outcome.score.correct, outcome.score.fault.as_str()) {
        (true, _) => "right".into(),
        (false, "") => "wrong".into(),
        (false, _) if !outcome.finished => "cut off by the length limit".into(),
        (false, fault) => fault.to_string(),
    }
}

/// The beginning of a text, of at most so many bytes.
pub fn cut(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_string();
    }
    let end = (0..=bytes).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    format!("{}\u{2026}", &text[..end])
}
