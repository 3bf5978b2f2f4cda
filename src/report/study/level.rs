//! The accuracy at which the regimes of a study are compared.

use super::load::StudyResults;
use super::seed_stats::common_accuracy;
use crate::report::trajectory;

/// The accuracy at which regimes are compared: see [`common_accuracy`].
pub fn level(study: &StudyResults<'_>) -> Option<f64> {
    let trajectories: Vec<_> = study.regimes.iter().filter_map(|regime| Some(regime.best()?.trajectories())).collect();
    let base = trajectory::start(&trajectories.concat());
    common_accuracy(&trajectories.iter().map(Vec::as_slice).collect::<Vec<_>>(), base)
}
