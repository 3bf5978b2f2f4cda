//! The jigsaw: an image is cut into tiles and shuffled; the question is how they go back. Pure, but for `generate`. What an answer is worth stands in
//! [`order_scorer`]; the reward weighs that ([`crate::tasks::RewardSettings`]).

mod answer;
mod chance;
mod cut;
mod draw;
pub mod generate;
mod grid;
mod order_scorer;
mod pair_scorer;
mod permutation;
mod question;
mod solver;
mod teacher;
mod tile_features;
mod tile_pair;

pub use answer::{OrderError, permutation_answer};
pub use cut::{restore, shuffle};
pub use grid::{Grid, MAX_TILES};
pub use order_scorer::{JigsawScorer, PARTIAL_CREDIT};
pub use pair_scorer::PairScorer;
pub use permutation::Permutation;
pub use question::{ORDER, PAIR, QuestionKind, order_question, pair_question, respond};
pub use solver::{Solver, SolverKind};
pub use teacher::ScriptedTeacher;
pub use tile_pair::{PairDirection, PairPuzzle};
