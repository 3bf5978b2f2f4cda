//! Datasets of generated questions in text: drawn one after another, put into splits, written.

use super::split::{SPLITS, SplitRatios};
use crate::data::{DatasetWriter, Manifest, Message, Record};
use crate::{Error, Result};
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::path::Path;

/// After so many draws without a question that is new and of use, there are no more.
const MAX_MISSES: usize = 200_000;

/// A question with its answer.
pub struct TextExample {
    /// What makes it another question than those before it.
    pub key: String,
    /// Decides its split: questions with the same hash are never on two sides, whatever the seed.
    pub hash: [u8; 32],
    /// The prompt.
    pub question: String,
    /// The reference response.
    pub response: String,
    /// The gold answer.
    pub answer: String,
    /// What the scorer needs besides.
    pub meta: Map<String, Value>,
}

/// What to draw.
pub struct TextDataset<'a> {
    /// Name of the task.
    pub task: &'static str,
    /// Questions over all splits.
    pub count: usize,
    /// Ratios of the splits.
    pub split: SplitRatios,
    /// Seed of everything random.
    pub seed: u64,
    /// The settings, as the manifest has them.
    pub settings: Value,
    /// Flags that allow more different questions.
    pub widen: &'static str,
    /// The question of this number in the stream of the seed; `None` if what was drawn cannot be used.
    pub draw: &'a dyn Fn(u64) -> Option<TextExample>,
}

impl TextDataset<'_> {
    /// Make the dataset in `out` (see [`DatasetWriter::create`] for `overwrite`). `on_example` is called for each question.
    /// An interrupted call leaves a directory without a manifest, which no reader accepts.
    ///
    /// # Errors
    /// Input errors: fewer different questions than asked for; an output directory that holds something else.
    pub fn generate(mut self, out: &Path, overwrite: bool, on_example: &dyn Fn()) -> Result<Manifest> {
        let examples = self.examples()?;
        self.settings["task"] = self.task.into();
        let mut writer = DatasetWriter::create(out, overwrite)?;
        writer.expect_settings(&self.settings)?;
        for (split, examples) in SPLITS.into_iter().zip(examples).filter(|(_, examples)| !examples.is_empty()) {
            writer.create_split(split, false)?;
            let records = examples.into_iter().enumerate().map(|(slot, example)| {
                on_example();
                (self.record(split, slot, example), Vec::new())
            });
            writer.write_records(split, records)?;
        }
        writer.finish(Manifest { settings: self.settings, ..Manifest::default() })
    }

    /// Different questions for each split.
    pub fn examples(&self) -> Result<[Vec<TextExample>; 3]> {
        let wanted = self.split.apportion(self.count)?;
        let mut examples: [Vec<TextExample>; 3] = Default::default();
        let (mut seen, mut misses) = (HashSet::new(), 0);
        for number in 0.. {
            if (0..SPLITS.len()).all(|side| examples[side].len() == wanted[side]) {
                break;
            }
            if misses == MAX_MISSES {
                let found: usize = examples.iter().map(Vec::len).sum();
                return Err(Error::input(format!(
                    "count {}: only {found} different puzzles were found for these splits; ask for fewer, or allow more with {}",
                    self.count, self.widen
                )));
            }
            misses += 1;
            let Some(example) = (self.draw)(number) else { continue };
            let side = self.split.side(&example.hash);
            if examples[side].len() < wanted[side] && seen.insert(example.key.clone()) {
                examples[side].push(example);
                misses = 0;
            }
        }
        Ok(examples)
    }

    fn record(&self, split: &str, slot: usize, example: TextExample) -> Record {
        let message = |role: &str, content: String| Message { role: role.into(), content };
        Record {
            file_name: String::new(),
            id: format!("{split}-{slot:06}"),
            task: self.task.into(),
            messages: vec![message("user", example.question), message("assistant", example.response)],
            images: Vec::new(),
            answer: example.answer,
            source: "synthetic".into(),
            seed: self.seed,
            meta: example.meta,
        }
    }
}
