//! Which regimes of a study are compared with each other on the new task, and at which accuracy.

use super::load::{NewTask, RegimeResults, RegimeRuns, StudyResults};
use super::seed_stats::common_accuracy;
use crate::report::trajectory;

/// Regimes whose new task is the same puzzles, in the same words or in others.
pub struct ComparedRegimes<'s, 'a> {
    /// The new task, once for each wording.
    pub new_tasks: Vec<NewTask<'a>>,
    /// The regimes, in order.
    pub regimes: Vec<&'s RegimeResults<'a>>,
    /// The accuracy at which prior knowledge is compared: see [`common_accuracy`]. Where some regimes met their criterion, only they count, and an
    /// accuracy at which fewer than two of them can be read is none.
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
        let criterion = group.has_criterion();
        let bests: Vec<&RegimeRuns<'_>> = group.regimes.iter().filter_map(|regime| regime.best()).collect();
        let base = trajectory::start(&bests.iter().flat_map(|variant| variant.trajectories()).collect::<Vec<_>>());
        let compared: Vec<&RegimeRuns<'_>> =
            bests.into_iter().filter(|variant| !criterion || variant.met_criterion()).collect();
        let trajectories: Vec<_> = compared.iter().map(|variant| variant.trajectories()).collect();
        let level = common_accuracy(&trajectories.iter().map(Vec::as_slice).collect::<Vec<_>>(), base);
        let read = |level: f64| compared.iter().filter(|variant| variant.reached(level).seeds > 0).count();
        group.level = level.filter(|level| !criterion || read(*level) > 1);
    }
    groups
}

impl ComparedRegimes<'_, '_> {
    /// Whether one of them met its criterion: then they are compared there.
    pub fn has_criterion(&self) -> bool {
        self.regimes.iter().any(|regime| regime.met_criterion())
    }

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
