//! `[recovery]`: the model of a run, trained on a few gold prior examples, and compared with the base again.

use super::*;
use crate::report::RecoveryRun;

impl Builder<'_> {
    /// Whether the run of this regime at this point of its ladder recovers.
    fn recovers(&self, name: &str, point: LadderPoint) -> Result<bool> {
        let Some(regimes) = self.study.recovery.as_ref().and_then(|recovery| recovery.regimes.as_ref()) else {
            return Ok(self.study.recovery.is_some());
        };
        for reference in regimes {
            let (regime, at) = self.study.ladder_point("recovery", reference)?;
            if !self.study.find(regime)?.measured {
                let why = "it is not measured (measured = false), so what it lost is not known";
                return Err(self.study.error("recovery", format!("regimes: {reference:?}: {why}")));
            }
            if (regime, at) == (name, point) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The tasks of a run's recovery: training on each number of examples, and the comparison with the base. `comparison` is that of the run.
    pub(super) fn recovery(
        &mut self,
        (name, point, seed): (&str, LadderPoint, u64),
        made: &Artifact,
        comparison: &StudyTask,
    ) -> Result<()> {
        let JigsawCommand::Compare(compared) = &comparison.command else { return Ok(()) };
        if !self.recovers(name, point)? {
            return Ok(());
        }
        let Some(recovery) = self.study.recovery.clone() else { return Ok(()) };
        let data = self.data("recovery", &recovery.data, seed)?;
        for examples in recovery.examples {
            let run = point.run(name, seed);
            let own = format!("{run}.recovery-{examples}");
            let out = self.path(&["recovery", &run, &format!("examples-{examples}")]);
            let settings = [
                ("train.steps", Value::from(recovery.steps as i64)),
                ("train.batch_size", Value::from(recovery.batch_size as i64)),
                ("train.max_examples", Value::from(examples as i64)),
                ("train.lr_scheduler_type", Value::from("constant")),
                ("train.save_steps", Value::from(0)),
                ("eval.steps", Value::from(0)),
            ];
            let train = Train {
                model: made.dir.clone(),
                data: data.dir.clone(),
                method: Some(Method::Sft),
                config: None,
                settings: settings.into_iter().map(|(key, value)| (key.to_string(), value)).collect(),
                learning_rate: Some(recovery.learning_rate),
                seed,
                out: out.clone(),
            };
            (self.study.resolve)(train.method, None, &train.sets()).map_err(|e| self.study.error("recovery", e))?;
            let needs = [data.needs(), made.needs()].concat();
            let trained = format!("train.{own}");
            let sequences = recovery.steps as f64 * recovery.batch_size as f64;
            self.push(StudyTask::new(
                &trained,
                "recovery",
                needs,
                JigsawCommand::Train(train),
                TaskKind::Sft,
                sequences,
            ))?;
            let comparison_dir = Path::new("recovery").join(&run).join(format!("compare-{examples}"));
            let command = JigsawCommand::Compare(CompareRequest {
                tuned: vec![out.join("model")],
                prior: Vec::new(),
                prompts: 0,
                out: self.out.join(&comparison_dir),
                ..compared.clone()
            });
            let checkpoints = comparison.checkpoints.as_ref().map_or(0, |checkpoints| checkpoints.most);
            let responses = comparison.work.units / (1 + checkpoints) as f64;
            let needs = [vec![trained], comparison.needs.clone()].concat();
            let task = format!("compare.{own}");
            self.push(StudyTask::new(&task, "recovery", needs, command, TaskKind::Respond, responses))?;
            self.recoveries.push(RecoveryRun { run, examples, comparison: comparison_dir });
        }
        Ok(())
    }
}
