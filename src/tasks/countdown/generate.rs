//! Makes a dataset of countdown puzzles: every one has a solution, and no two have the same numbers and target.
//!
//! A puzzle's split follows from its numbers, its target and the ratios alone, so datasets made with other seeds never have one's
//! training puzzle in another's test set.

use super::puzzle::CountdownPuzzle;
use super::question::{NAME, question};
use super::settings::CountdownSettings;
use crate::data::{DatasetWriter, Digest, Manifest, Message, Record};
use crate::tasks::generator::{Generator, SourcePool, SplitWriter, make_split, write_records};
use crate::tasks::response::respond;
use crate::tasks::split::SPLITS;
use crate::{Error, Result};
use serde_json::json;
use std::collections::HashSet;
use std::convert::Infallible;
use std::path::Path;

/// After so many draws without a puzzle that is new and of use, there are no more.
const MAX_MISSES: usize = 200_000;

/// Make the dataset in `out` (see [`DatasetWriter::create`] for `overwrite`). `on_example` is called for each puzzle made, from any thread.
/// An interrupted call leaves a directory without a manifest, which no reader accepts.
///
/// # Errors
/// Input errors: see [`CountdownSettings::check`]; fewer different puzzles than asked for; an output directory that holds something else.
pub fn generate(
    settings: &CountdownSettings,
    out: &Path,
    overwrite: bool,
    on_example: &(dyn Fn() + Sync),
) -> Result<Manifest> {
    settings.check()?;
    let wanted = settings.split.apportion(settings.count)?;
    let puzzles = draw(settings, &wanted)?;
    let mut about = serde_json::to_value(settings).map_err(|e| Error::failed(format!("settings: {e}")))?;
    about["task"] = json!(NAME);
    let mut writer = DatasetWriter::create(out, overwrite)?;
    writer.expect_settings(&about)?;
    let generator = CountdownGenerator { settings };
    for (side, split) in SPLITS.into_iter().enumerate().filter(|(side, _)| wanted[*side] > 0) {
        writer.create_split(split, false)?;
        let output = SplitWriter { split, writer: &writer, on_example };
        let pool = SourcePool { slots: (0..wanted[side]).collect(), sources: &puzzles[side] };
        let made = make_split(&generator, &output, vec![pool], &mut |_| Ok(()))?;
        write_records(&generator, &mut writer, split, &made.unwrap_or_default())?;
    }
    writer.finish(Manifest { settings: about, ..Manifest::default() })
}

/// Different puzzles for each split.
fn draw(settings: &CountdownSettings, wanted: &[usize; 3]) -> Result<[Vec<CountdownPuzzle>; 3]> {
    let mut puzzles: [Vec<CountdownPuzzle>; 3] = Default::default();
    let (mut seen, mut misses) = (HashSet::new(), 0);
    for number in 0.. {
        if (0..SPLITS.len()).all(|side| puzzles[side].len() == wanted[side]) {
            break;
        }
        if misses == MAX_MISSES {
            let found: usize = puzzles.iter().map(Vec::len).sum();
            return Err(Error::input(format!(
                "count {}: only {found} different puzzles were found for these splits; ask for fewer, or allow more with --numbers, \
                 --max-number or --max-target",
                settings.count
            )));
        }
        misses += 1;
        let Some(puzzle) = CountdownPuzzle::draw(settings, number) else { continue };
        let hash = puzzle.hash();
        let side = settings.split.side(&hash);
        if puzzles[side].len() < wanted[side] && seen.insert(hash) {
            puzzles[side].push(puzzle);
            misses = 0;
        }
    }
    Ok(puzzles)
}

struct CountdownGenerator<'a> {
    settings: &'a CountdownSettings,
}

impl Generator for CountdownGenerator<'_> {
    type Source = CountdownPuzzle;
    type Example = ();
    type Refusal = Infallible;

    fn make(
        &self,
        split: &SplitWriter<'_>,
        _: &CountdownPuzzle,
        slots: &[(usize, u64)],
    ) -> Result<std::result::Result<Vec<()>, Infallible>> {
        Ok(Ok(slots.iter().map(|_| (split.on_example)()).collect()))
    }

    fn records(&self, split: &str, slot: usize, puzzle: &CountdownPuzzle, (): &()) -> Vec<(Record, Vec<Digest>)> {
        let CountdownPuzzle { numbers, target, solution, steps } = puzzle;
        let style = self.settings.style;
        let message = |role: &str, content: String| Message { role: role.into(), content };
        let meta = json!({"numbers": numbers, "target": target, "style": style});
        let record = Record {
            file_name: String::new(),
            id: format!("{split}-{slot:06}"),
            task: NAME.into(),
            messages: vec![
                message("user", question(numbers, *target, style)),
                message("assistant", respond(style, steps, solution)),
            ],
            images: Vec::new(),
            answer: solution.clone(),
            source: "synthetic".into(),
            seed: self.settings.seed,
            meta: meta.as_object().cloned().unwrap_or_default(),
        };
        vec![(record, Vec::new())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Dataset;
    use crate::tasks::{self, Style};
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
        let wanted = settings.split.apportion(settings.count).unwrap();
        let hashes = |seed, side: usize| -> HashSet<[u8; 32]> {
            let puzzles = draw(&CountdownSettings { seed, ..settings.clone() }, &wanted).unwrap();
            puzzles[side].iter().map(CountdownPuzzle::hash).collect()
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
