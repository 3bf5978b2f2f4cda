//! Makes a dataset of word problems: no two with the same words.
//!
//! A problem's split follows from its family, its level, its numbers and the ratios alone: no training problem of one dataset is, with other
//! names in it, a test problem of another.

use super::families::{Family, Problem};
use super::settings::MathsSettings;
use crate::data::Manifest;
use crate::rng::{self, Rng};
use crate::tasks::response::{ask, respond};
use crate::tasks::text_dataset::{TextDataset, TextExample};
use crate::{Error, Result};
use rand::RngExt;
use serde_json::{Map, json};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::path::Path;

/// Name of the task.
const NAME: &str = "maths";
/// Problems of a family and level of which answers are counted for the chance level.
const COUNTED: u64 = 2000;

/// How often each answer occurs among [`COUNTED`] problems of a family and level.
type Answers = HashMap<(Family, u32), HashMap<String, u32>>;

/// Make the dataset in `out` (see [`TextDataset::generate`]).
///
/// # Errors
/// As there.
pub fn generate(settings: &MathsSettings, out: &Path, overwrite: bool, on_example: &dyn Fn()) -> Result<Manifest> {
    let answers = count_answers(settings);
    let draw = |number| draw(settings, &answers, number);
    dataset(settings, &draw)?.generate(out, overwrite, on_example)
}

fn dataset<'a>(settings: &MathsSettings, draw: &'a dyn Fn(u64) -> Option<TextExample>) -> Result<TextDataset<'a>> {
    Ok(TextDataset {
        task: NAME,
        count: settings.count,
        split: settings.split,
        seed: settings.seed,
        settings: serde_json::to_value(settings).map_err(|e| Error::failed(format!("settings: {e}")))?,
        widen: "--families or --levels",
        draw,
    })
}

/// The answers of many problems of each family and level. They do not depend on the seed.
fn count_answers(settings: &MathsSettings) -> Answers {
    let mut answers = Answers::new();
    for &family in &settings.families.0 {
        for level in settings.levels.min..=settings.levels.max {
            let counts = answers.entry((family, level)).or_default();
            for number in 0..COUNTED {
                let mut rng = rng::stream(0, "maths chance", &[family as u64, u64::from(level), number]);
                *counts.entry(problem(family, level, &mut rng).answer).or_default() += 1;
            }
        }
    }
    answers
}

/// A problem; draws that have none are repeated.
fn problem(family: Family, level: u32, rng: &mut Rng) -> Problem {
    loop {
        if let Some(problem) = family.draw(level, rng) {
            return problem;
        }
    }
}

fn draw(settings: &MathsSettings, answers: &Answers, number: u64) -> Option<TextExample> {
    let mut rng = rng::stream(settings.seed, NAME, &[number]);
    let families = &settings.families.0;
    let family = families[rng.random_range(0..families.len())];
    let level = rng.random_range(settings.levels.min..=settings.levels.max);
    let Problem { text, numbers, answer, steps, form } = problem(family, level, &mut rng);
    let same = answers.get(&(family, level)).and_then(|counts| counts.get(&answer)).copied().unwrap_or(0);
    Some(TextExample {
        key: text.clone(),
        hash: Sha256::digest(format!("{family:?} {level} {numbers:?}")).into(),
        question: format!("{text}\n{}", ask(settings.style, form)),
        response: respond(settings.style, &steps, &answer),
        meta: Map::from_iter([
            ("style".to_string(), json!(settings.style)),
            ("category".to_string(), json!(family)),
            ("l2-category".to_string(), json!(format!("level {level}"))),
            ("chance".to_string(), json!(f64::from(same) / COUNTED as f64)),
        ]),
        answer,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::split::SPLITS;
    use crate::tasks::{self, Style};
    use std::collections::HashSet;

    fn settings() -> MathsSettings {
        MathsSettings {
            count: 300,
            style: Style::Think,
            split: "0.5,0.2,0.3".parse().unwrap(),
            ..MathsSettings::default()
        }
    }

    #[test]
    fn a_dataset_is_the_same_again_and_its_references_earn_everything() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| dir.path().join(name));
        let first = generate(&settings(), &a, false, &|| ()).unwrap();
        assert_eq!(first.sha256, generate(&settings(), &b, false, &|| ()).unwrap().sha256);
        assert_eq!(first.settings["task"], "maths");
        let (mut seen, mut kinds) = (HashSet::new(), HashSet::new());
        for split in SPLITS {
            let task = tasks::load(&a, split).unwrap();
            for i in 0..task.len() {
                let record = task.example(i).unwrap();
                let score = task.score(i, record.response().unwrap());
                assert!(score.correct && score.well_formed, "{record:?}");
                assert!(!task.score(i, "<think></think><answer>-1</answer>").correct, "{record:?}");
                assert!(seen.insert(record.prompt()[0].content.clone()), "twice: {record:?}");
                kinds.insert((record.meta["category"].to_string(), record.meta["l2-category"].to_string()));
            }
            let chance = task.mean_chance(task.len()).unwrap().accuracy;
            assert!(chance > 0.0 && chance < 0.1, "{chance}");
        }
        assert_eq!(kinds.len(), 27, "families and levels");
    }

    #[test]
    fn no_training_problem_of_one_seed_is_a_test_problem_of_another() {
        let hashes = |seed, side: usize| -> HashSet<[u8; 32]> {
            let settings = MathsSettings { seed, ..settings() };
            let draw = |number| draw(&settings, &Answers::new(), number);
            dataset(&settings, &draw).unwrap().examples().unwrap()[side].iter().map(|example| example.hash).collect()
        };
        assert!(hashes(1, 0).is_disjoint(&hashes(2, 2)));
    }

    #[test]
    fn the_chance_level_is_that_of_answers_of_other_problems() {
        let settings =
            MathsSettings { families: "marbles".parse().unwrap(), levels: "1".parse().unwrap(), ..settings() };
        let answers = count_answers(&settings);
        let counts = &answers[&(Family::Marbles, 1)];
        assert_eq!(counts.values().sum::<u32>(), COUNTED as u32);
        // The share of pairs of problems with the same answer, by the chances of many problems.
        let expected: f64 = counts.values().map(|&n| (f64::from(n) / COUNTED as f64).powi(2)).sum();
        let mean =
            (0..2000).map(|i| draw(&settings, &answers, i).unwrap().meta["chance"].as_f64().unwrap()).sum::<f64>()
                / 2000.0;
        assert!((mean - expected).abs() < 0.15 * expected, "{mean} {expected}");
    }
}
