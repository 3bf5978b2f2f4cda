//! The models of a study, trained and interpolated, and the data they are trained on.

use super::{Artifact, Builder};
use crate::Result;
use crate::study::command::{Interpolate, JigsawCommand, Train};
use crate::study::resolve::LadderPoint;
use crate::study::study_file::{Regime, Rollouts};
use crate::study::task::{StudyTask, TaskKind};
use crate::train::settings::Method;
use toml::Value;

/// Settings of training that may name data of the study.
const NAMES_OF_DATA: [&str; 5] = ["sft.replay", "prior_kl.data", "train.prompts_of", "train.mix", "eval.prior"];

impl Builder<'_> {
    /// The model that `reference` (`base`, `NAME` or `NAME@LR`) stands for in the runs of this seed.
    pub(super) fn reference(&mut self, section: &str, reference: &str, seed: u64) -> Result<Artifact> {
        if reference == "base" {
            return Ok(Artifact { dir: self.study.head.base.clone(), task: None });
        }
        let (name, point) = self.study.ladder_point(section, reference)?;
        let seeds = self.study.find(name)?.seeds.as_ref().unwrap_or(&self.study.head.seeds);
        // A start that is run with one seed serves all.
        let seed = if seeds.contains(&seed) || seeds.len() != 1 { seed } else { seeds[0] };
        self.model(name, point, seed)
    }

    /// The model of a run; its tasks are made if they are not there yet.
    pub(super) fn model(&mut self, name: &str, point: LadderPoint, seed: u64) -> Result<Artifact> {
        let regime = self.study.find(name)?;
        let section = format!("regimes.{name}");
        let run = point.run(name, seed);
        if self.under_way.contains(&run) {
            return Err(self.study.error(&section, "starts from itself, by way of its start or its data"));
        }
        self.under_way.push(run.clone());
        let made = match &regime.interpolate {
            Some(of) => self.interpolated(&section, of, point, seed, &run)?,
            None => self.trained(name, regime, point, seed, &run)?,
        };
        self.under_way.pop();
        Ok(made)
    }

    fn interpolated(&mut self, section: &str, of: &str, point: LadderPoint, seed: u64, run: &str) -> Result<Artifact> {
        let tuned = self.reference(section, of, seed)?;
        if of != "base" && self.study.adapts(of.split('@').next().unwrap_or(of))? {
            let why = "that regime trains an adapter ([lora]), and only whole models are interpolated; name a regime without [lora], \
                       or merge its model by hand (jigsaw model merge-lora) and interpolate that (jigsaw model interpolate)";
            return Err(self.study.error(section, format!("interpolate = {of:?}: {why}")));
        }
        let dir = self.path(&["models", run]);
        let (base, alpha) = (self.study.head.base.clone(), point.number());
        let needs = tuned.needs();
        let command = JigsawCommand::Interpolate(Interpolate { base, tuned: tuned.dir, alpha, out: dir.clone() });
        let task = format!("model.{run}");
        self.push(StudyTask::new(&task, section, needs, command, TaskKind::Small, 1.0))?;
        Ok(Artifact { dir, task: Some(task) })
    }

    fn trained(&mut self, name: &str, regime: &Regime, point: LadderPoint, seed: u64, run: &str) -> Result<Artifact> {
        let section = format!("regimes.{name}");
        let Some(data) = &regime.data else {
            return Err(self.study.error(&section, "data is missing: the puzzles or rollouts to train on"));
        };
        let data = self.data(&section, data, seed)?;
        let start = self.reference(&section, regime.start.as_deref().unwrap_or("base"), seed)?;
        let mut needs = [data.needs(), start.needs()].concat();
        let out = self.path(&["runs", run]);
        let mut settings = self.study.settings(regime);
        for key in NAMES_OF_DATA {
            let texts = match settings.get_mut(key) {
                Some(Value::Array(all)) => all.as_mut_slice(),
                one => one.map_or(&mut [][..], std::slice::from_mut),
            };
            for text in texts {
                let Value::String(text) = text else { continue };
                // A part of a mixture has its weight behind its name.
                let weighted = text.rsplit_once(':').filter(|(name, _)| self.study.is_data(name));
                let name = weighted.map_or(text.len(), |(name, _)| name.len());
                if self.study.is_data(&text[..name]) {
                    let data = self.data(&section, &text[..name], seed)?;
                    needs.extend(data.needs());
                    text.replace_range(..name, &data.dir.display().to_string());
                }
            }
        }
        if let (Some(at), Some(learning_rate)) = (&regime.steps_at, point.learning_rate()) {
            let round = self.study.config(name, regime)?.steps_per_round();
            let (steps, eval_steps) = at.at(learning_rate, round);
            let counted = |steps: usize| Value::Integer(steps as i64);
            settings.insert("train.steps".into(), counted(steps));
            settings.extend(eval_steps.map(|steps| ("eval.steps".into(), counted(steps))));
        }
        let train = Train {
            model: start.dir,
            data: data.dir,
            method: self.study.method(name, regime)?,
            config: regime.config.clone(),
            settings,
            learning_rate: point.learning_rate().filter(|_| !regime.learning_rate.0.is_empty()),
            seed,
            out: out.clone(),
        };
        let resolved = (self.study.resolve)(train.method, train.config.as_deref(), &train.sets());
        let config = resolved.map_err(|e| self.study.settings_error(&section, &train.sets(), &e))?;
        let (kind, each) = match config.train.method {
            Method::Sft => (TaskKind::Sft, 1),
            Method::Rft => (TaskKind::Rft, config.rollout.as_ref().map_or(1, |r| r.num_generations)),
        };
        let per_step = (config.train.batch_size * config.train.gradient_accumulation_steps * each) as f64;
        let steps = match (config.train.steps, config.train.epochs) {
            (Some(steps), _) => steps as f64,
            (None, epochs) => {
                epochs.unwrap_or(1.0) * self.study.examples(regime.data.as_deref()) * each as f64 / per_step
            }
        };
        let task = format!("train.{run}");
        self.push(StudyTask::new(&task, &section, needs, JigsawCommand::Train(train), kind, steps * per_step))?;
        Ok(Artifact { dir: out.join("model"), task: Some(task) })
    }

    /// The dataset called `name` in the runs of this seed, asked for in this section.
    pub(super) fn data(&mut self, section: &str, name: &str, seed: u64) -> Result<Artifact> {
        if name == "prior" && self.study.prior.is_some() {
            return Ok(Artifact { dir: self.path(&["prior"]), task: Some("prior".into()) });
        }
        if self.study.puzzles.iter().any(|(n, _)| n == name) {
            return Ok(Artifact { dir: self.path(&["puzzles", name]), task: Some(format!("puzzles.{name}")) });
        }
        if let Some((_, rollouts)) = self.study.rollouts.iter().find(|(n, _)| n == name) {
            return self.rollouts(name, rollouts, seed);
        }
        let puzzles = self.study.puzzles.iter().map(|(n, _)| n.as_str());
        let names: Vec<&str> = puzzles.chain(self.study.rollouts.iter().map(|(n, _)| n.as_str())).collect();
        let why = format!("data = {name:?}: no puzzles and no rollouts of this name; there are {}", names.join(", "));
        Err(self.study.error(section, why))
    }

    fn rollouts(&mut self, name: &str, rollouts: &Rollouts, seed: u64) -> Result<Artifact> {
        let section = format!("rollouts.{name}");
        let is_prior = rollouts.data == "prior" && self.study.prior.is_some();
        if !is_prior && !self.study.puzzles.iter().any(|(n, _)| *n == rollouts.data) {
            return Err(self.study.error(&section, format!("data = {:?}: there are no such puzzles", rollouts.data)));
        }
        let prompts = self.data(name, &rollouts.data, seed)?;
        // What does not come from a run of the study is sampled once for all seeds.
        let (own, seed) = match rollouts.from.as_deref() {
            None | Some("base") => (name.to_string(), self.study.head.seeds[0]),
            Some(_) => (format!("{name}.seed-{seed}"), seed),
        };
        let mut needs = prompts.needs();
        let mut model = None;
        if let Some(from) = &rollouts.from {
            let made = self.reference(&section, from, seed)?;
            needs.extend(made.needs());
            model = Some(made.dir);
        }
        let (data, out) = (prompts.dir, self.path(&["rollouts", &own]));
        let mut options = rollouts.options.clone();
        options.seed = seed;
        let request = options.request(model, data, out.clone(), false);
        let request = request.map_err(|e| {
            self.study.error(&section, format!("{e} (the keys of this section are the flags of `jigsaw rollout`)"))
        })?;
        let prompts = request.plan.limit.map_or_else(|| self.study.examples(Some(&rollouts.data)), |n| n as f64);
        let responses = prompts * request.plan.num_generations as f64;
        let task = format!("rollout.{own}");
        self.push(StudyTask::new(
            &task,
            &section,
            needs,
            JigsawCommand::Rollout(request),
            TaskKind::Respond,
            responses,
        ))?;
        Ok(Artifact { dir: out, task: Some(task) })
    }
}
