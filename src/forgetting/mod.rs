//! What a fine-tune cost: a tuned model against the base it came from, on the same examples, by the same scorers.
//!
//! Every number of a change is paired: both models' responses to the same example are compared before anything is averaged.
//! `docs/forgetting.md` has the formulas and their sources.

mod change;
mod compare;
mod csv;
mod divergence_log;
mod family;
mod gate;
mod gold;
mod group_mean;
mod outcome_means;
mod outcome_tables;
mod overlap;
mod pairing;
mod prompt_sets;
mod question_score;
mod questions;
mod result;
mod table;
mod transitions;
mod write;

pub use change::{Change, IntervalMethod, ModelScores};
pub use compare::{CompareObserver, CompareRequest, PROMPTS, run};
pub use csv::{CSV_HEADER, CsvRow, rows};
pub use gate::{GATE_MD, GateRule, Judgement, Verdict, judge, markdown as gate_table};
pub use gold::{GoldChange, GoldItem, PairedMean, gold_by_group};
pub use group_mean::GroupMean;
pub use outcome_tables::{divergences, gold_table, transitions_table, weights_table};
pub use pairing::{ExampleLabel, FinishedEval, PairedOutcomes, comparable, pair};
pub use question_score::QuestionScore;
pub use result::{
    ALL, AggregateChange, BenchmarkChange, BenchmarkTitle, CategoryChange, FORMAT_VERSION, ForgettingResult,
    MeasuredBenchmark, ModelRef, NEW_TASK, NamedInterval, RunRef, TunedResult,
};
pub use table::{aggregates, summary, table};
pub use transitions::{TransitionShare, Transitions};
pub use write::{FORGETTING_CSV, FORGETTING_JSON, FORGETTING_MD, write};
pub(crate) use write::{NOTES, brief, brief_data, of_model};

#[cfg(test)]
mod coverage;
#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod mean_tests;
#[cfg(test)]
mod tests;
