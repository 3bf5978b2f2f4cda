//! Examples with the models' answers drawn in, as their scorers draw them: the image shown, what the gold answer makes of it, and
//! what each answer does.

use crate::data::Record;
use crate::sampling::ScoredResponse;
use crate::tasks::{RegionMark, scorer};
use crate::{Error, Result};
use base64::Engine as _;
use image::RgbImage;
use serde::Serialize;

/// One example and the answers to it, ready for the page.
#[derive(Debug, Serialize)]
pub struct Card {
    /// Id of the record.
    pub id: String,
    /// Source image.
    pub source: String,
    /// Kind of example, in words.
    pub kind: String,
    /// Width and height of every picture in pixels.
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
    /// Number of its colour.
    pub colour: usize,
    /// What the answer makes of the picture, as a data URI; none if the task does not draw it.
    pub drawn: Option<String>,
    /// Its parts, right and wrong.
    pub marks: Vec<RegionMark>,
    /// The whole answer is right.
    pub correct: bool,
    /// What came of it, in a few words.
    pub verdict: String,
    /// The response as generated.
    pub response: String,
}

/// Draw a record with the responses of several evaluations, `(name, colour, outcome)`.
pub fn card(record: &Record, shown: &RgbImage, outcomes: &[(&str, usize, &ScoredResponse)]) -> Result<Card> {
    let named = |e: Error| e.context(format!("record {}", record.id));
    let scorer = scorer(record).map_err(named)?;
    let gold = scorer.draw_gold(shown).map_err(named)?;
    let answers = outcomes.iter().map(|&(name, colour, outcome)| {
        let mut answer = AnsweredExample {
            name: name.to_string(),
            colour,
            drawn: None,
            marks: Vec::new(),
            correct: outcome.score.correct,
            verdict: verdict(outcome),
            response: outcome.response.clone(),
        };
        if let Some(drawing) = scorer.draw_answer(shown, &outcome.response) {
            answer.drawn = Some(data_uri(&drawing.picture)?);
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
        shown: data_uri(shown)?,
        original: gold.as_ref().map(|gold| data_uri(&gold.picture)).transpose()?,
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

/// A picture as a PNG in a data URI.
pub fn data_uri(image: &RgbImage) -> Result<String> {
    let mut png = std::io::Cursor::new(Vec::new());
    image
        .write_to(&mut png, image::ImageFormat::Png)
        .map_err(|e| Error::failed(format!("cannot encode a picture: {e}")))?;
    Ok(format!("data:image/png;base64,{}", base64::engine::general_purpose::STANDARD.encode(png.into_inner())))
}
