//! `[sequence]`: tasks that are learned one after another. It is expanded into regimes, one for each method and task: each is trained on its
//! task's data and starts from the model of the regime before. So a stage is an ordinary training run.

use super::sequence_section::{SequenceSection, Stage};
use super::study_file::{Regime, Study};
use crate::Result;
use toml::Value;

/// In `train.mix` of a method: the data of all tasks before, which have the weight behind it together.
const EARLIER: &str = "earlier";

impl Study {
    /// Replace the methods of `[sequence]` by the regimes of their stages, which are not measured as regimes are.
    ///
    /// # Errors
    /// Input errors that name the section: a task or method that does not exist or is given twice, a single task, a method with settings that
    /// the sequence decides.
    pub(super) fn expand_sequence(&mut self) -> Result<()> {
        let Some(sequence) = self.sequence.clone() else { return Ok(()) };
        self.check_sequence(&sequence)?;
        let (mut stages, mut regimes): (Vec<Stage>, Vec<(String, Regime)>) = (Vec::new(), Vec::new());
        for method in &sequence.methods {
            for (i, task) in sequence.tasks.iter().enumerate() {
                let mut regime = self.find(method)?.clone();
                (regime.about, regime.measured, regime.data) = (String::new(), false, Some(task.clone()));
                regime.start.clone_from(&sequence.start);
                replace_earlier(&mut regime, &sequence.tasks[..i]);
                if i > 0 {
                    regime.start = stages.last().map(|stage| stage.regime.clone());
                    // The adapter of the stage before trains on.
                    regime.settings.remove("lora");
                    if self.config(method, &regime)?.lora.is_some() {
                        let why = "[lora] comes from the file of `config`; write it in the study, so that it is the first task's alone";
                        return Err(self.error(&format!("regimes.{method}"), why));
                    }
                }
                let own = format!("{method}-{}-{task}", i + 1);
                let same = regimes.iter().find(|(_, other)| *other == regime).map(|(name, _)| name.clone());
                let mut known = self.regimes.iter().chain(&regimes);
                let taken = self.is_data(&own) || known.any(|(name, _)| *name == own);
                if same.is_none() && taken {
                    let why = format!("{own} is the name of a stage, and of something else in this file; rename that");
                    return Err(self.error("sequence", why));
                }
                let name = same.unwrap_or_else(|| {
                    regimes.push((own.clone(), regime));
                    own
                });
                stages.push(Stage { method: method.clone(), number: i + 1, regime: name });
            }
        }
        let is_method = |name: &String| sequence.methods.contains(name);
        self.methods =
            self.regimes.extract_if(.., |(name, _)| is_method(name)).map(|(name, one)| (name, one.about)).collect();
        self.methods.sort_by_key(|(name, _)| sequence.methods.iter().position(|other| other == name));
        self.regimes.extend(regimes);
        self.stages = stages;
        Ok(())
    }

    fn check_sequence(&self, sequence: &SequenceSection) -> Result<()> {
        let error = |why: String| Err(self.error("sequence", why));
        for (key, names, known) in [
            ("tasks", &sequence.tasks, self.puzzles.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>()),
            ("methods", &sequence.methods, self.regimes.iter().map(|(name, _)| name.as_str()).collect()),
        ] {
            let section = if key == "tasks" { "puzzles" } else { "regimes" };
            if let Some(other) = names.iter().find(|name| !known.contains(&name.as_str())) {
                let there = if known.is_empty() { "none".to_string() } else { known.join(", ") };
                return error(format!("{key}: there is no [{section}.{other}]; there are {there}"));
            }
            if let Some((_, again)) = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
                return error(format!("{key}: {again} is given twice; give each once"));
            }
        }
        if self.is_data(EARLIER) {
            return error(format!("in train.mix, {EARLIER} stands for the tasks before; rename the data of this name"));
        }
        if sequence.tasks.len() < 2 {
            return error("tasks: give at least two; a regime learns a single task without [sequence]".into());
        }
        if sequence.methods.is_empty() {
            return error("methods = []: name at least one regime".into());
        }
        let dataset = |name: &String| self.puzzles.iter().find(|(n, _)| n == name).map(|(_, puzzles)| puzzles);
        for (i, task) in sequence.tasks.iter().enumerate() {
            if let Some(same) = sequence.tasks[..i].iter().find(|other| dataset(other) == dataset(task)) {
                return error(format!(
                    "tasks: {same} and {task} are made with the same settings, so they are the same examples; give one of them another seed"
                ));
            }
        }
        if let Some(start) = &sequence.start {
            let (name, _) = self.ladder_point("sequence", start)?;
            if sequence.methods.iter().any(|method| method == name) {
                return error(format!("start: {name} is one of the methods; name another regime"));
            }
            if self.find(name)?.seeds.as_ref().unwrap_or(&self.head.seeds).len() != 1 {
                return error(format!(
                    "start: {name} has several seeds; give [regimes.{name}] one, such as seeds = [1]"
                ));
            }
            if self.adapts(name)? {
                return error(format!(
                    "start: {name} trains an adapter ([lora]); name a regime that trains a whole model"
                ));
            }
        }
        for method in &sequence.methods {
            let regime = self.find(method)?;
            let section = format!("regimes.{method}");
            let set = [
                ("data", regime.data.is_some()),
                ("start", regime.start.is_some()),
                ("test", regime.test.is_some()),
                ("interpolate", regime.interpolate.is_some()),
                ("alpha", !regime.alpha.0.is_empty()),
            ];
            if let Some((key, _)) = set.iter().find(|(_, given)| *given) {
                let why = format!("{key}: this regime is a method of [sequence], which decides it; remove it");
                return Err(self.error(&section, why));
            }
            if regime.learning_rate.0.len() > 1 {
                let why = "learning_rate: a method of [sequence] has one; give each its own regime";
                return Err(self.error(&section, why));
            }
            // What is wrong with its settings is said of the section that the user wrote.
            let mut first = regime.clone();
            replace_earlier(&mut first, &[]);
            self.config(method, &first)?;
        }
        Ok(())
    }
}

/// Put the data of the tasks before in place of `earlier` in `train.mix`; nothing where there are none.
fn replace_earlier(regime: &mut Regime, before: &[String]) {
    let Some(train) = regime.settings.get_mut("train").and_then(Value::as_table_mut) else { return };
    let Some(mix) = train.get_mut("mix").and_then(Value::as_array_mut) else { return };
    let parts = std::mem::take(mix).into_iter().flat_map(|part| {
        let text = part.as_str().unwrap_or_default();
        let weight = match text.split_once(':') {
            None if text == EARLIER => 1.0,
            Some((EARLIER, weight)) if weight.parse::<f64>().is_ok() => weight.parse().unwrap_or(1.0),
            _ => return vec![part],
        };
        before.iter().map(|task| Value::from(format!("{task}:{}", weight / before.len() as f64))).collect()
    });
    *mix = parts.collect();
    if mix.is_empty() {
        train.remove("mix");
    }
}
