//! The measurements of `[dynamics]`.

use super::{Benches, Builder};
use crate::Result;
use crate::dynamics::{DynamicsRequest, InfluenceConfig};
use crate::eval::bench::BenchmarkSpec;
use crate::study::checkpoints::CheckpointChoice;
use crate::study::command::JigsawCommand;
use crate::study::study_file::DynamicsSection;
use crate::study::task::{StudyTask, TaskKind};
use std::path::{Path, PathBuf};

impl Builder<'_> {
    /// The measurements of dynamics; their directories for the index.
    pub(super) fn dynamics(&mut self, benches: &Benches) -> Result<Vec<PathBuf>> {
        let Some(wanted) = &self.study.dynamics else { return Ok(Vec::new()) };
        let seed = self.study.head.seeds[0];
        let names = match &wanted.train {
            Some(names) => names.clone(),
            None => self.study.supervised()?,
        };
        let mut needs = benches.needs.clone();
        let mut train = Vec::new();
        for name in &names {
            let data = self.data("dynamics", name, seed)?;
            needs.extend(data.needs());
            let split = wanted.split.clone().unwrap_or("train".into());
            train.push(BenchmarkSpec { name: name.clone(), path: data.dir, kind: None, split });
        }
        if train.is_empty() {
            return Err(self.study.error("dynamics", "no data to step on; name some: train = [\"NAME\"]"));
        }
        let mut prior = benches.specs.clone();
        if let Some(names) = &wanted.prior {
            if let Some(other) = names.iter().find(|name| !prior.iter().any(|spec| spec.name == **name)) {
                let known: Vec<&str> = prior.iter().map(|spec| spec.name.as_str()).collect();
                let why = format!("prior: no benchmark is called {other:?}; there are {}", known.join(", "));
                return Err(self.study.error("dynamics", why));
            }
            prior.retain(|spec| names.contains(&spec.name));
        }
        if let Some(split) = &wanted.prior_split {
            prior.iter_mut().for_each(|spec| spec.split.clone_from(split));
        }
        let request = DynamicsRequest {
            models: vec![self.study.head.base.clone()],
            base: self.study.head.base.clone(),
            train,
            prior,
            config: influence_config(wanted),
            max_new_tokens: wanted.max_new_tokens,
            forgetting: Vec::new(),
            out: PathBuf::new(),
            fresh: false,
        };
        let runs: Vec<String> = self.runs.iter().map(|run| run.name.clone()).collect();
        let comparisons: Vec<PathBuf> = runs.iter().map(|run| self.path(&["compare", run])).collect();
        let after = [needs.clone(), runs.iter().map(|run| format!("compare.{run}")).collect()].concat();
        let mut all =
            vec![self.measure("base", DynamicsRequest { forgetting: comparisons, ..request.clone() }, after, None)?];
        for over in &wanted.over {
            let (name, point) = self.study.ladder_point("dynamics", over)?;
            let made = self.model(name, point, seed)?;
            let mut request = request.clone();
            request.models.push(made.dir.clone());
            let (needs, checkpoints) = ([needs.clone(), made.needs()].concat(), self.checkpoints(point, &made));
            all.push(self.measure(&point.run(name, seed), request, needs, checkpoints)?);
        }
        Ok(all)
    }

    /// One measurement of dynamics; its directory for the index.
    fn measure(
        &mut self,
        name: &str,
        request: DynamicsRequest,
        needs: Vec<String>,
        checkpoints: Option<CheckpointChoice>,
    ) -> Result<PathBuf> {
        let models = request.models.len() + checkpoints.as_ref().map_or(0, |checkpoints| checkpoints.most);
        let pairs = models * request.config.pairs * request.train.len() * request.prior.len();
        let command = JigsawCommand::Dynamics(DynamicsRequest { out: self.path(&["dynamics", name]), ..request });
        let task = format!("dynamics.{name}");
        let new = StudyTask::new(&task, "dynamics", needs, command, TaskKind::Pair, pairs as f64);
        self.push(StudyTask { checkpoints, aggregates: true, ..new })?;
        Ok(Path::new("dynamics").join(name))
    }
}

fn influence_config(wanted: &DynamicsSection) -> InfluenceConfig {
    let defaults = InfluenceConfig::default();
    InfluenceConfig {
        eta: wanted.eta,
        learning_rate: wanted.learning_rate.unwrap_or(defaults.learning_rate),
        on_policy: wanted.on_policy.clone(),
        loss: wanted.loss.unwrap_or(defaults.loss),
        pairs: wanted.pairs.unwrap_or(defaults.pairs),
        seed: wanted.seed.unwrap_or(defaults.seed),
        frozen: wanted.freeze.clone(),
    }
}
