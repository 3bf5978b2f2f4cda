//! The sections of a study's file with their keys, for the settings reference.

use super::sequence_section::SequenceSection;
use super::study_file::{
    self, DynamicsSection, EvalSection, Prior, PuzzleKeys, RecoverySection, Regime, Rollouts, StudyHeader,
};
use crate::Result;
use crate::io::schema::{Setting, settings_of};
use crate::io::toml::{flatten, to_table};
use crate::tasks::countdown::CountdownSettings;
use crate::tasks::jigsaw::generate::JigsawSettings;
use crate::tasks::maths::MathsSettings;
use crate::tasks::suites::SuiteSettings;
use toml::Value;

/// A section of a study's file.
#[derive(Debug, Clone)]
pub struct StudySection {
    /// As it is written, such as `regimes.NAME`.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Its keys, without the section.
    pub settings: Vec<Setting>,
    /// Defaults, by key, that the types of the settings do not have.
    pub defaults: Vec<(String, Value)>,
}

impl StudySection {
    fn new(name: &'static str, about: &'static str, settings: Vec<Setting>) -> StudySection {
        StudySection { name, about, settings, defaults: Vec::new() }
    }

    /// Without the keys that the study sets itself.
    fn without(mut self, keys: &[&str]) -> StudySection {
        self.settings.retain(|setting| !keys.contains(&setting.key.as_str()));
        self
    }

    fn with_defaults<T: serde::Serialize>(mut self, defaults: &T) -> Result<StudySection> {
        let is_empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
        self.defaults = flatten(&to_table(defaults)?).into_iter().filter(|(_, value)| !is_empty(value)).collect();
        Ok(self)
    }
}

/// All sections whose keys are settings, in the order of the documentation.
///
/// # Errors
/// A default that TOML cannot hold.
pub fn sections() -> Result<Vec<StudySection>> {
    let puzzles = [settings_of::<PuzzleKeys>(), settings_of::<JigsawSettings>()].concat();
    let countdown = settings_of::<CountdownSettings>();
    Ok(vec![
        StudySection::new("study", "The study as a whole.", settings_of::<StudyHeader>()),
        StudySection::new("puzzles.NAME", "A dataset of puzzles, by the flags of `jigsaw gen`.", puzzles)
            .without(study_file::SET_IN_GEN)
            .with_defaults(&JigsawSettings::default())?,
        StudySection::new("puzzles.NAME", "With `task = \"countdown\"`, the keys are these.", countdown)
            .with_defaults(&CountdownSettings::default())?,
        StudySection::new(
            "puzzles.NAME",
            "With `task = \"maths\"`, the keys are these.",
            settings_of::<MathsSettings>(),
        )
        .with_defaults(&MathsSettings::default())?,
        StudySection::new(
            "prior",
            "Questions of prior knowledge, by the flags of `jigsaw gen --suite`.",
            settings_of::<Prior>(),
        )
        .with_defaults(&SuiteSettings::default())?,
        StudySection::new(
            "rollouts.NAME",
            "A dataset of sampled responses, by the flags of `jigsaw rollout`.",
            settings_of::<Rollouts>(),
        )
        .without(study_file::SET_IN_ROLLOUTS),
        StudySection::new(
            "regimes.NAME",
            "A way of fine-tuning; its sections (`[regimes.NAME.train]`, ...) are those of training above.",
            settings_of::<Regime>(),
        ),
        StudySection::new(
            "sequence",
            "Tasks learned in a row; after each, the model is measured on all tasks and all prior sets ([sequence.md](sequence.md)).",
            settings_of::<SequenceSection>(),
        ),
        StudySection::new(
            "eval",
            "How base and tuned models are evaluated, by the flags of `jigsaw eval`.",
            settings_of::<EvalSection>(),
        ),
        StudySection::new(
            "recovery",
            "How much of what was lost comes back after a few gold examples.",
            settings_of::<RecoverySection>(),
        ),
        StudySection::new(
            "dynamics",
            "Measurements of learning dynamics, by the flags of `jigsaw dynamics`.",
            settings_of::<DynamicsSection>(),
        ),
    ])
}
