//! Which regimes of a study are compared with each other on the new task, and at which accuracy.

use super::load::{NewTask, RegimeResults, StudyResults};
use super::seed_stats::common_accuracy;
use crate::report::trajectory;

/// Regimes whose new task is the same puzzles, in the same words or in others.
pub struct ComparedRegimes<'s, 'a> {
    /// The new task, once for each wording.
    pub new_tasks: Vec<NewTask<'a>>,
    /// The regimes, in order.
    pub regimes: Vec<&'s RegimeResults<'a>>,
    /// The accuracy at which prior knowledge is compared: see [`common_accuracy`].
    pub level: Option<f64>,
}

/// The measured regimes, those that are compared with each other together. Accuracies on other puzzles say nothing about each other.
pub fn compared_regimes<'s, 'a>(study: &'s StudyResults<'a>) -> Vec<ComparedRegimes<'s, 'a>> {
    let mut groups: Vec<ComparedRegimes<'s, 'a>> = Vec::new();
    for new_task in study.new_tasks() {
        match groups.iter_mut().find(|group| group.new_tasks[0].puzzles == new_task.puzzles) {
            Some(group) => group.new_tasks.push(new_task),
            None => groups.push(ComparedRegimes { new_tasks: vec![new_task], regimes: Vec::new(), level: None }),
        }
    }
    for group in &mut groups {
        let own = |regime: &&RegimeResults<'_>| {
            group.new_tasks.iter().any(|new_task| regime.is_measured_on(&new_task.measured.data))
        };
        group.regimes = study.regimes.iter().filter(own).collect();
        let trajectories: Vec<_> =
            group.regimes.iter().filter_map(|regime| Some(regime.best()?.trajectories())).collect();
        let base = trajectory::start(&trajectories.concat());
        group.level = common_accuracy(&trajectories.iter().map(Vec::as_slice).collect::<Vec<_>>(), base);
    }
    groups
}

impl ComparedRegimes<'_, '_> {
    /// Whether the regime of this name is one of them.
    pub fn has(&self, regime: &str) -> bool {
        self.regimes.iter().any(|own| own.name == regime)
    }

    /// Names of the new task's wordings.
    pub fn names(&self) -> Vec<&str> {
        self.new_tasks.iter().map(|new_task| new_task.name.as_str()).collect()
    }
}

/// The accuracy at which a regime is compared with others.
pub fn level_of(groups: &[ComparedRegimes<'_, '_>], regime: &str) -> Option<f64> {
    groups.iter().find(|group| group.has(regime))?.level
}
