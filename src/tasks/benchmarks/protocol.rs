//! Everything that was chosen for a benchmark and moves its score, as it stands beside the result.

use super::boxes::Corners;
use super::registry::Benchmark;
use crate::tasks::scorers::CoordinateSpace;
use serde::{Deserialize, Serialize};

/// The bounds that images are resized within.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pixels {
    /// Fewest pixels of a resized image.
    pub min: usize,
    /// Most pixels of a resized image.
    pub max: usize,
    /// Sides are multiples of this.
    pub factor: usize,
}

/// How a benchmark was put to the model and scored. Part of the key of its evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Protocol {
    /// The known benchmark, or the scorer for a file of one's own; `None` for a file whose rows name their scorers, and for a
    /// dataset directory.
    pub benchmark: Option<String>,
    /// Rules that scored the answers, joined by `+`.
    pub scorer: String,
    /// The template of the question; `None` if it was asked as it is.
    pub prompt: Option<String>,
    /// The bounds that images were resized within; `None` for a server, which gets them as they are.
    pub pixels: Option<Pixels>,
    /// What the coordinates of answers count, where boxes are asked for.
    pub space: Option<CoordinateSpace>,
    /// What the numbers of the file's gold boxes are.
    pub corners: Option<Corners>,
    /// The rows that were taken, by their `split` or `category`; empty for all.
    pub rows: Vec<String>,
}

impl Protocol {
    /// Of a file; `None` for one whose rows name their scorers.
    pub(super) fn of_file(benchmark: Option<&Benchmark>, scorer: &str, pixels: Option<Pixels>) -> Self {
        Protocol {
            benchmark: benchmark.map(|b| b.name.to_string()),
            scorer: scorer.to_string(),
            prompt: benchmark.map(|b| format!("{}{}", b.prompt, b.ask)),
            pixels,
            space: benchmark.and_then(|b| b.space),
            corners: benchmark.and_then(|b| b.corners),
            rows: benchmark.map(|b| b.rows.iter().map(|r| r.to_string()).collect()).unwrap_or_default(),
        }
    }

    /// Of a dataset directory, whose records say themselves how they are asked and scored.
    pub fn of_dataset(scorer: &str, pixels: Option<Pixels>) -> Self {
        Protocol::of_file(None, scorer, pixels)
    }
}
