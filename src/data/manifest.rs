//! `manifest.json`: what a dataset holds and how it was made. It is written last, so a dataset without one is unfinished.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// File name of the manifest.
pub const MANIFEST: &str = "manifest.json";

/// Counts and content hash of one split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitSummary {
    /// Number of records.
    pub records: usize,
    /// Number of different source images.
    pub sources: usize,
    /// SHA-256 over each record's line followed by the SHA-256 of each of its image files, in order.
    pub sha256: String,
}

/// A source image that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Path relative to the images folder.
    pub file: String,
    /// Why.
    pub reason: String,
}

/// Where a source image comes from, and on which terms (a row of the images folder's `ATTRIBUTION.tsv`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribution {
    /// Path relative to the images folder.
    pub file: String,
    /// Licence as written there.
    pub licence: String,
    /// Author as written there.
    pub author: String,
    /// Address it was taken from.
    pub source: String,
    /// What it shows, as one of a few classes; empty if the table has no such column or the photo fits none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub class: String,
}

/// The whole manifest.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// `jigsaw`.
    pub tool: String,
    /// Version of the tool that wrote the dataset.
    pub version: String,
    /// SHA-256 over name and hash of each split.
    pub sha256: String,
    /// Splits by name.
    pub splits: BTreeMap<String, SplitSummary>,
    /// The settings the dataset was made with.
    #[serde(default)]
    pub settings: serde_json::Value,
    /// Number of source images used under each licence; empty if the sources say nothing.
    #[serde(default)]
    pub licences: BTreeMap<String, usize>,
    /// Origin of each source image used.
    #[serde(default)]
    pub attribution: Vec<Attribution>,
    /// Source images left out because they could not be used.
    #[serde(default)]
    pub skipped: Vec<Skipped>,
    /// Source images that could be read but gave no puzzles: the same content as another, or too plain.
    #[serde(default)]
    pub left_out: Vec<Skipped>,
    /// The dataset was there already, with the same content: nothing was written.
    #[serde(skip)]
    pub found: bool,
}
