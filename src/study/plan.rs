//! From the file of a study to its tasks.

mod dynamics;
mod models;
mod recovery;
mod sequence;

use super::checkpoints::CheckpointChoice;
use super::command::{Eval, Gen, GenSettings, JigsawCommand, Report, Train};
use super::input_hash::Input;
use super::resolve::LadderPoint;
use super::study_file::{Puzzles, Regime, Study};
use super::task::{Plan, StudyTask, TaskKind};
use crate::data::MANIFEST;
use crate::eval::SolverEvalRequest;
use crate::eval::bench::{self, BenchmarkSpec};
use crate::forgetting::{self, CompareRequest, NEW_TASK};
use crate::model::SamplingParams;
use crate::report::{self, RecoveryRun, SolverEntry, StudyIndex, StudyRun};
use crate::sampling::{BATCH_SIZE, SamplePlan};
use crate::tasks::SolverKind;
use crate::tasks::benchmarks::DEFAULT_NEW_TOKENS;
use crate::tasks::jigsaw::QuestionKind;
use crate::tasks::split::SPLITS;
use crate::train::settings::Method;
use crate::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use toml::Value;

/// Questions of a benchmark file that is not read for the estimate.
const QUESTIONS_OF_A_FILE: f64 = 1000.0;

/// The tasks of `study`, with everything under `out`.
///
/// # Errors
/// Input errors that name the section: a name that does not exist, a circle of regimes, settings that do not fit.
pub fn plan(study: &Study, out: &Path) -> Result<Plan> {
    let mut builder = Builder {
        study,
        out,
        tasks: Vec::new(),
        runs: Vec::new(),
        recoveries: Vec::new(),
        solvers: Vec::new(),
        inputs: Vec::new(),
        under_way: Vec::new(),
    };
    for (name, puzzles) in &study.puzzles {
        builder.puzzles(name, puzzles)?;
    }
    let benches = builder.prior()?;
    for (name, regime) in &study.regimes {
        if regime.measured {
            builder.regime(name, regime, &benches)?;
        }
    }
    let sequence = builder.sequence(&benches)?;
    let dynamics = builder.dynamics(&benches)?;
    let mut needs: Vec<String> = builder.tasks.iter().map(|task| task.name.clone()).collect();
    needs.retain(|name| ["compare.", "dynamics.", "solver."].iter().any(|kind| name.starts_with(kind)));
    let (runs, title, page) = (vec![out.to_path_buf()], study.head.title.clone(), out.join("report.html"));
    let command = JigsawCommand::Report(Report { runs, title, out: page });
    builder.push(StudyTask {
        aggregates: true,
        ..StudyTask::new("report", "study", needs, command, TaskKind::Small, 1.0)
    })?;
    let measured = study.regimes.iter().filter(|(_, regime)| regime.measured);
    let regimes =
        measured.map(|(name, r)| report::RegimeEntry { name: name.clone(), about: r.about.clone() }).collect();
    let Builder { tasks, runs, recoveries, solvers, .. } = builder;
    let base = study.head.base.display().to_string();
    let index = StudyIndex::new(&study.head.title, &base, regimes, runs, same_puzzles(study), dynamics);
    let index = StudyIndex { recoveries, solvers, sequence, ..index };
    Ok(Plan { tasks, index, resolve: study.resolve })
}

/// Names of puzzles that are the same pictures and right answers, asked in other words: their settings differ in style and in the place of
/// the question alone.
fn same_puzzles(study: &Study) -> Vec<Vec<String>> {
    type Key<'a> = (GenSettings, &'a Option<String>);
    let mut groups: Vec<(Key<'_>, Vec<String>)> = Vec::new();
    for (name, puzzles) in &study.puzzles {
        let key = (puzzles.dataset.clone().without_wording(), &puzzles.split);
        match groups.iter_mut().find(|(other, _)| *other == key) {
            Some((_, names)) => names.push(name.clone()),
            None => groups.push((key, vec![name.clone()])),
        }
    }
    groups.into_iter().map(|(_, names)| names).filter(|names| names.len() > 1).collect()
}

struct Builder<'a> {
    study: &'a Study,
    out: &'a Path,
    tasks: Vec<StudyTask>,
    runs: Vec<StudyRun>,
    recoveries: Vec<RecoveryRun>,
    solvers: Vec<SolverEntry>,
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

impl Builder<'_> {
    /// Add a task, unless it is there already.
    fn push(&mut self, mut task: StudyTask) -> Result<()> {
        if self.tasks.iter().any(|other| other.name == task.name) {
            return Ok(());
        }
        let command = &task.command;
        command.check().map_err(|e| {
            let whose = match command.subcommand() {
                subcommand @ ("gen" | "rollout" | "eval" | "dynamics") => {
                    format!(" (the keys of this section are the flags of `jigsaw {subcommand}`)")
                }
                _ => String::new(),
            };
            self.study.error(&task.section, format!("{e}{whose}"))
        })?;
        task.inputs = self.inputs(command);
        self.tasks.push(task);
        Ok(())
    }

    /// The files that a command reads besides what the study makes: settings of training, and `[benchmarks]`.
    fn inputs(&mut self, command: &JigsawCommand) -> Vec<Arc<Input>> {
        let none: &[BenchmarkSpec] = &[];
        let (config, specs) = match command {
            JigsawCommand::Train(train) => (train.config.clone(), none),
            JigsawCommand::Eval(eval) => (None, eval.benchmarks.as_slice()),
            JigsawCommand::Compare(request) => (None, request.benchmarks.as_slice()),
            JigsawCommand::Dynamics(request) => (None, request.prior.as_slice()),
            _ => (None, none),
        };
        let own = specs
            .iter()
            .filter(|spec| self.study.benchmarks.iter().any(|b| (&b.name, &b.path) == (&spec.name, &spec.path)))
            .map(|spec| spec.path.clone());
        // The manifest of a dataset holds a hash of the rest of it.
        let files = own.map(|path| if path.is_dir() { path.join(MANIFEST) } else { path });
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

    fn puzzles(&mut self, name: &str, puzzles: &Puzzles) -> Result<()> {
        let section = format!("puzzles.{name}");
        let Puzzles { dataset, split } = puzzles.clone();
        let (count, out) = (dataset.size().0 as f64, self.path(&["puzzles", name]));
        let command = JigsawCommand::Gen(Gen { dataset, split, out });
        self.push(StudyTask::new(&section, &section, Vec::new(), command, TaskKind::Make, count))
    }

    /// The suites; all benchmarks, and the task that makes some of them.
    fn prior(&mut self) -> Result<Benches> {
        let mut benches = Benches { specs: Vec::new(), needs: Vec::new(), questions: 0.0 };
        if let Some(prior) = &self.study.prior {
            let dir = self.path(&["prior"]);
            let names = self.study.bench_names(prior);
            let (settings, split) = (prior.settings.clone(), prior.split.clone());
            let made = settings.count as f64;
            let held_out = settings.held_out.map_or(made * 0.1, |held_out| held_out as f64);
            let command = JigsawCommand::Gen(Gen { dataset: GenSettings::Suites(settings), split, out: dir.clone() });
            self.push(StudyTask::new(
                "prior",
                "prior",
                Vec::new(),
                command,
                TaskKind::Make,
                made * names.len() as f64 / 2.0,
            ))?;
            let spec = |name: &String| BenchmarkSpec {
                name: name.clone(),
                path: dir.join("bench").join(format!("{name}.tsv")),
                kind: None,
                split: EVALUATED.into(),
            };
            benches.specs.extend(names.iter().map(spec));
            benches.needs.push("prior".into());
            benches.questions = held_out * names.len() as f64;
        }
        benches.specs.extend(self.study.benchmarks.iter().cloned());
        benches.questions += QUESTIONS_OF_A_FILE * self.study.benchmarks.len() as f64;
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
                self.solvers(&test, regime)?;
                let eval = &self.study.eval;
                let command = JigsawCommand::Compare(CompareRequest {
                    base: Some(self.study.head.base.clone()),
                    base_results: Some(self.path(&["base", &test])),
                    tuned: vec![made.dir.clone()],
                    benchmarks: benches.specs.clone(),
                    new_task: Some(self.new_task(&test)),
                    settings: self.eval_settings(),
                    prior: self.held_out_prior()?,
                    prompts: eval.kl_prompts.unwrap_or(forgetting::PROMPTS),
                    out: self.path(&["compare", &run]),
                    fresh: false,
                });
                let needs = [made.needs(), vec![base], benches.needs.clone()].concat();
                let checkpoints = self.checkpoints(point, &made);
                let models = 1.0 + checkpoints.as_ref().map_or(0.0, |checkpoints| checkpoints.most as f64);
                let responses = models * self.questions(&test, benches);
                let name_of_task = format!("compare.{run}");
                let new = StudyTask::new(&name_of_task, &section, needs, command, TaskKind::Respond, responses);
                let comparison = StudyTask { checkpoints, ..new };
                self.push(comparison.clone())?;
                self.recovery((name, point, seed), &made, &comparison)?;
                let data = match &regime.data {
                    Some(data) if regime.interpolate.is_none() => Some(self.data(&section, data, seed)?.dir),
                    _ => None,
                };
                let relative = |path: &Path| path.strip_prefix(self.out).map(Path::to_path_buf).ok();
                self.runs.push(StudyRun {
                    name: run.clone(),
                    regime: name.into(),
                    learning_rate: point.learning_rate(),
                    seed,
                    dir: point.learning_rate().and_then(|_| relative(made.dir.parent()?)),
                    comparison: Path::new("compare").join(&run),
                    data: data.as_deref().and_then(relative),
                    new_task: Some(test.clone()),
                    training: None,
                });
            }
        }
        Ok(())
    }

    /// The prior prompts that are held out from the benchmarks, if a split is named for them.
    fn held_out_prior(&self) -> Result<Vec<BenchmarkSpec>> {
        let Some(split) = &self.study.eval.prior_split else { return Ok(Vec::new()) };
        let error = |why: String| Err(self.study.error("eval", format!("prior_split = {split:?}: {why}")));
        let Some(prior) = &self.study.prior else {
            return error("there is no [prior] to take prompts from".into());
        };
        match SPLITS.iter().position(|known| known == split) {
            Some(side) if split != EVALUATED => {
                let made = prior.settings.split.apportion(prior.settings.count)?;
                if made[side] == 0 {
                    return error(format!(
                        "the split of [prior] leaves no questions there; it is {}",
                        prior.settings.split
                    ));
                }
            }
            _ => return error("give \"train\" or \"validation\"; the benchmarks are of \"test\"".into()),
        }
        Ok(vec![BenchmarkSpec { name: "prior".into(), path: self.path(&["prior"]), kind: None, split: split.clone() }])
    }

    /// The intermediate checkpoints of a run that are evaluated. An interpolated model has none.
    fn checkpoints(&self, point: LadderPoint, made: &Artifact) -> Option<CheckpointChoice> {
        let most = self.study.eval.checkpoints;
        let run = made.dir.parent().filter(|_| most > 0 && matches!(point, LadderPoint::Lr(_)))?;
        Some(CheckpointChoice { run: run.to_path_buf(), most })
    }

    /// How models are evaluated.
    fn eval_settings(&self) -> bench::BenchmarkSettings {
        let eval = &self.study.eval;
        bench::BenchmarkSettings {
            plan: SamplePlan {
                limit: eval.limit,
                num_generations: 1,
                batch_size: eval.batch_size.unwrap_or(BATCH_SIZE),
            },
            sampling: SamplingParams::greedy(eval.max_new_tokens.unwrap_or(DEFAULT_NEW_TOKENS)),
            max_new_tokens: eval.max_new_tokens,
            min_pixels: eval.min_pixels,
            max_pixels: eval.max_pixels,
        }
    }

    /// The test split of `puzzles` as the new task.
    fn new_task(&self, puzzles: &str) -> BenchmarkSpec {
        let path = self.path(&["puzzles", puzzles]);
        BenchmarkSpec { name: NEW_TASK.into(), path, kind: None, split: EVALUATED.into() }
    }

    /// Questions that one evaluation asks on a new task and all benchmarks.
    fn questions(&self, test: &str, benches: &Benches) -> f64 {
        let puzzles = self.study.puzzles.iter().find(|(name, _)| name == test);
        let own = puzzles.map_or(0.0, |(_, puzzles)| puzzles.examples(2));
        self.prior_questions(benches) + self.study.eval.limit.map_or(own, |limit| limit as f64)
    }

    /// Questions that one evaluation asks on all benchmarks.
    fn prior_questions(&self, benches: &Benches) -> f64 {
        self.study.eval.limit.map_or(benches.questions, |limit| (limit * benches.specs.len()) as f64)
    }

    /// The puzzles of `test` solved without a model, where their tiles are to be ordered: lines to measure the regimes against. The solver by colour
    /// learns from their train split; where they have none, from what the regime is trained on.
    fn solvers(&mut self, test: &str, regime: &Regime) -> Result<()> {
        let Some((_, puzzles)) = self.study.puzzles.iter().find(|(name, _)| name == test) else { return Ok(()) };
        let orders = match &puzzles.dataset {
            GenSettings::Jigsaw { settings, .. } => settings.question == QuestionKind::Order,
            _ => false,
        };
        let data = regime.data.as_deref().unwrap_or(test);
        let prompts = self.study.rollouts.iter().find(|(name, _)| name == data).map_or(data, |(_, r)| r.data.as_str());
        let train = if puzzles.examples(0) > 0.0 { test } else { prompts }.to_string();
        let learnable = self.study.puzzles.iter().any(|(name, puzzles)| *name == train && puzzles.examples(0) > 0.0);
        for solver in SolverKind::ALL.into_iter().filter(|_| orders) {
            if (solver == SolverKind::Colour && !learnable)
                || self.solvers.iter().any(|one| one.name == solver.to_string() && one.puzzles == test)
            {
                continue;
            }
            let dir = Path::new("solvers").join(test).join(solver.name());
            let learns_from = if solver == SolverKind::Colour { train.as_str() } else { test };
            let command = JigsawCommand::Solve(SolverEvalRequest {
                solver,
                train: self.path(&["puzzles", learns_from]),
                data: self.path(&["puzzles", test]),
                split: EVALUATED.into(),
                limit: self.study.eval.limit,
                out: self.out.join(&dir),
                fresh: false,
            });
            let mut needs = vec![format!("puzzles.{test}"), format!("puzzles.{learns_from}")];
            needs.dedup();
            let task = format!("solver.{}.{test}", solver.name());
            self.push(StudyTask::new(&task, &format!("puzzles.{test}"), needs, command, TaskKind::Small, 1.0))?;
            self.solvers.push(SolverEntry { name: solver.to_string(), puzzles: test.to_string(), dir });
        }
        Ok(())
    }

    /// The evaluation of the base with the test split of `test` as the new task; the name of its task.
    fn base(&mut self, test: &str, benches: &Benches) -> Result<String> {
        let name = format!("base.{test}");
        let command = JigsawCommand::Eval(Eval {
            model: self.study.head.base.clone(),
            benchmarks: [vec![self.new_task(test)], benches.specs.clone()].concat(),
            settings: self.eval_settings(),
            out: self.path(&["base", test]),
        });
        let needs = [vec![format!("puzzles.{test}")], benches.needs.clone()].concat();
        self.push(StudyTask::new(&name, "eval", needs, command, TaskKind::Respond, self.questions(test, benches)))?;
        Ok(name)
    }
}

/// The split of a dataset that is evaluated.
const EVALUATED: &str = "test";

struct Benches {
    specs: Vec<BenchmarkSpec>,
    /// Tasks that make the files.
    needs: Vec<String>,
    /// How many questions there are in all, roughly.
    questions: f64,
}
