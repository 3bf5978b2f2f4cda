//! A log of JSON lines that grows as a run continues and survives an interruption.
//!
//! Lines are appended with one write each call. A process that is killed may leave a torn last line; it is cut off when the log is
//! opened again. Nothing is synced but where [`JsonlLog::sync`] is called: a log that lost its last lines is continued from the lines
//! that are there.

use crate::io::files;
use crate::io::plain::json_fault;
use crate::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// An open log. Its file is made by the first line.
#[derive(Debug)]
pub struct JsonlLog {
    path: PathBuf,
    file: Option<File>,
    /// The offset at which the log begins, and the one at which each of its lines ends.
    ends: Vec<u64>,
}

impl JsonlLog {
    /// Open the log at `path`, and read its lines. A torn last line is cut off.
    ///
    /// # Errors
    /// An input error that names file and line of what is not a `T`.
    pub fn open<T: DeserializeOwned>(path: &Path) -> Result<(JsonlLog, Vec<T>)> {
        let mut log = JsonlLog { path: path.to_path_buf(), file: None, ends: vec![0] };
        let mut lines = Vec::new();
        for (line, end) in read_with_ends(path)? {
            lines.push(line);
            log.ends.push(end);
        }
        log.truncate(lines.len())?;
        Ok((log, lines))
    }

    /// Open the log at `path` where it had `size` bytes. What came later is cut off.
    ///
    /// # Errors
    /// A failure if the file is shorter than that.
    pub fn open_at(path: &Path, size: u64) -> Result<JsonlLog> {
        let failed = |e: std::io::Error| Error::failed(format!("cannot open {}: {e}", path.display()));
        if path.exists() {
            files::open(path)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(failed)?;
        let found = file.metadata().map_err(failed)?.len();
        if found < size {
            return Err(Error::failed(format!(
                "{} has {found} bytes, but the checkpoint was made when it had {size}: it was changed by hand; put it back, or give \
                 another --out",
                path.display()
            )));
        }
        file.set_len(size).map_err(failed)?;
        Ok(JsonlLog { path: path.to_path_buf(), file: Some(file), ends: vec![size] })
    }

    /// Keep the first `lines` lines that were read or appended.
    ///
    /// # Errors
    /// A failure to write.
    pub fn truncate(&mut self, lines: usize) -> Result<()> {
        self.ends.truncate(lines + 1);
        if self.path.exists() {
            let end = self.size();
            let cut = OpenOptions::new().write(true).open(&self.path).and_then(|file| file.set_len(end));
            cut.map_err(|e| Error::failed(format!("cannot shorten {}: {e}", self.path.display())))?;
        }
        Ok(())
    }

    /// Append a line for each value, in one write.
    ///
    /// # Errors
    /// A failure to write.
    pub fn append<T: Serialize>(&mut self, values: &[T]) -> Result<()> {
        let failed = |e: &dyn std::fmt::Display| Error::failed(format!("cannot write {}: {e}", self.path.display()));
        let mut text = Vec::new();
        let mut ends = Vec::with_capacity(values.len());
        for value in values {
            serde_json::to_writer(&mut text, value).map_err(|e| failed(&e))?;
            text.push(b'\n');
            ends.push(self.size() + text.len() as u64);
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let file = OpenOptions::new().create(true).append(true).open(&self.path).map_err(|e| failed(&e))?;
                self.file.insert(file)
            }
        };
        file.write_all(&text).map_err(|e| Error::failed(format!("cannot write {}: {e}", self.path.display())))?;
        self.ends.extend(ends);
        Ok(())
    }

    /// Bytes of the log.
    pub fn size(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Bytes of the log, once all of them are on the disk.
    ///
    /// # Errors
    /// A failure to write.
    pub fn sync(&mut self) -> Result<u64> {
        if let Some(file) = &self.file {
            file.sync_all().map_err(|e| Error::failed(format!("cannot write {}: {e}", self.path.display())))?;
        }
        Ok(self.size())
    }

    /// An input error about line `i` (from 0), where `expected` should be.
    pub fn unexpected_line(&self, i: usize, expected: &str) -> Error {
        Error::input(format!(
            "{}:{}: {expected} was expected here; the file is of another measurement or was changed; --fresh starts over",
            self.path.display(),
            i + 1
        ))
    }
}

/// The whole lines of a log that is not open; none where there is no file.
///
/// # Errors
/// As [`JsonlLog::open`].
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    Ok(read_with_ends(path)?.into_iter().map(|(line, _)| line).collect())
}

/// Write a log as a whole, or not at all.
///
/// # Errors
/// A failure to write.
pub fn write<T: Serialize>(path: &Path, values: &[T]) -> Result<()> {
    let mut text = Vec::new();
    for value in values {
        serde_json::to_writer(&mut text, value).map_err(|e| Error::failed(format!("{}: {e}", path.display())))?;
        text.push(b'\n');
    }
    files::write_atomic(path, &text)
}

/// The whole lines of a file with the offset at which each ends.
fn read_with_ends<T: DeserializeOwned>(path: &Path) -> Result<Vec<(T, u64)>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let bytes = files::read(path)?;
    let mut lines = Vec::new();
    let mut end = 0;
    // What follows the last newline is a torn write.
    for line in bytes.split_inclusive(|&b| b == b'\n').filter(|line| line.ends_with(b"\n")) {
        end += line.len() as u64;
        let value = serde_json::from_slice(line).map_err(|e| {
            Error::input(format!("{}:{}: {}; --fresh starts over", path.display(), lines.len() + 1, json_fault(&e)))
        })?;
        lines.push((value, end));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_line_is_cut_off_and_the_log_continues_after_a_truncation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("numbers.jsonl");
        let (mut log, lines) = JsonlLog::open::<u32>(&path).unwrap();
        assert!(lines.is_empty() && !path.exists());
        log.append(&[1, 20]).unwrap();
        log.append(&[300]).unwrap();
        std::fs::write(&path, [std::fs::read(&path).unwrap().as_slice(), b"40"].concat()).unwrap();
        assert_eq!(read::<u32>(&path).unwrap(), [1, 20, 300]);
        let (mut log, lines) = JsonlLog::open::<u32>(&path).unwrap();
        assert_eq!((lines, log.size()), (vec![1, 20, 300], 9));
        log.truncate(2).unwrap();
        log.append(&[5]).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n20\n5\n");
        assert_eq!(JsonlLog::open::<u32>(&path).unwrap().1, [1, 20, 5]);
    }

    #[test]
    fn a_line_that_cannot_be_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("numbers.jsonl");
        std::fs::write(&path, "1\ntwo\n3\n").unwrap();
        let error = JsonlLog::open::<u32>(&path).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("numbers.jsonl:2:"), "{error}");
    }
}
