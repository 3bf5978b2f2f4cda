//! The divergence on one set of prompts, on disk: a line for each prompt, written batch by batch, so that an interrupted measurement
//! resumes.

use crate::Result;
use crate::comm::{Communicator, RootLog};
use crate::eval::{BATCH, PromptDivergence};
use crate::io::json::named_differences;
use crate::io::{files, lock, output_dir};
use crate::model::ComputeDtype;
use crate::tasks::benchmarks::Protocol;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Raised whenever the same inputs would give another divergence.
const VERSION: u32 = 2;

/// Everything that decides the outcome.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DivergenceKey {
    /// Version of this program and of the measurement.
    pub code: String,
    /// Hash of the base's weights.
    pub base: String,
    /// Hash of the tuned model's weights.
    pub tuned: String,
    /// Hash of tokenizer, chat template and image settings.
    pub prompt: String,
    /// Hash of the examples.
    pub data: String,
    /// Type of the models' matrix products.
    #[serde(default, skip_serializing_if = "ComputeDtype::is_f32")]
    pub dtype: ComputeDtype,
    /// How the examples are put to the models.
    pub bench: Option<Protocol>,
    /// Number of prompts.
    pub prompts: usize,
    /// Longest response.
    pub max_new_tokens: usize,
    /// Seed of the sampling.
    pub seed: u64,
    /// Hash of the base's responses whose perplexity is measured.
    pub answers: String,
}

impl DivergenceKey {
    /// Version of this program and of the measurement.
    pub fn code() -> String {
        format!("{} divergence {VERSION}", env!("CARGO_PKG_VERSION"))
    }
}

/// Open `dir/<name>.jsonl` for these examples, of which some have a gold answer. What an interrupted run has left is cut back to whole batches; so
/// are lines that an earlier version wrote without the gold answer, which are measured again. With `fresh`, the file is removed.
///
/// # Errors
/// An input error if the file is of another measurement, or ranks have other keys.
pub fn open_log(
    dir: &Path,
    name: &str,
    key: &DivergenceKey,
    (examples, has_gold): (&[usize], &[bool]),
    fresh: bool,
    comm: &dyn Communicator,
) -> Result<RootLog<PromptDivergence>> {
    comm.check_same(key)?;
    let path = dir.join(format!("{name}.jsonl"));
    comm.on_root(|| prepare(dir, name, key, &path, fresh))?;
    RootLog::open(&path, comm, |log, lines: &[PromptDivergence]| {
        if let Some(at) = (0..lines.len()).find(|&at| examples.get(at) != Some(&lines[at].index)) {
            let expected = examples.get(at).map_or("the end".into(), |i| format!("example {i}"));
            return Err(log.unexpected_line(at, &expected));
        }
        let without_gold = lines.iter().zip(has_gold).position(|(line, has_gold)| *has_gold && line.gold.is_none());
        let usable = without_gold.unwrap_or(lines.len());
        Ok(if usable < examples.len() { usable / BATCH * BATCH } else { usable })
    })
}

/// Make the directory, and see that the file is of this measurement.
fn prepare(dir: &Path, name: &str, key: &DivergenceKey, path: &Path, fresh: bool) -> Result<()> {
    files::create_dir(dir)?;
    // The caller has locked the directory above it.
    lock::remove_temporaries(dir);
    let key_path = dir.join(format!("{name}.key.json"));
    if fresh {
        [path, &key_path].into_iter().try_for_each(files::remove_if_exists)?;
    }
    let what = format!("divergence {name}");
    let Some(found) = output_dir::read_key::<DivergenceKey>(&key_path, &what, path.exists())? else {
        return files::write_json(&key_path, key);
    };
    match named_differences(&found, key) {
        differences if differences.is_empty() => Ok(()),
        differences => Err(output_dir::holds_another(dir, &what, &differences, "", "")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::Single;
    use crate::eval::MeasuredDivergence;
    use std::fs;

    fn key(seed: u64) -> DivergenceKey {
        let text = |s: &str| s.to_string();
        let (base, tuned, prompt, data, answers) = (text("b"), text("t"), text("p"), text("d"), text("a"));
        let bench = None;
        DivergenceKey {
            code: DivergenceKey::code(),
            base,
            tuned,
            prompt,
            data,
            dtype: ComputeDtype::F32,
            bench,
            prompts: 20,
            max_new_tokens: 8,
            seed,
            answers,
        }
    }

    fn batch(indices: std::ops::Range<usize>) -> Vec<PromptDivergence> {
        let (token_ids, token_nats) = (vec![1, 2, 3], vec![0.0, 0.1, 0.0]);
        let measured = MeasuredDivergence { tokens: 3, nats: 0.1, finished: true, token_ids, token_nats };
        let line = |index| PromptDivergence {
            index,
            id: format!("e{index}"),
            forward: measured.clone(),
            reverse: measured.clone(),
            own: None,
            gold: None,
        };
        indices.map(line).collect()
    }

    #[test]
    fn an_interrupted_file_goes_on_at_a_whole_batch() {
        let dir = tempfile::tempdir().unwrap();
        let examples: Vec<usize> = (0..20).collect();
        let mut moved = open_log(dir.path(), "set", &key(0), (&examples, &[false; 20]), false, &Single).unwrap();
        moved.append(batch(0..8)).unwrap();
        moved.append(batch(8..16)).unwrap();
        let path = dir.path().join("set.jsonl");
        let text = fs::read(&path).unwrap();
        fs::write(&path, &text[..text.len() - 9]).unwrap();
        let mut moved = open_log(dir.path(), "set", &key(0), (&examples, &[false; 20]), false, &Single).unwrap();
        assert_eq!(moved.lines.len(), 8);
        moved.append(batch(8..16)).unwrap();
        moved.append(batch(16..20)).unwrap();
        assert_eq!(
            open_log(dir.path(), "set", &key(0), (&examples, &[false; 20]), false, &Single).unwrap().lines,
            batch(0..20)
        );
    }

    #[test]
    fn lines_of_an_earlier_version_without_gold_answers_are_measured_again() {
        let dir = tempfile::tempdir().unwrap();
        let examples: Vec<usize> = (0..20).collect();
        let open =
            |has_gold: &[bool]| open_log(dir.path(), "set", &key(0), (&examples, has_gold), false, &Single).unwrap();
        let mut moved = open(&[false; 20]);
        [0..8, 8..16, 16..20].into_iter().for_each(|part| moved.append(batch(part)).unwrap());
        drop(moved);
        assert_eq!(open(&[false; 20]).lines.len(), 20);
        let mut from_the_eleventh = [false; 20];
        from_the_eleventh[10..].fill(true);
        assert_eq!(open(&from_the_eleventh).lines.len(), 8);
    }

    #[test]
    fn another_seed_and_another_example_are_refused_until_fresh() {
        let dir = tempfile::tempdir().unwrap();
        let examples: Vec<usize> = (0..20).collect();
        open_log(dir.path(), "set", &key(0), (&examples, &[false; 20]), false, &Single)
            .unwrap()
            .append(batch(0..8))
            .unwrap();
        let error = open_log(dir.path(), "set", &key(1), (&examples, &[false; 20]), false, &Single).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("--fresh"), "{error}");
        let shifted: Vec<usize> = (1..21).collect();
        let error = open_log(dir.path(), "set", &key(0), (&shifted, &[false; 20]), false, &Single).unwrap_err();
        assert!(error.to_string().contains("set.jsonl:1: example 1 was expected"), "{error}");
        assert!(
            open_log(dir.path(), "set", &key(1), (&examples, &[false; 20]), true, &Single).unwrap().lines.is_empty()
        );
    }
}
