//! The user's files that a task reads. Their hashes are recorded with the task, whose request holds only their names.

use crate::io::{files, hex};
use sha2::{Digest as _, Sha256};
use std::io::Read;
use std::path::PathBuf;
use std::sync::OnceLock;

/// One of the user's files: settings of training, or a benchmark.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// Where it is, as written in the study.
    pub path: PathBuf,
    first: OnceLock<Option<String>>,
}

impl Input {
    /// The file at `path`, not read yet.
    pub fn new(path: PathBuf) -> Input {
        Input { path, first: OnceLock::new() }
    }

    /// [`Input::hash`] as it was at the first call: benchmarks are large, and many tasks read the same one.
    pub fn first_hash(&self) -> Option<&str> {
        self.first.get_or_init(|| self.hash()).as_deref()
    }

    /// SHA-256 of its content now; `None` if it cannot be read, which the task itself reports.
    pub fn hash(&self) -> Option<String> {
        let mut file = files::open_regular(&self.path).ok()?;
        let (mut hash, mut chunk) = (Sha256::new(), vec![0; 1 << 17]);
        loop {
            match file.read(&mut chunk).ok()? {
                0 => return Some(hex(&hash.finalize())),
                n => hash.update(&chunk[..n]),
            }
        }
    }
}
