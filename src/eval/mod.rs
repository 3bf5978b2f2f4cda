//! Evaluation: a task's examples through a model or a server, every response kept on disk as it comes, the result written last. An
//! interrupted evaluation continues; a finished one is only read.

pub mod bench;
mod eval_dir;
mod evaluate;
mod evaluate_api;
mod evaluate_checkpoint;
mod evaluate_solver;
mod kl_divergence;
mod logprobs;

pub use eval_dir::{EvalDir, EvalInfo, EvalResult, PREDICTIONS};
pub use evaluate::{evaluate_in, predict_in};
pub use evaluate_api::{ServerEvalRequest, evaluate_server};
pub use evaluate_checkpoint::{EvalRequest, evaluate_checkpoint};
pub use evaluate_solver::{SolverEvalRequest, evaluate_solver};
pub use kl_divergence::{
    AnswerLogprobs, BATCH, BaseSamples, Comparison, Divergence, DivergenceStats, GoldAnswer, MeasuredDivergence,
    OwnAnswers, PromptDivergence, PromptRole, spread, token_divergences,
};
pub use logprobs::{ResponseScore, check_ranks, missing_responses, score_responses};

#[cfg(test)]
mod tests;
