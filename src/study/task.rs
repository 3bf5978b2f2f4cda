//! The tasks that a study is made of: each one command of this program, with what must be done before it.

use super::file::{Regime, Rollouts, Study};
use super::input::Input;
use super::names::{LadderPoint, number, share};
use crate::data::MANIFEST;
use crate::eval::bench::BenchmarkSpec;
use crate::io::files;
use crate::report::{self, StudyIndex, StudyRun};
use crate::train::settings::{Method, TrainConfig};
use crate::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use toml::{Table, Value};

/// One command, and what it waits for.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Name, unique in the study, such as `train.rft.lr-5e-5.seed-1`.
    pub name: String,
    /// The section of the study's file that it comes from.
    pub section: String,
    /// Names of the tasks whose results it reads.
    pub needs: Vec<String>,
    /// The command line after `jigsaw`. An argument that ends in `checkpoints/*` stands for those on the way.
    pub command: Vec<String>,
    /// How many checkpoints on the way those are, at most; `None` where its command has none.
    pub way: Option<usize>,
    /// Files of the user's that it reads, whose content counts.
    pub inputs: Vec<Arc<Input>>,
    /// How much work it is.
    pub work: Work,
    /// Done again whenever what it sums up has grown.
    pub aggregates: bool,
}

/// Work in units of its kind.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Work {
    /// What kind.
    pub kind: Kind,
    /// How many: puzzles made, sequences trained on, responses.
    pub units: f64,
}

/// Kinds of work; a unit of each takes its own time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
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
    pub tasks: Vec<Task>,
    /// What the report reads.
    pub index: StudyIndex,
}

/// The tasks of `study`, with everything under `out`.
///
/// # Errors
/// Input errors that name the section: a name that does not exist, a circle of regimes, settings that do not fit.
pub fn plan(study: &Study, out: &Path) -> Result<Plan> {
    let mut builder =
        Builder { study, out, tasks: Vec::new(), runs: Vec::new(), inputs: Vec::new(), under_way: Vec::new() };
    for (name, flags) in &study.puzzles {
        builder.puzzles(name, flags)?;
    }
    let benches = builder.prior()?;
    for (name, regime) in &study.regimes {
        if regime.measured {
            builder.regime(name, regime, &benches)?;
        }
    }
    let dynamics = builder.dynamics(&benches)?;
    let mut needs: Vec<String> = builder.tasks.iter().map(|task| task.name.clone()).collect();
    needs.retain(|name| name.starts_with("compare.") || name.starts_with("dynamics."));
    let page = out.join("report.html");
    let command = ["report".into(), text(out), "--title".into(), study.head.title.clone(), "--out".into(), text(&page)];
    builder.push("report", "study", needs, command.to_vec(), Kind::Small, 1.0);
    builder.tasks.iter_mut().filter(|t| t.name == "report").for_each(|t| t.aggregates = true);
    let measured = study.regimes.iter().filter(|(_, regime)| regime.measured);
    let regimes = measured.map(|(name, r)| report::Regime { name: name.clone(), about: r.about.clone() }).collect();
    let Builder { tasks, runs, .. } = builder;
    let base = study.head.base.display().to_string();
    let index = StudyIndex::new(&study.head.title, &base, regimes, runs, dynamics);
    Ok(Plan { tasks, index })
}

struct Builder<'a> {
    study: &'a Study,
    out: &'a Path,
    tasks: Vec<Task>,
    runs: Vec<StudyRun>,
    /// Files that tasks read, each once.
    inputs: Vec<Arc<Input>>,
    /// Regimes whose tasks are being made, to see circles.
    under_way: Vec<String>,
}

/// A result of a task.
#[derive(Debug, Clone)]
struct Artifact {
    dir: PathBuf,
    /// The task that makes it; none for what is there already.
    task: Option<String>,
}

impl Artifact {
    fn needs(&self) -> Vec<String> {
        self.task.iter().cloned().collect()
    }
}

impl<'a> Builder<'a> {
    fn push(&mut self, name: &str, section: &str, needs: Vec<String>, command: Vec<String>, kind: Kind, units: f64) {
        if self.tasks.iter().any(|task| task.name == name) {
            return;
        }
        let work = Work { kind, units: units.max(1.0) };
        let way = command.iter().any(|word| is_checkpoint_glob(word)).then_some(self.study.eval.checkpoints);
        let inputs = self.inputs(&command);
        let (name, section) = (name.into(), section.into());
        self.tasks.push(Task { name, section, needs, command, way, inputs, work, aggregates: false });
    }

    /// The files that a command reads besides what the study makes: settings of training, and `[benchmarks]`.
    fn inputs(&mut self, command: &[String]) -> Vec<Arc<Input>> {
        let config = command.iter().skip_while(|word| *word != "--config").nth(1).map(PathBuf::from);
        let specs = self.study.benchmarks.iter().map(|(name, file)| format!("{name}={file}"));
        let specs =
            specs.filter(|spec| command.contains(spec)).filter_map(|spec| BenchmarkSpec::parse(&spec, "test").ok());
        // The manifest of a dataset holds a hash of the rest of it.
        let files = specs.map(|spec| if spec.path.is_dir() { spec.path.join(MANIFEST) } else { spec.path });
        let paths: Vec<PathBuf> = config.into_iter().chain(files).collect();
        let mut known = |path: PathBuf| match self.inputs.iter().find(|input| input.path == path) {
            Some(input) => input.clone(),
            None => {
                let input = Arc::new(Input::new(path));
                self.inputs.push(input.clone());
                input
            }
        };
        paths.into_iter().map(&mut known).collect()
    }

    fn path(&self, parts: &[&str]) -> PathBuf {
        parts.iter().fold(self.out.to_path_buf(), |path, part| path.join(part))
    }

    fn puzzles(&mut self, name: &str, flags: &Table) -> Result<()> {
        let section = format!("puzzles.{name}");
        let mut command = vec!["gen".to_string()];
        command.extend(self.study.flags(&section, flags, &["out", "overwrite", "suite"])?);
        command.extend(["--out".into(), text(&self.path(&["puzzles", name])), "--overwrite".into()]);
        self.push(&section, &section, Vec::new(), command, Kind::Make, number(flags, "count", 2000.0));
        Ok(())
    }

    /// The suites; all benchmarks as `NAME=FILE`, and the task that makes them.
    fn prior(&mut self) -> Result<Benches> {
        let mut benches = Benches { specs: Vec::new(), needs: Vec::new(), questions: 0.0 };
        if let Some(prior) = &self.study.prior {
            let dir = self.path(&["prior"]);
            let mut command = vec!["gen".to_string()];
            command.extend(self.study.flags("prior", &prior.flags, &["out", "overwrite"])?);
            command.extend(["--out".into(), text(&dir), "--overwrite".into()]);
            let names = self.study.bench_names(prior)?;
            let made = number(&prior.flags, "count", 2000.0);
            self.push("prior", "prior", Vec::new(), command, Kind::Make, made * names.len() as f64 / 2.0);
            let file = |name: &String| format!("{name}={}", text(&dir.join("bench").join(format!("{name}.tsv"))));
            benches.specs.extend(names.iter().map(file));
            benches.needs.push("prior".into());
            benches.questions = number(&prior.flags, "held_out", made * 0.1) * names.len() as f64;
        }
        for (name, file) in &self.study.benchmarks {
            benches.specs.push(format!("{name}={file}"));
            benches.questions += 1000.0;
        }
        if benches.specs.is_empty() {
            return Err(Error::input(format!(
                "{}: no prior knowledge to measure; give [prior], [benchmarks], or both",
                self.study.name
            )));
        }
        Ok(benches)
    }

    /// The runs of a regime, each with its comparison.
    fn regime(&mut self, name: &str, regime: &Regime, benches: &Benches) -> Result<()> {
        let section = format!("regimes.{name}");
        for point in self.study.ladder_points(name, regime)? {
            for seed in regime.seeds.as_ref().unwrap_or(&self.study.head.seeds).clone() {
                let made = self.model(name, point, seed)?;
                let run = point.run(name, seed);
                let test = self.study.test_of(name)?;
                let base = self.base(&test, benches)?;
                let puzzles = self.path(&["puzzles", &test]);
                let comparison = self.path(&["compare", &run]);
                let mut command = vec!["eval".to_string(), "--model".into()];
                if self.study.eval.checkpoints > 0 && matches!(point, LadderPoint::Lr(_)) {
                    let checkpoints = made.dir.parent().unwrap_or(&made.dir).join("checkpoints/*");
                    command.push(text(&checkpoints));
                }
                command.extend([text(&made.dir), "--baseline".into(), text(&self.study.head.base)]);
                command.extend(["--baseline-results".into(), text(&self.path(&["base", &test]))]);
                command.extend(["--data".into(), text(&puzzles)]);
                command.extend(benches.specs.iter().flat_map(|spec| ["--bench".into(), spec.clone()]));
                command.extend(self.study.flags("eval", &self.study.eval.flags, OWN_EVAL)?);
                command.extend(["--out".into(), text(&comparison)]);
                let needs = [made.needs(), vec![base], benches.needs.clone()].concat();
                let models =
                    if matches!(point, LadderPoint::Lr(_)) { 1.0 + self.study.eval.checkpoints as f64 } else { 1.0 };
                let responses = models * self.questions(&test, benches);
                self.push(&format!("compare.{run}"), &section, needs, command, Kind::Respond, responses);
                let data = match &regime.data {
                    Some(data) if regime.interpolate.is_none() => Some(self.data(name, data, seed)?.dir),
                    _ => None,
                };
                let relative = |path: &Path| path.strip_prefix(self.out).map(Path::to_path_buf).ok();
                self.runs.push(StudyRun {
                    name: run.clone(),
                    regime: name.into(),
                    lr: point.lr(),
                    seed,
                    dir: point.lr().and_then(|_| relative(made.dir.parent()?)),
                    comparison: Path::new("compare").join(&run),
                    data: data.as_deref().and_then(relative),
                });
            }
        }
        Ok(())
    }

    /// Questions that one evaluation asks.
    fn questions(&self, test: &str, benches: &Benches) -> f64 {
        let flags = self.study.puzzles.iter().find(|(name, _)| name == test).map(|(_, flags)| flags);
        let new_task = flags.map_or(0.0, |flags| number(flags, "count", 2000.0) * share(flags, 2));
        match number(&self.study.eval.flags, "limit", f64::INFINITY) {
            limit if limit.is_finite() => limit * (benches.specs.len() + 1) as f64,
            _ => benches.questions + new_task,
        }
    }

    /// The evaluation of the base with the test split of `test` as the new task; the name of its task.
    fn base(&mut self, test: &str, benches: &Benches) -> Result<String> {
        let name = format!("base.{test}");
        let puzzles = self.path(&["puzzles", test]);
        let mut command = vec!["eval".to_string(), "--model".into(), text(&self.study.head.base)];
        command.extend(["--bench".into(), format!("new-task={}", text(&puzzles))]);
        command.extend(benches.specs.iter().flat_map(|spec| ["--bench".into(), spec.clone()]));
        let mut flags = self.study.eval.flags.clone();
        flags.remove("kl");
        command.extend(self.study.flags("eval", &flags, OWN_EVAL)?);
        command.extend(["--out".into(), text(&self.path(&["base", test]))]);
        let needs = [vec![format!("puzzles.{test}")], benches.needs.clone()].concat();
        self.push(&name, "eval", needs, command, Kind::Respond, self.questions(test, benches));
        Ok(name)
    }

    /// The model that `text` (`base`, `NAME` or `NAME@LR`) stands for in the runs of this seed.
    fn reference(&mut self, section: &str, reference: &str, seed: u64) -> Result<Artifact> {
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
    fn model(&mut self, name: &str, point: LadderPoint, seed: u64) -> Result<Artifact> {
        let regime = self.study.find(name)?;
        let section = format!("regimes.{name}");
        let run = point.run(name, seed);
        if self.under_way.contains(&run) {
            return Err(self.study.error(&section, "goes on from itself, by way of what it is made of"));
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
        let mut command =
            vec!["model".to_string(), "interpolate".into(), text(&self.study.head.base), text(&tuned.dir)];
        // Written, perhaps, by a process that was stopped before it could say so.
        command.extend([
            "--alpha".into(),
            point.number().to_string(),
            "--overwrite".into(),
            "--out".into(),
            text(&dir),
        ]);
        let task = format!("model.{run}");
        self.push(&task, section, tuned.needs(), command, Kind::Small, 1.0);
        Ok(Artifact { dir, task: Some(task) })
    }

    fn trained(&mut self, name: &str, regime: &Regime, point: LadderPoint, seed: u64, run: &str) -> Result<Artifact> {
        let section = format!("regimes.{name}");
        let Some(data) = &regime.data else {
            return Err(self.study.error(&section, "data is missing: what to train on"));
        };
        let config = self.study.config(name, regime, Some(point), seed)?;
        let data = self.data(name, data, seed)?;
        let start = self.reference(&section, regime.start.as_deref().unwrap_or("base"), seed)?;
        let mut needs = [data.needs(), start.needs()].concat();
        let out = self.path(&["runs", run]);
        let mut command =
            vec!["train".to_string(), "--model".into(), text(&start.dir), "--data".into(), text(&data.dir)];
        if let Some(method) = &regime.method {
            command.extend(["--method".into(), method.clone()]);
        }
        if let Some(file) = &regime.config {
            command.extend(["--config".into(), text(file)]);
        }
        for set in self.study.sets(regime, Some(point), seed) {
            let set = match set.strip_prefix("sft.replay=").map(|name| name.trim_matches('"')) {
                Some(name) if self.study.is_data(name) => {
                    let replay = self.data(&section, name, seed)?;
                    needs.extend(replay.needs());
                    format!("sft.replay={}", Value::String(text(&replay.dir)))
                }
                _ => set,
            };
            command.extend(["--set".into(), set]);
        }
        command.extend(["--out".into(), text(&out)]);
        let (kind, each) = match config.train.method {
            Method::Sft => (Kind::Sft, 1),
            Method::Rft => (Kind::Rft, config.rollout.as_ref().map_or(1, |r| r.num_generations)),
        };
        let per_step = (config.train.batch_size * config.train.gradient_accumulation_steps * each) as f64;
        let steps = match (config.train.steps, config.train.epochs) {
            (Some(steps), _) => steps as f64,
            (None, epochs) => {
                epochs.unwrap_or(1.0) * self.study.examples(regime.data.as_deref()) * each as f64 / per_step
            }
        };
        let task = format!("train.{run}");
        self.push(&task, &section, needs, command, kind, steps * per_step);
        Ok(Artifact { dir: out.join("model"), task: Some(task) })
    }

    /// The dataset called `name` in the runs of this seed.
    fn data(&mut self, whose: &str, name: &str, seed: u64) -> Result<Artifact> {
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
        Err(self.study.error(&format!("regimes.{whose}"), why))
    }

    fn rollouts(&mut self, name: &str, rollouts: &Rollouts, seed: u64) -> Result<Artifact> {
        let section = format!("rollouts.{name}");
        if !self.study.puzzles.iter().any(|(n, _)| *n == rollouts.data) {
            return Err(self.study.error(&section, format!("data = {:?}: there are no such puzzles", rollouts.data)));
        }
        // What does not come from a run of the study is sampled once for all seeds.
        let (own, seed) = match rollouts.from.as_deref() {
            None | Some("base") => (name.to_string(), self.study.head.seeds[0]),
            Some(_) => (format!("{name}.seed-{seed}"), seed),
        };
        let mut needs = vec![format!("puzzles.{}", rollouts.data)];
        let mut command = vec!["rollout".to_string()];
        if let Some(from) = &rollouts.from {
            let teacher = self.reference(&section, from, seed)?;
            needs.extend(teacher.needs());
            command.extend(["--model".into(), text(&teacher.dir)]);
        }
        command.extend(["--data".into(), text(&self.path(&["puzzles", &rollouts.data]))]);
        command.extend(self.study.flags(&section, &rollouts.flags, &["out", "model", "fresh", "seed", "device"])?);
        let out = self.path(&["rollouts", &own]);
        command.extend(["--seed".into(), seed.to_string(), "--out".into(), text(&out)]);
        let task = format!("rollout.{own}");
        let prompts = number(&rollouts.flags, "limit", self.study.examples(Some(&rollouts.data)));
        let responses =
            if rollouts.flags.contains_key("teacher") { 1.0 } else { number(&rollouts.flags, "samples", 8.0) };
        self.push(&task, &section, needs, command, Kind::Respond, prompts * responses);
        Ok(Artifact { dir: out, task: Some(task) })
    }

    /// The measurements of dynamics; their directories for the index.
    fn dynamics(&mut self, benches: &Benches) -> Result<Vec<PathBuf>> {
        let Some(wanted) = &self.study.dynamics else { return Ok(Vec::new()) };
        let seed = self.study.head.seeds[0];
        let names = match &wanted.train {
            Some(names) => names.clone(),
            None => self.study.supervised()?,
        };
        let mut needs = benches.needs.clone();
        let mut train = Vec::new();
        for name in &names {
            let data = self.data(name, name, seed).map_err(|e| e.context("[dynamics] train"))?;
            needs.extend(data.needs());
            train.push(format!("{name}={}", text(&data.dir)));
        }
        if train.is_empty() {
            return Err(self.study.error("dynamics", "no data to step on; name some: train = [\"NAME\"]"));
        }
        let mut prior = benches.specs.clone();
        if let Some(names) = &wanted.prior {
            let of = |spec: &String| spec.split('=').next().unwrap_or_default().to_string();
            if let Some(other) = names.iter().find(|name| !prior.iter().any(|spec| of(spec) == **name)) {
                let known: Vec<String> = prior.iter().map(of).collect();
                let why = format!("prior: no benchmark is called {other:?}; there are {}", known.join(", "));
                return Err(self.study.error("dynamics", why));
            }
            prior.retain(|spec| names.contains(&of(spec)));
        }
        let comparisons: Vec<String> = self.runs.iter().map(|run| run.name.clone()).collect();
        let base = text(&self.study.head.base);
        let flags =
            self.study.flags("dynamics", &wanted.flags, &["out", "model", "base", "forgetting", "fresh", "device"])?;
        let pairs = number(&wanted.flags, "pairs", 256.0) * (train.len() * prior.len()) as f64;
        let mut all = Vec::new();
        let mut measure =
            |builder: &mut Self, name: &str, models: Vec<String>, more: Vec<String>, with_comparisons: bool| {
                let mut command = vec!["dynamics".to_string(), "--model".into(), base.clone()];
                let passes = if models.is_empty() { 1.0 } else { 2.0 + builder.study.eval.checkpoints as f64 };
                command.extend(models);
                command.extend(["--base".into(), base.clone(), "--train".into()]);
                command.extend(train.iter().cloned());
                command.push("--prior".into());
                command.extend(prior.iter().cloned());
                let mut needs = [needs.clone(), more].concat();
                if with_comparisons && !comparisons.is_empty() {
                    command.push("--forgetting".into());
                    command.extend(comparisons.iter().map(|run| text(&builder.path(&["compare", run]))));
                    needs.extend(comparisons.iter().map(|run| format!("compare.{run}")));
                }
                command.extend(flags.iter().cloned());
                command.extend(["--out".into(), text(&builder.path(&["dynamics", name]))]);
                let task = format!("dynamics.{name}");
                builder.push(&task, "dynamics", needs, command, Kind::Pair, passes * pairs);
                builder.tasks.iter_mut().filter(|t| t.name == task).for_each(|t| t.aggregates = true);
                all.push(Path::new("dynamics").join(name));
            };
        measure(self, "base", Vec::new(), Vec::new(), true);
        for over in &wanted.over {
            let (name, point) = self.study.ladder_point("dynamics", over)?;
            let made = self.model(name, point, seed)?;
            let mut models = vec![text(&made.dir)];
            if matches!(point, LadderPoint::Lr(_)) {
                models.insert(0, text(&made.dir.parent().unwrap_or(&made.dir).join("checkpoints/*")));
            }
            measure(self, &point.run(name, seed), models, made.needs(), false);
        }
        Ok(all)
    }
}

/// Flags of `jigsaw eval` that the study sets.
const OWN_EVAL: &[&str] = &[
    "model",
    "api",
    "baseline",
    "baseline_results",
    "data",
    "bench",
    "out",
    "fresh",
    "rescore",
    "device",
    "split",
    "samples",
    "temperature",
    "top_p",
    "top_k",
    "seed",
];

struct Benches {
    /// `NAME=FILE`.
    specs: Vec<String>,
    /// Tasks that make the files.
    needs: Vec<String>,
    /// How many questions there are in all, roughly.
    questions: f64,
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Does a word of a command stand for the checkpoints on the way of a run?
pub(super) fn is_checkpoint_glob(word: &str) -> bool {
    word.ends_with("/checkpoints/*")
}

/// The checkpoints of the run `dir` that are evaluated on its way: at most `most`, evenly spread, without the one that is the final model,
/// and without those that the run saved only because it was stopped there.
///
/// # Errors
/// A directory that cannot be read.
pub fn checkpoints(dir: &Path, most: usize) -> Result<Vec<PathBuf>> {
    let finished: Option<serde_json::Value> = files::read_json(&dir.join("finished.json")).ok();
    let last = finished.and_then(|finished| finished.get("step")?.as_u64());
    let places = dir.join("checkpoints");
    let entries =
        std::fs::read_dir(&places).map_err(|e| Error::failed(format!("cannot read {}: {e}", places.display())))?;
    let step = |path: &Path| path.file_name()?.to_str()?.strip_prefix("step-")?.parse::<u64>().ok();
    let mut found: Vec<(u64, PathBuf)> =
        entries.flatten().map(|entry| entry.path()).filter_map(|path| Some((step(&path)?, path))).collect();
    let config = TrainConfig::resolve(None, Some(&dir.join("config.toml")), &[]).ok();
    // A run saves after the round in which a multiple is reached, as it does without having been stopped.
    let due = |step: u64| match &config {
        Some(config) if config.train.save_every > 0 => {
            let (every, round) = (config.train.save_every as u64, config.steps_per_round() as u64);
            step / every > step.saturating_sub(round) / every
        }
        _ => true,
    };
    found.retain(|(step, _)| Some(*step) != last && *step > 0 && due(*step));
    found.sort();
    let n = found.len();
    let chosen = match most >= n {
        true => (0..n).collect::<Vec<_>>(),
        // The middles of as many equal parts.
        false => (0..most).map(|i| (2 * i + 1) * n / (2 * most)).collect(),
    };
    Ok(chosen.into_iter().map(|i| found[i].1.clone()).collect())
}
