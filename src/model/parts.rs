//! The parts of a model, by which weights are frozen and counted.

use serde::Serialize;

/// A part of a model. [`super::Architecture::part`] says which one a weight belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Part {
    /// The vision tower, without its merger.
    #[serde(rename = "vision tower")]
    Vision,
    /// What turns patches of the vision tower into tokens of the decoder.
    #[serde(rename = "merger")]
    Merger,
    /// The token embeddings.
    #[serde(rename = "embeddings")]
    Embeddings,
    /// The decoder's layers and final norm.
    #[serde(rename = "decoder")]
    Decoder,
    /// The output head, where it is a matrix of its own.
    #[serde(rename = "head")]
    Head,
}

impl Part {
    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Part::Vision => "vision tower",
            Part::Merger => "merger",
            Part::Embeddings => "embeddings",
            Part::Decoder => "decoder",
            Part::Head => "head",
        }
    }

    /// Whether only images reach it.
    pub fn is_vision(self) -> bool {
        matches!(self, Part::Vision | Part::Merger)
    }

    /// Whether `pattern` of `train.freeze` names a weight of this part and this name: `vision` (with the merger), `merger`, `embeddings`
    /// (with the head), `text` (all but `vision`), or the beginning of names.
    pub fn is_named_by(self, pattern: &str, parameter: &str) -> bool {
        match pattern {
            "vision" => self.is_vision(),
            "merger" => self == Part::Merger,
            "embeddings" => matches!(self, Part::Embeddings | Part::Head),
            "text" => !self.is_vision(),
            prefix => !prefix.is_empty() && parameter.starts_with(prefix),
        }
    }
}
