//! Makes a dataset of countdown puzzles: every one has a solution, and no two have the same numbers and target.
//!
//! A puzzle's split follows from its numbers, its target and the ratios alone, so datasets made with other seeds never have one's
//! training puzzle in another's test set.

use super::puzzle::CountdownPuzzle;
use super::question::{NAME, question};
use super::settings::CountdownSettings;
use crate::data::Manifest;
use crate::tasks::response::respond;
use crate::tasks::text_dataset::{TextDataset, TextExample};
use crate::{Error, Result};
use serde_json::{Map, json};
use std::path::Path;

/// Make the dataset in `out` (see [`TextDataset::generate`]).
///
/// # Errors
/// As there; see also [`CountdownSettings::check`].
pub fn generate(settings: &CountdownSettings, out: &Path, overwrite: bool, on_example: &dyn Fn()) -> Result<Manifest> {
    settings.check()?;
    let draw = |number| draw(settings, number);
    dataset(settings, &draw)?.generate(out, overwrite, on_example)
}

fn dataset<'a>(settings: &CountdownSettings, draw: &'a dyn Fn(u64) -> Option<TextExample>) -> Result<TextDataset<'a>> {
    Ok(TextDataset {
        task: NAME,
        count: settings.count,
        split: settings.split,
        seed: settings.seed,
        settings: serde_json::to_value(settings).map_err(|e| Error::failed(format!("settings: {e}")))?,
        widen: "--numbers, --max-number or --max-target",
        draw,
    })
}

fn draw(settings: &CountdownSettings, number: u64) -> Option<TextExample> {
    let puzzle = CountdownPuzzle::draw(settings, number)?;
    let (key, hash) = puzzle.key();
    let CountdownPuzzle { numbers, target, solution, steps } = puzzle;
    let style = settings.style;
    Some(TextExample {
        key,
        hash,
        question: question(&numbers, target, style),
        response: respond(style, &steps, &solution),
        answer: solution,
        meta: Map::from_iter([
            ("numbers".to_string(), json!(numbers)),
            ("target".to_string(), json!(target)),
            ("style".to_string(), json!(style)),
        ]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Dataset;
    use crate::tasks::split::SPLITS;
    use crate::tasks::{self, Style};
    use std::collections::HashSet;
    use std::fs;

    fn settings() -> CountdownSettings {
        CountdownSettings {
            numbers: "3-4".parse().unwrap(),
            max_number: 20,
            max_target: 60,
            count: 60,
            style: Style::Think,
            seed: 5,
            split: "0.5,0.2,0.3".parse().unwrap(),
        }
    }

    #[test]
    fn a_dataset_is_the_same_again_reads_back_and_its_references_earn_everything() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| dir.path().join(name));
        let first = generate(&settings(), &a, false, &|| ()).unwrap();
        assert_eq!(first.sha256, generate(&settings(), &b, false, &|| ()).unwrap().sha256);
        assert_eq!(first.splits.values().map(|split| split.records).collect::<Vec<_>>(), [18, 30, 12]);
        assert_eq!(first.settings["task"], "countdown");
        let mut seen = HashSet::new();
        for split in SPLITS {
            let task = tasks::load(&a, split).unwrap();
            for i in 0..task.len() {
                let record = task.example(i).unwrap();
                let score = task.score(i, record.response().unwrap());
                assert!(score.correct && score.well_formed, "{record:?}");
                let mut numbers: Vec<u64> = serde_json::from_value(record.meta["numbers"].clone()).unwrap();
                numbers.sort_unstable();
                assert!(seen.insert((numbers, record.meta["target"].to_string())), "twice: {record:?}");
            }
            let chance = task.mean_chance(task.len()).unwrap();
            assert!(chance.accuracy > 0.0 && chance.accuracy < 0.2, "{chance:?}");
            // Text only: no field and no folder for images.
            let text = fs::read_to_string(a.join(split).join(crate::data::METADATA)).unwrap();
            assert!(!text.contains("images") && !text.contains("file_name") && !a.join(split).join("images").exists());
        }
        assert_eq!(Dataset::open(&a, "test").unwrap().len(), 18);
    }

    #[test]
    fn no_training_puzzle_of_one_seed_is_a_test_puzzle_of_another() {
        let settings = CountdownSettings { count: 400, ..settings() };
        let hashes = |seed, side: usize| -> HashSet<[u8; 32]> {
            let settings = CountdownSettings { seed, ..settings.clone() };
            let examples = dataset(&settings, &|number| draw(&settings, number)).unwrap().examples().unwrap();
            examples[side].iter().map(|example| example.hash).collect()
        };
        assert!(hashes(1, 0).is_disjoint(&hashes(2, 2)));
    }

    #[test]
    fn what_cannot_be_made_is_refused_with_the_setting() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |change: &dyn Fn(&mut CountdownSettings)| {
            let mut settings = settings();
            change(&mut settings);
            let out = dir.path().join("out");
            let error = generate(&settings, &out, false, &|| ()).unwrap_err();
            assert!(error.exit_code() == 2 && !out.exists(), "{error}");
            error.to_string()
        };
        assert!(refused(&|s| s.count = 0).contains("count 0"));
        assert!(refused(&|s| s.count = 2).contains("too few"));
        assert!(refused(&|s| s.max_number = 0).contains("max-number 0"));
        assert!(refused(&|s| s.max_target = 10_001).contains("max-target 10001"));
        let few = refused(&|s| (s.numbers, s.max_number) = ("2".parse().unwrap(), 2));
        assert!(few.contains("different puzzles") && few.contains("--max-number"), "{few}");
    }
}
