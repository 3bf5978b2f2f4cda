//! Evaluation of a solver of puzzles that is no model: the same scorers and files as for a checkpoint. In the place of the model's hash the key
//! has the solver's name and version, and the hash of what it learnt from.

use super::evaluate_checkpoint::split_of;
use super::{EvalDir, EvalResult, evaluate_in};
use crate::Result;
use crate::model::SamplingParams;
use crate::sampling::{
    Prompts, Responder, Response, SampleOptions, SamplePlan, SampleProgress, SamplingKey, hash_examples,
};
use crate::tasks::benchmarks::DEFAULT_NEW_TOKENS;
use crate::tasks::{self, Solver, SolverKind};
use rayon::prelude::*;
use std::path::PathBuf;

/// Puzzles solved at a time, between two writes.
const BATCH: usize = 256;

/// An evaluation of a solver on a dataset of puzzles.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct SolverEvalRequest {
    /// How they are solved.
    pub solver: SolverKind,
    /// The dataset whose train split the solver by colour learns from.
    pub train: PathBuf,
    /// Dataset directory, or a file of records.
    pub data: PathBuf,
    /// Split of a directory.
    pub split: String,
    /// Only the first so many puzzles.
    pub limit: Option<usize>,
    /// Directory for responses and result.
    pub out: PathBuf,
    /// Start over, whatever is in `out`.
    pub fresh: bool,
}

/// Run an evaluation, or what is left of it; a finished one is only read.
///
/// # Errors
/// An input error for data that is no order puzzles, no train split to learn from, or an `out` that holds something else.
pub fn evaluate_solver(request: &SolverEvalRequest, progress: impl FnMut(SampleProgress)) -> Result<EvalResult> {
    let SolverEvalRequest { solver: kind, train, data, split, limit, out, fresh } = request;
    let task = tasks::load(data, split)?;
    let name = kind.to_string();
    let mut key = format!("{name} {}", SolverKind::VERSION);
    let solver = match kind {
        SolverKind::Edges => Solver::Edges,
        SolverKind::Colour => {
            let train = tasks::load(train, "train")
                .map_err(|e| e.context("--solver colour learns from training puzzles (--solver-train DIR)"))?;
            let (shown, gold) = hash_examples(train.as_ref(), train.len().min(Solver::TRAINED_ON))?;
            key += &format!(" {shown} {gold}");
            Solver::by_colour(train.as_ref())?
        }
    };
    let plan = SamplePlan { limit: *limit, num_generations: 1, batch_size: BATCH };
    let sampling = SamplingParams::greedy(DEFAULT_NEW_TOKENS);
    let key = SamplingKey::new(&key, "", task.as_ref(), &plan, &sampling)?;
    let directory = EvalDir::open_for_server(out, key, &name, data, split_of(data, split), *fresh)?;
    evaluate_in(&directory, &solver, task.as_ref(), &plan, &sampling, progress)
}

impl Responder for Solver {
    fn respond(&self, prompts: &Prompts<'_>, _: &SampleOptions<'_>) -> Result<Vec<Vec<Response>>> {
        let one = |&i: &usize| Ok(vec![Response::text(Solver::respond(self, prompts.task, i)?)]);
        prompts.examples.par_iter().map(one).collect()
    }
}
