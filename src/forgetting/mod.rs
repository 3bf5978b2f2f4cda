//! What a fine-tune cost: a tuned model against the base it came from, on the same examples, by the same rules.
//!
//! Every number of a change is paired: both models' responses to the same example are compared before anything is averaged.
//! `docs/forgetting.md` has the formulas and their sources.

mod change;
mod evaluation;
mod family;
mod found;
mod group;
mod moved;
mod rows;
mod run;
mod shared;
mod table;
mod write;

pub use change::{Change, Method, Side};
pub use evaluation::{Evaluation, Label, Pairing, comparable, pair};
pub use found::{
    ALL, Aggregate, Benchmark, Compared, Forgetting, Model, NEW_TASK, NamedInterval, Part, Run, Title, Tuned,
};
pub use group::Group;
pub use rows::{HEADER, Row, rows};
pub use run::{Progress, Request, run};
pub use table::{aggregates, divergences, summary, table};
pub use write::{FORGETTING_CSV, FORGETTING_JSON, FORGETTING_MD, write};
pub(crate) use write::{NOTES, brief, brief_data, of_model};

#[cfg(test)]
pub(crate) mod made_up;
#[cfg(test)]
mod tests;
