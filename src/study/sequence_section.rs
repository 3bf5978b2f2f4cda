//! `[sequence]` of a study's file, and the stages that it stands for.

use serde::Deserialize;

/// `[sequence]`: tasks learned in a row, by each of several methods; after each task the model is measured on all tasks and all prior sets.
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SequenceSection {
    /// Names of puzzles, in the order in which they are learned: at least two.
    pub tasks: Vec<String>,
    /// Names of regimes that say how a task is learned; each learns all tasks in a row. Data and start are those of the sequence.
    pub methods: Vec<String>,
    /// Regime (`NAME` or `NAME@LR`) whose model all methods start from, such as a short SFT that teaches the forms of the answers; it is run
    /// with one seed, and takes the base's place in all numbers. The base when not given.
    #[serde(default)]
    pub start: Option<String>,
}

/// A stage of a method: a task that it learns after others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// The method.
    pub method: String,
    /// Its place in the row, from 1.
    pub number: usize,
    /// The regime that it is; methods that do the same up to here share it.
    pub regime: String,
}
