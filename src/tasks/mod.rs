//! Tasks: what is asked, and what a response is worth.
//!
//! A [`Task`] is a set of examples, each with its [`Scorer`]. A scorer reads a response into a [`Score`]; the reward of training and
//! the accuracy of evaluation are both read from that. Nothing outside `jigsaw` knows of tiles. `docs/architecture.md` says how to
//! add a task or a scorer.

pub mod benchmarks;
mod chance;
pub mod countdown;
mod dataset;
mod encode;
mod generator;
pub mod jigsaw;
pub mod maths;
mod meta;
mod rational;
mod registry;
mod response;
mod reward;
mod score;
mod scorer;
pub mod scorers;
pub mod split;
pub mod suites;
mod task;
mod text_dataset;
mod text_form;

pub use chance::Chance;
pub use dataset::{DatasetTask, load, open_dataset};
pub use encode::{
    encode_demonstrated, encode_example, example_size, gold_response, named, reference_response, reference_sequence,
    text_bytes,
};
pub use jigsaw::{ScriptedTeacher, Solver, SolverKind};
pub use registry::{PARTIAL_CREDIT, partial_credit_label, scorer};
pub use response::{ResponseError, Style, answer_block, ask, check_format, choice_letter, with_image};
pub use reward::{Reward, RewardInput, RewardSettings, TERMS};
pub use score::{NoAnswer, Score};
pub use scorer::{AnswerDrawing, GoldDrawing, RegionMark, Scorer};
pub use task::Task;
