//! `[sequence]`: the training of each stage, and its model on all tasks and all prior sets.

use super::*;
use crate::report::{RegimeEntry, SequenceIndex, SequenceStage};
use crate::study::apart::Apart;

/// Directory of the evaluations, and of the base's in it.
const SEQUENCE: &str = "sequence";
const BASE: &str = "base";

impl Builder<'_> {
    /// The tasks of the stages, and what the report reads of them.
    pub(super) fn sequence(&mut self, benches: &Benches) -> Result<Option<SequenceIndex>> {
        let Some(sequence) = self.study.sequence.clone() else { return Ok(None) };
        let task_set = |task: &String| BenchmarkSpec { name: task.clone(), ..self.new_task(task) };
        let specs: Vec<BenchmarkSpec> = sequence.tasks.iter().map(task_set).chain(benches.specs.clone()).collect();
        let twice = |task: &&String| benches.specs.iter().any(|spec| spec.name.eq_ignore_ascii_case(task));
        if let Some(task) = sequence.tasks.iter().find(twice) {
            return Err(self
                .study
                .error("sequence", format!("tasks: a prior set is called {task}, too; rename the puzzles")));
        }
        let data: Vec<String> = sequence.tasks.iter().map(|task| format!("puzzles.{task}")).collect();
        let data = [data, benches.needs.clone()].concat();
        let apart = Arc::new(self.apart(&sequence.tasks, benches));
        let questions = sequence.tasks.iter().map(|task| self.questions(task, benches)).sum::<f64>()
            - (sequence.tasks.len() - 1) as f64 * self.prior_questions(benches);
        let start =
            self.reference("sequence", sequence.start.as_deref().unwrap_or("base"), self.study.head.seeds[0])?;
        let base = "sequence.base".to_string();
        let command = JigsawCommand::Eval(Eval {
            model: start.dir.clone(),
            benchmarks: specs.clone(),
            settings: self.eval_settings(),
            out: self.path(&[SEQUENCE, BASE]),
        });
        let new = StudyTask::new(
            &base,
            "eval",
            [start.needs(), data.clone()].concat(),
            command,
            TaskKind::Respond,
            questions,
        );
        self.push(StudyTask { apart: Some(apart.clone()), ..new })?;
        let mut stages = Vec::new();
        for stage in &self.study.stages {
            let section = format!("regimes.{}", stage.method);
            let regime = self.study.find(&stage.regime)?;
            let point = match self.study.ladder_points(&stage.regime, regime)?.as_slice() {
                [point] => *point,
                _ => return Err(self.study.error(&section, "a method of [sequence] has one learning rate")),
            };
            for &seed in regime.seeds.as_ref().unwrap_or(&self.study.head.seeds) {
                let made = self.model(&stage.regime, point, seed)?;
                let run = point.run(&stage.regime, seed);
                // It is trained once all data are there and seen to be apart.
                let trained = self.tasks.iter_mut().find(|task| made.task.as_ref() == Some(&task.name));
                if let Some(training) = trained {
                    training.section.clone_from(&section);
                    training.apart = Some(apart.clone());
                    let more: Vec<String> =
                        data.iter().filter(|need| !training.needs.contains(need)).cloned().collect();
                    training.needs.extend(more);
                }
                let comparison = Path::new(SEQUENCE).join("stages").join(&run);
                let command = JigsawCommand::Compare(CompareRequest {
                    base: Some(start.dir.clone()),
                    base_results: Some(self.path(&[SEQUENCE, BASE])),
                    tuned: vec![made.dir.clone()],
                    benchmarks: specs.clone(),
                    new_task: None,
                    settings: self.eval_settings(),
                    prior: Vec::new(),
                    prompts: 0,
                    out: self.out.join(&comparison),
                    fresh: false,
                });
                let needs = [made.needs(), vec![base.clone()], data.clone()].concat();
                let task = format!("compare.{run}");
                self.push(StudyTask::new(&task, &section, needs, command, TaskKind::Respond, questions))?;
                stages.push(SequenceStage { method: stage.method.clone(), number: stage.number, seed, comparison });
            }
        }
        let named = |(name, about): &(String, String)| RegimeEntry { name: name.clone(), about: about.clone() };
        let methods = self.study.methods.iter().map(named).collect();
        Ok(Some(SequenceIndex { tasks: sequence.tasks, methods, base: Path::new(SEQUENCE).join(BASE), stages }))
    }

    /// The data of each task and the prior sets, which may have no example in common.
    fn apart(&self, tasks: &[String], benches: &Benches) -> Apart {
        let parts = |task: &String| -> Vec<BenchmarkSpec> {
            let puzzles = self.study.puzzles.iter().find(|(name, _)| name == task);
            let made = |side: usize| puzzles.is_some_and(|(_, puzzles)| puzzles.examples(side) > 0.0);
            let sides = SPLITS.iter().enumerate().filter(|(side, _)| made(*side));
            let spec = |(_, split): (usize, &&str)| BenchmarkSpec {
                name: format!("{task} ({split})"),
                split: split.to_string(),
                ..self.new_task(task)
            };
            sides.map(spec).collect()
        };
        let sets = tasks.iter().map(parts).chain([benches.specs.clone()]).collect();
        Apart::new(sets, self.eval_settings())
    }
}
