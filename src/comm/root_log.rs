//! A log of JSON lines that rank 0 alone reads and writes, and whose lines every rank has.

use super::Communicator;
use crate::Result;
use crate::io::jsonl::JsonlLog;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;

/// An open log.
#[derive(Debug)]
pub struct RootLog<T> {
    /// The file, on rank 0.
    pub file: Option<JsonlLog>,
    /// Its lines.
    pub lines: Vec<T>,
}

impl<T: Serialize + DeserializeOwned> RootLog<T> {
    /// Open the log at `path`. `usable` finds with how many of the lines that are there the work goes on; the lines after these are cut off.
    ///
    /// # Errors
    /// An input error that names file and line of what is not a `T`; those of `usable`; a failure to write; and see
    /// [`Communicator::all_gather`].
    pub fn open(
        path: &Path,
        comm: &dyn Communicator,
        usable: impl FnOnce(&JsonlLog, &[T]) -> Result<usize>,
    ) -> Result<RootLog<T>> {
        let mut file = None;
        let lines = comm.on_root(|| {
            let (mut log, mut lines) = JsonlLog::open::<T>(path)?;
            lines.truncate(usable(&log, &lines)?);
            log.truncate(lines.len())?;
            file = Some(log);
            Ok(lines)
        })?;
        Ok(RootLog { file, lines })
    }

    /// Append lines, the same on every rank, in one write.
    ///
    /// # Errors
    /// A failure to write.
    pub fn append(&mut self, lines: Vec<T>) -> Result<()> {
        self.file.as_mut().map_or(Ok(()), |log| log.append(&lines))?;
        self.lines.extend(lines);
        Ok(())
    }
}
