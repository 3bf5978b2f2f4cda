//! The program as a user runs it.

// Each test binary uses its part of this.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A command line: words, or a text of words, in which 'quotes' keep some together.
pub trait Line {
    fn words(&self) -> Vec<String>;
}

impl Line for &str {
    fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        for (i, part) in self.split('\'').enumerate() {
            match i % 2 {
                1 => words.push(part.to_string()),
                _ => words.extend(part.split_whitespace().map(String::from)),
            }
        }
        words
    }
}

impl Line for &String {
    fn words(&self) -> Vec<String> {
        self.as_str().words()
    }
}

impl Line for &[&str] {
    fn words(&self) -> Vec<String> {
        self.iter().map(|word| word.to_string()).collect()
    }
}

impl<const N: usize> Line for &[&str; N] {
    fn words(&self) -> Vec<String> {
        self.as_slice().words()
    }
}

/// The program under test: cargo's, or that of a test binary that was built elsewhere.
pub fn program() -> PathBuf {
    std::env::var_os("CARGO_BIN_EXE_jigsaw").unwrap_or_else(|| env!("CARGO_BIN_EXE_jigsaw").into()).into()
}

fn run(dir: &Path, words: &[String]) -> Output {
    Command::new(program()).args(words).current_dir(dir).output().unwrap()
}

impl Line for &Vec<&str> {
    fn words(&self) -> Vec<String> {
        self.as_slice().words()
    }
}

/// Run it in `dir`.
pub fn jigsaw(dir: &Path, line: impl Line) -> Output {
    run(dir, &line.words())
}

/// Run it with exit code 0; what it printed.
pub fn done(dir: &Path, line: impl Line) -> String {
    let words = line.words();
    let output = run(dir, &words);
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Run it with exit code 2 and nothing on stdout; what it said.
pub fn refused(dir: &Path, line: impl Line) -> String {
    let words = line.words();
    let output = run(dir, &words);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{words:?}: {said}");
    said
}
