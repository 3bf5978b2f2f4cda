//! The jigsaw itself: grid, permutation, question, answer parser, reward. Pure: no tensors, no files.

mod answer;
mod cut;
pub mod generate;
mod grid;
mod pair;
mod pair_scorer;
mod permutation;
mod question;
mod resize;
mod reward;
mod scorer;

pub use answer::{Fault, answer_block, check_format, letter, numbers, permutation_answer};
pub use cut::{restore, shuffle};
pub use grid::{Grid, MAX_TILES};
pub use pair::{Direction, PairPuzzle};
pub use pair_scorer::PairScorer;
pub use permutation::Permutation;
pub use question::{QuestionKind, Style, ask, order_question, pair_question, respond, with_picture};
pub use resize::resize;
pub use reward::{PermutationRule, Reward, RewardConfig};
pub use scorer::JigsawScorer;
