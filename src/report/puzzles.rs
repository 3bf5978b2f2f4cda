//! Puzzles with the models' answers drawn in: the shuffled picture, the original, and what each answer restores.

use crate::data::Record;
use crate::sampling::ScoredResponse;
use crate::tasks::jigsaw::{self, Grid, Permutation};
use crate::{Error, Result};
use base64::Engine as _;
use image::RgbImage;
use serde::Serialize;

/// One puzzle and the answers to it, ready for the page.
#[derive(Debug, Serialize)]
pub struct Card {
    /// Id of the record.
    pub id: String,
    /// Source image.
    pub source: String,
    /// Grid or task, in words.
    pub kind: String,
    /// Width and height of every picture in pixels.
    pub size: (u32, u32),
    /// The picture as shown to the model, as a data URI.
    pub shown: String,
    /// The original, if the puzzle has one.
    pub original: Option<String>,
    /// The tiles' numbers at their places in the shown picture.
    pub tiles: Vec<Tile>,
    /// The gold answer.
    pub gold: String,
    /// One for each evaluation.
    pub answers: Vec<Answer>,
}

/// A rectangle of a picture.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tile {
    /// Left edge in pixels.
    pub x: f64,
    /// Upper edge in pixels.
    pub y: f64,
    /// Width in pixels.
    pub w: f64,
    /// Height in pixels.
    pub h: f64,
    /// Number of the tile shown there.
    pub number: usize,
    /// It belongs there.
    pub right: bool,
}

/// One response, drawn.
#[derive(Debug, Serialize)]
pub struct Answer {
    /// Name of the evaluation.
    pub name: String,
    /// Number of its colour.
    pub colour: usize,
    /// The picture that the answer restores, as a data URI; none if the answer is no order of the tiles.
    pub restored: Option<String>,
    /// The tiles of the restored picture.
    pub tiles: Vec<Tile>,
    /// The whole answer is right.
    pub correct: bool,
    /// What came of it, in a few words.
    pub verdict: String,
    /// The response as generated.
    pub response: String,
}

/// Draw a record with the responses of several evaluations, `(name, colour, outcome)`.
pub fn card(record: &Record, shown: &RgbImage, outcomes: &[(&str, usize, &ScoredResponse)]) -> Result<Card> {
    let order = gold_order(record, shown)?;
    let answers = outcomes.iter().map(|&(name, colour, outcome)| {
        let mut answer = Answer {
            name: name.to_string(),
            colour,
            restored: None,
            tiles: Vec::new(),
            correct: outcome.score.correct,
            verdict: verdict(outcome),
            response: outcome.response.clone(),
        };
        if let Some((grid, gold)) = &order
            && let Some(given) = answered(&outcome.response, *grid)
        {
            answer.restored = Some(data_uri(&jigsaw::restore(shown, *grid, &given))?);
            answer.tiles =
                tiles(*grid, shown, |cell| (given.places()[cell] + 1, given.places()[cell] == gold.places()[cell]));
            let right = answer.tiles.iter().filter(|t| t.right).count();
            answer.verdict = format!("{right} of {} tiles", grid.tiles());
        }
        Ok(answer)
    });
    Ok(Card {
        id: record.id.clone(),
        source: record.source.clone(),
        kind: order.as_ref().map_or_else(|| record.task.clone(), |(grid, _)| grid.to_string()),
        size: shown.dimensions(),
        shown: data_uri(shown)?,
        original: order.as_ref().map(|(grid, gold)| data_uri(&jigsaw::restore(shown, *grid, gold))).transpose()?,
        tiles: order.as_ref().map_or_else(Vec::new, |(grid, _)| tiles(*grid, shown, |place| (place + 1, true))),
        gold: record.answer.clone(),
        answers: answers.collect::<Result<_>>()?,
    })
}

/// Grid and right order of a jigsaw; `None` for a record of another task.
fn gold_order(record: &Record, shown: &RgbImage) -> Result<Option<(Grid, Permutation)>> {
    if record.task != "jigsaw" {
        return Ok(None);
    }
    let bad = |what: &str| Error::input(format!("record {}: {what}", record.id));
    let grid = record.meta.get("grid").and_then(|g| g.as_str()).ok_or_else(|| bad("meta.grid is missing"))?;
    let grid: Grid = grid.parse().map_err(|e: Error| e.context(format!("record {}", record.id)))?;
    let gold = jigsaw::permutation_answer(&record.answer, grid.tiles());
    let gold = gold.map_err(|fault| bad(&format!("answer {:?}: {fault}", record.answer)))?;
    let (width, height) = (shown.width() as usize, shown.height() as usize);
    if width == 0 || height == 0 || !width.is_multiple_of(grid.cols()) || !height.is_multiple_of(grid.rows()) {
        return Err(bad(&format!("a picture of {width}x{height} pixels has no {grid} tiles")));
    }
    Ok(Some((grid, gold)))
}

fn answered(response: &str, grid: Grid) -> Option<Permutation> {
    jigsaw::permutation_answer(jigsaw::answer_block(response).ok()?, grid.tiles()).ok()
}

fn verdict(outcome: &ScoredResponse) -> String {
    match (outcome.score.correct, outcome.score.fault.as_str()) {
        (true, _) => "right".into(),
        (false, "") => "wrong".into(),
        (false, _) if !outcome.finished => "cut off by the length limit".into(),
        (false, fault) => fault.to_string(),
    }
}

fn tiles(grid: Grid, image: &RgbImage, of_cell: impl Fn(usize) -> (usize, bool)) -> Vec<Tile> {
    let (w, h) = (f64::from(image.width()) / grid.cols() as f64, f64::from(image.height()) / grid.rows() as f64);
    (0..grid.tiles())
        .map(|cell| {
            let (row, col) = grid.place(cell);
            let (number, right) = of_cell(cell);
            Tile { x: col as f64 * w, y: row as f64 * h, w, h, number, right }
        })
        .collect()
}

/// A picture as a PNG in a data URI.
pub fn data_uri(image: &RgbImage) -> Result<String> {
    let mut png = std::io::Cursor::new(Vec::new());
    image
        .write_to(&mut png, image::ImageFormat::Png)
        .map_err(|e| Error::failed(format!("cannot encode a picture: {e}")))?;
    Ok(format!("data:image/png;base64,{}", base64::engine::general_purpose::STANDARD.encode(png.into_inner())))
}
