//! Several benchmarks in one evaluation. Every file is read and checked before the model is loaded, and the model is loaded once.
//!
//! [`prepare`] reads what the [`BenchmarkSpec`]s name, [`run`] evaluates one checkpoint on it into `OUT/<name>/`, each benchmark as
//! [`evaluate_in`](super::evaluate_in) leaves it, and writes `OUT/results.json` and `OUT/results.csv` over all of them.

mod prepare;
mod rescore;
mod results;
mod run;
mod spec;

pub use prepare::{BenchmarkSettings, PreparedBenchmark, prepare, prepare_for_server};
pub use rescore::{rescore, task_of};
pub use results::{RESULTS_CSV, RESULTS_JSON, write_results};
pub use run::{run, run_server};
pub use spec::BenchmarkSpec;

#[cfg(test)]
mod tests;
