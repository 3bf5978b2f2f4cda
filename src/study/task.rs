//! A task of a study: one command of this program, with what must be done before it.

use super::apart::Apart;
use super::checkpoints::CheckpointChoice;
use super::command::JigsawCommand;
use super::input_hash::Input;
use super::study_file::ResolveConfig;
use crate::report::StudyIndex;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

/// One command, and what it waits for.
#[derive(Debug, Clone, PartialEq)]
pub struct StudyTask {
    /// Name, unique in the study, such as `train.rft.lr-5e-5.seed-1`.
    pub name: String,
    /// The section of the study's file that it comes from.
    pub section: String,
    /// Names of the tasks whose results it reads.
    pub needs: Vec<String>,
    /// What it runs, without the checkpoints below.
    pub command: JigsawCommand,
    /// Intermediate checkpoints that the command evaluates too. Which ones there are is known only when their run is finished.
    pub checkpoints: Option<CheckpointChoice>,
    /// The user's files that it reads, whose content counts.
    pub inputs: Vec<Arc<Input>>,
    /// Sets of examples of which none may be in another; they are looked at before the task begins.
    pub apart: Option<Arc<Apart>>,
    /// How much work it is.
    pub work: TaskSize,
    /// It summarizes the results of other tasks, and is done again whenever there are more of them.
    pub aggregates: bool,
}

impl StudyTask {
    /// A task that does `units` of work, at least one, and evaluates no intermediate checkpoints.
    pub(super) fn new(
        name: &str,
        section: &str,
        needs: Vec<String>,
        command: JigsawCommand,
        kind: TaskKind,
        units: f64,
    ) -> StudyTask {
        let (name, section, work) = (name.into(), section.into(), TaskSize { kind, units: units.max(1.0) });
        let (checkpoints, inputs, apart) = (None, Vec::new(), None);
        StudyTask { name, section, needs, command, checkpoints, inputs, apart, work, aggregates: false }
    }

    /// Is it a training run?
    pub fn trains(&self) -> bool {
        matches!(self.command, JigsawCommand::Train(_))
    }

    /// The command line after `jigsaw`, with a pattern for the intermediate checkpoints.
    pub fn arguments(&self) -> Vec<String> {
        let pattern: Vec<PathBuf> = self.checkpoints.iter().map(CheckpointChoice::pattern).collect();
        self.command.with_checkpoints(&pattern).arguments()
    }
}

/// Work in units of its kind.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TaskSize {
    /// What kind.
    pub kind: TaskKind,
    /// How many: puzzles made, sequences trained on, responses.
    pub units: f64,
}

/// Kinds of work; a unit of each takes its own time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskKind {
    /// Making puzzles and suites: examples.
    Make,
    /// SFT: sequences trained on.
    Sft,
    /// GRPO: responses sampled and trained on.
    Rft,
    /// Responses of an evaluation or a rollout.
    Respond,
    /// Pairs of samples.
    Pair,
    /// The rest.
    Small,
}

/// All tasks, in an order in which each comes after what it needs, and the index for the report.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The tasks.
    pub tasks: Vec<StudyTask>,
    /// What the report reads.
    pub index: StudyIndex,
    /// Reads the settings of a finished run.
    pub(super) resolve: ResolveConfig,
}

impl Plan {
    /// The task of a name.
    pub fn find(&self, name: &str) -> Option<&StudyTask> {
        self.tasks.iter().find(|task| task.name == name)
    }

    /// The tasks in waves: those of a wave need only what earlier waves do.
    pub fn waves(&self) -> Vec<Vec<&StudyTask>> {
        let mut level: HashMap<&str, usize> = HashMap::new();
        let mut waves: Vec<Vec<&StudyTask>> = Vec::new();
        for task in &self.tasks {
            let own = task.needs.iter().filter_map(|need| level.get(need.as_str())).max().map_or(0, |last| last + 1);
            level.insert(&task.name, own);
            waves.resize_with(waves.len().max(own + 1), Vec::new);
            waves[own].push(task);
        }
        waves
    }
}
