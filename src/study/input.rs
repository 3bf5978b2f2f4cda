//! Files of the user's that a task reads: their content is recorded with the task, because its command line holds only their names.

use crate::io::hex;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::OnceLock;

/// A file of the user's: settings of training, or a benchmark.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// Where it is, as written in the study.
    pub path: PathBuf,
    seen: OnceLock<Option<String>>,
}

impl Input {
    /// The file at `path`, which is not looked at yet.
    pub fn new(path: PathBuf) -> Input {
        Input { path, seen: OnceLock::new() }
    }

    /// As [`Input::hash`], when this was asked first: benchmarks are large, and many tasks read the same.
    pub fn seen(&self) -> Option<&str> {
        self.seen.get_or_init(|| self.hash()).as_deref()
    }

    /// SHA-256 of its content now; `None` if it cannot be read, which the task says in its own words.
    pub fn hash(&self) -> Option<String> {
        let mut file = File::open(&self.path).ok()?;
        let (mut hash, mut chunk) = (Sha256::new(), vec![0; 1 << 17]);
        loop {
            match file.read(&mut chunk).ok()? {
                0 => return Some(hex(&hash.finalize())),
                n => hash.update(&chunk[..n]),
            }
        }
    }
}
