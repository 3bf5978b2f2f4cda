//! A teacher that needs no model: a script that measures the tiles and explains the right answer in its own words.
//!
//! It stands in for the reasoning of a large model (`SFT-Rea-4o-Rollout`): true of the picture, ending in the right answer, in a style
//! and vocabulary that no model trained here would use by itself. What it says is measured (mean colour, brightness, how well edges
//! match); the phrasing is drawn at random, from the seed, the record and the number of the response. It knows the
//! answer: it explains the order and does not find it.

use super::tile_features::{TileEdge, TileFeatures};
use crate::data::Record;
use crate::io::plain::json_fault;
use crate::rng::{self, Rng};
use crate::tasks::jigsaw::{Grid, ORDER, PAIR, PairDirection, Permutation, permutation_answer};
use crate::tasks::response::{self, Style};
use crate::tasks::task::Task;
use crate::{Error, Result};
use rand::seq::IndexedRandom;
use std::fmt::Write;

/// Writes responses by rule, from the answer and the pixels.
#[derive(Debug, Clone, Copy)]
pub struct ScriptedTeacher {
    /// Seed of its phrasing.
    pub seed: u64,
}

const OPENINGS: &[&str] = &[
    "Let me examine every fragment in turn.",
    "I shall begin with an inventory of the fragments.",
    "Studying the scrambled mosaic, I note the following.",
    "First, a survey of what each fragment displays.",
];
/// `{k}` is the number of the tile, `{c}` its colour, `{b}` its brightness.
const TILES: &[&str] = &[
    "Fragment {k} is predominantly {c}, {b}.",
    "Number {k} exhibits {c} tones and is {b}.",
    "In fragment {k} I perceive {c}; overall it is {b}.",
    "Fragment {k}: {b}, its average hue close to {c}.",
];
const BORDERS: &[&str] = &[
    "Next I compare the borders.",
    "Now for the seams between neighbours.",
    "Matching the boundaries yields further evidence.",
];
/// `{a}` and `{b}` are numbers of tiles, `{q}` says how well they match.
const BESIDE: &[&str] = &[
    "The right boundary of {a} flows into the left boundary of {b}, {q}.",
    "To the right of {a} belongs {b}, {q}.",
    "{b} continues {a} towards the right, {q}.",
];
const BELOW: &[&str] = &[
    "Underneath {a} belongs {b}, {q}.",
    "The lower boundary of {a} flows into the upper boundary of {b}, {q}.",
    "{b} continues {a} downwards, {q}.",
];
/// How well two edges match: best of all, one or two others are better, more are.
const MATCHES: [&[&str]; 3] = [
    &["the closest match of all", "a seam without equal", "where the transition is smoothest"],
    &["among the closest matches", "a plausible transition", "with only slight discontinuity"],
    &[
        "a faint correspondence at most",
        "although the seam itself is ambiguous",
        "which the remaining fragments confirm",
    ],
];
/// `{r}` is the number of a row, `{t}` its tiles.
const ROWS: &[&str] = &["Row {r} therefore reads {t}.", "Consequently row {r} is {t}.", "This settles row {r}: {t}."];
/// `{a}`, `{b}` are tiles, `{d}` a direction.
const RELATIONS: &[&str] =
    &["Therefore fragment {a} was {d} with respect to fragment {b}.", "Consequently {a} lay {d}, seen from {b}."];

impl ScriptedTeacher {
    /// Raised whenever some response would change.
    pub const VERSION: u32 = 1;

    /// `samples` responses to example `i`.
    ///
    /// # Errors
    /// An input error for a record that is no puzzle, or whose picture does not divide into its grid.
    pub fn respond(&self, task: &dyn Task, i: usize, samples: usize) -> Result<Vec<String>> {
        let record = task.example(i)?;
        let named = |e: Error| e.context(format!("record `{}`", record.id));
        let puzzle = Puzzle::of(&record).map_err(named)?;
        let images = task.images(i)?;
        let image = images.first().ok_or_else(|| named(Error::input("field `images` is empty")))?;
        let features = TileFeatures::of_puzzle(image, puzzle.grid).map_err(named)?;
        let text = |sample: usize| {
            let mut rng = rng::stream(self.seed, &format!("scripted teacher {}", record.id), &[sample as u64]);
            let thought = puzzle.explain(&features, &mut rng);
            response::respond(Style::Think, &thought, &record.answer)
        };
        Ok((0..samples).map(text).collect())
    }
}

/// What the teacher knows of a puzzle.
struct Puzzle {
    grid: Grid,
    /// Place of each cell's tile.
    order: Permutation,
    /// The tile asked about and the one it is seen from, where that is the question.
    pair: Option<[usize; 2]>,
}

impl Puzzle {
    fn of(record: &Record) -> Result<Puzzle> {
        let field = |name: &str| record.meta.get(name).cloned().unwrap_or_default();
        let bad = |name: &str, e: &dyn std::fmt::Display| Error::input(format!("field `meta.{name}`: {e}"));
        if ![ORDER, PAIR].contains(&record.task.as_str()) {
            return Err(Error::input(format!(
                "field `task`: `{}` is no puzzle; the scripted teacher reasons about puzzles only",
                record.task
            )));
        }
        let grid: Grid = serde_json::from_value(field("grid")).map_err(|e| bad("grid", &json_fault(&e)))?;
        let order = match (field("order").as_str(), record.task.as_str()) {
            (Some(order), _) => order.to_string(),
            (None, ORDER) => record.answer.clone(),
            (None, _) => return Err(bad("order", &"is missing")),
        };
        let order = permutation_answer(&order, grid.tiles()).map_err(|fault| bad("order", &fault))?;
        let pair = match record.task.as_str() {
            ORDER => None,
            _ => {
                let pair: [usize; 2] =
                    serde_json::from_value(field("tiles")).map_err(|e| bad("tiles", &json_fault(&e)))?;
                if !pair.iter().all(|tile| (1..=grid.tiles()).contains(tile)) {
                    return Err(bad("tiles", &format!("{pair:?} are not two of {} tiles", grid.tiles())));
                }
                Some(pair.map(|tile| tile - 1))
            }
        };
        Ok(Puzzle { grid, order, pair })
    }

    /// The content of the think block.
    fn explain(&self, features: &TileFeatures<'_>, rng: &mut Rng) -> String {
        let (grid, places) = (self.grid, self.order.places());
        let mut said = vec![pick(OPENINGS, rng).to_string()];
        for tile in 0..grid.tiles() {
            let words = [("{k}", (tile + 1).to_string()), ("{c}", features.colour(tile).into())];
            let words = words.into_iter().chain([("{b}", features.brightness(tile).to_string())]);
            said.push(fill(pick(TILES, rng), words));
        }
        said.push(pick(BORDERS, rng).to_string());
        for cell in 1..grid.tiles() {
            // Each cell is joined to the one on its left; the first of a row to the one above it.
            let (side, from, templates) = match cell % grid.cols() {
                0 => (TileEdge::Bottom, cell - grid.cols(), BELOW),
                _ => (TileEdge::Right, cell - 1, BESIDE),
            };
            let (a, b) = (places[from], places[cell]);
            let quality = match features.better(a, side, b) {
                0 => MATCHES[0],
                1 | 2 => MATCHES[1],
                _ => MATCHES[2],
            };
            let words =
                [("{a}", (a + 1).to_string()), ("{b}", (b + 1).to_string()), ("{q}", pick(quality, rng).into())];
            said.push(fill(pick(templates, rng), words));
        }
        match self.pair {
            None => {
                for (row, tiles) in places.chunks(grid.cols()).enumerate() {
                    let mut list = String::new();
                    for tile in tiles {
                        let _ = write!(list, "{}{}", if list.is_empty() { "" } else { ", " }, tile + 1);
                    }
                    said.push(fill(pick(ROWS, rng), [("{r}", (row + 1).to_string()), ("{t}", list)]));
                }
            }
            Some([tile, seen_from]) => {
                let cells = self.order.inverse();
                let (cell, from) = (cells.places()[tile], cells.places()[seen_from]);
                let direction = PairDirection::of(grid, cell, from).map_or("the same".into(), |d| d.to_string());
                let words = [("{a}", (tile + 1).to_string()), ("{b}", (seen_from + 1).to_string()), ("{d}", direction)];
                said.push(fill(pick(RELATIONS, rng), words));
            }
        }
        said.join(" ")
    }
}

fn pick<'a>(choices: &[&'a str], rng: &mut Rng) -> &'a str {
    choices.choose(rng).copied().unwrap_or_default()
}

/// The template with each name replaced by its words.
fn fill(template: &str, words: impl IntoIterator<Item = (&'static str, String)>) -> String {
    words.into_iter().fold(template.to_string(), |text, (name, word)| text.replace(name, &word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::{Score, Scorer, scorer};
    use image::{Rgb, RgbImage};
    use serde_json::json;
    use std::borrow::Cow;

    struct One(Record, RgbImage);

    impl Task for One {
        fn name(&self) -> &str {
            "one"
        }
        fn len(&self) -> usize {
            1
        }
        fn example(&self, _i: usize) -> Result<Cow<'_, Record>> {
            Ok(Cow::Borrowed(&self.0))
        }
        fn images(&self, _i: usize) -> Result<Vec<RgbImage>> {
            Ok(vec![self.1.clone()])
        }
        fn score(&self, _i: usize, response: &str) -> Score {
            let scorer: Box<dyn Scorer> = scorer(&self.0).unwrap();
            scorer.score(response)
        }
    }

    /// A picture that gets lighter from left to right and redder from top to bottom, its columns swapped.
    fn one(task: &str, answer: &str) -> One {
        let image = RgbImage::from_fn(8, 8, |x, y| {
            let x = (x + 4) % 8;
            Rgb([20 + 20 * x as u8 + y as u8, 20 * x as u8, 20 * x as u8])
        });
        let meta = json!({"grid": "2x2", "style": "think", "order": "2 1 4 3", "tiles": [2, 3], "choices": 8});
        let record = Record {
            file_name: "images/0.png".into(),
            id: "p-1".into(),
            task: task.into(),
            messages: vec![],
            images: vec!["images/0.png".into()],
            answer: answer.into(),
            source: String::new(),
            seed: 0,
            meta: meta.as_object().unwrap().clone(),
        };
        One(record, image)
    }

    #[test]
    fn every_response_is_right_and_in_the_form_asked_for() {
        for (kind, answer) in [("jigsaw", "2 1 4 3"), ("jigsaw-pair", "C")] {
            let task = one(kind, answer);
            for response in &(ScriptedTeacher { seed: 3 }).respond(&task, 0, 20).unwrap() {
                let score = task.score(0, response);
                assert!(score.correct && score.well_formed, "{response}");
                assert!(!response.contains('{'), "a name was not filled in: {response}");
            }
        }
    }

    #[test]
    fn it_names_every_tile_and_the_seams_of_the_right_order() {
        let task = one("jigsaw", "2 1 4 3");
        let text = &(ScriptedTeacher { seed: 0 }).respond(&task, 0, 1).unwrap()[0];
        for words in ["2, 1", "4, 3"] {
            assert!(text.contains(words), "{words} is missing in {text}");
        }
        assert!((1..=4).all(|k| text.contains(&k.to_string())));
        let image = task.images(0).unwrap().remove(0);
        let features = TileFeatures::new(&image, "2x2".parse().unwrap()).unwrap();
        assert_eq!(features.better(1, TileEdge::Right, 0), 0, "the seam inside the original is the closest");
        assert!(MATCHES[0].iter().any(|m| text.contains(m)), "{text}");
    }

    #[test]
    fn the_seed_decides_the_words_and_samples_differ() {
        let task = one("jigsaw", "2 1 4 3");
        let say = |seed| (ScriptedTeacher { seed }).respond(&task, 0, 8).unwrap();
        let texts: std::collections::HashSet<String> = say(1).into_iter().collect();
        assert_eq!((say(1), texts.len()), (say(1), 8));
        assert_ne!(say(1), say(2));
    }

    #[test]
    fn what_is_no_puzzle_is_refused_with_its_field() {
        let refused = |change: &dyn Fn(&mut Record)| {
            let mut task = one("jigsaw", "2 1 4 3");
            change(&mut task.0);
            let error = (ScriptedTeacher { seed: 0 }).respond(&task, 0, 1).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            error.to_string()
        };
        assert!(refused(&|r| r.task = "vqa".into()).contains("field `task`"));
        assert!(refused(&|r| drop(r.meta.insert("grid".into(), json!("0x2")))).contains("meta.grid"));
        assert!(refused(&|r| drop(r.meta.insert("order".into(), json!("1 1 2 3")))).contains("meta.order"));
        assert!(refused(&|r| drop(r.meta.insert("grid".into(), json!("2x3")))).contains("meta.order"));
    }
}
