//! A file of JSON lines that grows as a measurement goes on and is gone on with after an interruption.

use crate::io::files;
use crate::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

/// What the file holds.
#[derive(Debug)]
pub struct JsonlLog<T> {
    path: PathBuf,
    lines: Vec<T>,
    /// Offset at which each line ends, after a first 0.
    ends: Vec<u64>,
}

impl<T: Serialize + DeserializeOwned> JsonlLog<T> {
    /// Read the whole lines of `path`, if there is such a file. What follows the last newline is a torn write.
    ///
    /// # Errors
    /// An input error that names file and line of what is not a `T`.
    pub fn open(path: &Path) -> Result<JsonlLog<T>> {
        let mut found = JsonlLog { path: path.to_path_buf(), lines: Vec::new(), ends: vec![0] };
        if !path.exists() {
            return Ok(found);
        }
        let bytes = files::read(path)?;
        let mut end = 0;
        for line in bytes.split_inclusive(|&b| b == b'\n').filter(|line| line.ends_with(b"\n")) {
            end += line.len() as u64;
            found.lines.push(serde_json::from_slice(line).map_err(|e| {
                Error::input(format!("{}:{}: {e}; --fresh starts over", path.display(), found.lines.len() + 1))
            })?);
            found.ends.push(end);
        }
        Ok(found)
    }

    /// What is there.
    pub fn lines(&self) -> &[T] {
        &self.lines
    }

    /// An input error about line `i` (from 0), which ought to be another one.
    pub fn wrong(&self, i: usize, expected: &str) -> Error {
        Error::input(format!(
            "{}:{}: {expected} was expected here; the file is of another measurement or was changed; --fresh starts over",
            self.path.display(),
            i + 1
        ))
    }

    /// Keep the first `n` lines, in memory and in the file, and nothing torn behind them.
    pub fn cut(&mut self, n: usize) -> Result<()> {
        self.lines.truncate(n);
        self.ends.truncate(self.lines.len() + 1);
        if self.path.exists() {
            let end = self.ends.last().copied().unwrap_or(0);
            let cut = OpenOptions::new().write(true).open(&self.path).and_then(|file| file.set_len(end));
            cut.map_err(|e| Error::failed(format!("cannot shorten {}: {e}", self.path.display())))?;
        }
        Ok(())
    }

    /// Append, in one write.
    pub fn append(&mut self, lines: Vec<T>) -> Result<()> {
        let failed = |e: &dyn std::fmt::Display| Error::failed(format!("cannot write {}: {e}", self.path.display()));
        let mut text = Vec::new();
        let start = self.ends.last().copied().unwrap_or(0);
        let mut ends = Vec::with_capacity(lines.len());
        for line in &lines {
            serde_json::to_writer(&mut text, line).map_err(|e| failed(&e))?;
            text.push(b'\n');
            ends.push(start + text.len() as u64);
        }
        let file = OpenOptions::new().create(true).append(true).open(&self.path);
        file.and_then(|mut file| file.write_all(&text)).map_err(|e| failed(&e))?;
        self.ends.extend(ends);
        self.lines.extend(lines);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_line_is_dropped_and_the_file_goes_on_after_a_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("numbers.jsonl");
        let mut lines: JsonlLog<u32> = JsonlLog::open(&path).unwrap();
        assert!(lines.lines().is_empty());
        lines.append(vec![1, 20]).unwrap();
        lines.append(vec![300]).unwrap();
        std::fs::write(&path, [std::fs::read(&path).unwrap().as_slice(), b"40"].concat()).unwrap();
        let mut lines: JsonlLog<u32> = JsonlLog::open(&path).unwrap();
        assert_eq!(lines.lines(), [1, 20, 300]);
        lines.cut(2).unwrap();
        lines.append(vec![5]).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n20\n5\n");
        assert_eq!(JsonlLog::<u32>::open(&path).unwrap().lines(), [1, 20, 5]);
    }

    #[test]
    fn a_line_that_cannot_be_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("numbers.jsonl");
        std::fs::write(&path, "1\ntwo\n3\n").unwrap();
        let error = JsonlLog::<u32>::open(&path).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("numbers.jsonl:2:"), "{error}");
    }
}
