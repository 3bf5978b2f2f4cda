//! `study.json`: the regimes and runs of a study and the paths of their results, written by the study and read by the report.

use crate::io::files;
use crate::train::run_dir::{FINISHED_JSON, RunSummary};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// File in the directory of a study that lists its parts.
pub const STUDY_JSON: &str = "study.json";

/// Raised whenever the format of `study.json` changes.
const FORMAT_VERSION: u32 = 1;

/// A study: regimes of fine-tuning, each run at some learning rates and seeds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StudyIndex {
    /// Version of the file format; see [`StudyIndex::new`].
    pub format_version: u32,
    /// Title.
    pub title: String,
    /// The base model's directory.
    pub base: String,
    /// The regimes, in the order in which they are shown.
    pub regimes: Vec<RegimeEntry>,
    /// Their runs, finished or not.
    pub runs: Vec<StudyRun>,
    /// Names of new tasks that are the same puzzles in other words: made with the same settings, but for those of
    /// the wording.
    #[serde(default)]
    pub same_puzzles: Vec<Vec<String>>,
    /// Comparisons of models that were trained a little further on prior examples.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recoveries: Vec<RecoveryRun>,
    /// Directories with a `dynamics.json`, relative to the study's; they may be missing.
    #[serde(default)]
    pub dynamics: Vec<PathBuf>,
    /// Evaluations of solvers that are no models on the test splits of puzzles; they may be missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub solvers: Vec<SolverEntry>,
    /// Tasks that are learned in a row, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<SequenceIndex>,
}

/// Tasks that are learned in a row by several methods. Paths are relative to the study's directory; what they name may be missing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SequenceIndex {
    /// The tasks in the order in which they are learned; sets of examples have the same names in the evaluations.
    pub tasks: Vec<String>,
    /// The methods, in the order in which they are shown.
    pub methods: Vec<RegimeEntry>,
    /// The base's evaluation on all tasks and prior sets.
    pub base: PathBuf,
    /// What each method does after each task.
    pub stages: Vec<SequenceStage>,
}

/// The model of a method after it has learned so many tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SequenceStage {
    /// Name of the method.
    pub method: String,
    /// Tasks that it has learned, from 1.
    pub number: usize,
    /// Seed of its training.
    pub seed: u64,
    /// The comparison with the base on all tasks and prior sets.
    pub comparison: PathBuf,
}

/// The evaluation of a solver that is no model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SolverEntry {
    /// Its name, such as `solver: edges`.
    pub name: String,
    /// Name of the puzzles.
    pub puzzles: String,
    /// The evaluation's directory, relative to the study's.
    pub dir: PathBuf,
}

/// A way of fine-tuning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegimeEntry {
    /// Name, unique in the study.
    pub name: String,
    /// What it is, in a few words.
    #[serde(default)]
    pub about: String,
}

/// One run of a regime. Paths are relative to the study's directory; what they name may be missing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StudyRun {
    /// Name, unique in the study.
    pub name: String,
    /// Its regime's name.
    pub regime: String,
    /// Peak learning rate; `None` where nothing was trained (an interpolated model). Then the name of the run,
    /// `REGIME.SETTING.seed-N`, says which variant of the regime it is.
    #[serde(default)]
    pub learning_rate: Option<f64>,
    /// Seed of the run.
    pub seed: u64,
    /// The training run; `None` where nothing was trained.
    #[serde(default)]
    pub dir: Option<PathBuf>,
    /// The comparison with the base: the run's checkpoints in order of training, its final model last.
    pub comparison: PathBuf,
    /// Its training data.
    #[serde(default)]
    pub data: Option<PathBuf>,
    /// Name of the puzzles whose test split is its new task; studies of earlier versions did not write it.
    #[serde(default)]
    pub new_task: Option<String>,
    /// What its training came to, its last evaluation on validation data and whether it met its criterion among it; none before it is
    /// finished, or where nothing was trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<RunSummary>,
}

/// What came back of a run's lost prior knowledge after a few gold prior examples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecoveryRun {
    /// Name of the run whose model was trained further.
    pub run: String,
    /// Prior examples that it was trained on.
    pub examples: usize,
    /// The comparison of the model after that with the base, relative to the study's directory; it may be missing.
    pub comparison: PathBuf,
}

impl StudyRun {
    /// What defines the run where it is not a learning rate: its name without regime and seed.
    pub fn setting(&self) -> &str {
        let name = self.name.strip_prefix(self.regime.as_str()).unwrap_or(&self.name).trim_start_matches('.');
        let seed = format!("seed-{}", self.seed);
        name.strip_suffix(seed.as_str()).unwrap_or(name).trim_end_matches('.')
    }
}

impl StudyIndex {
    /// A study in the current format, without recoveries, solvers and sequence.
    pub fn new(
        title: &str,
        base: &str,
        regimes: Vec<RegimeEntry>,
        runs: Vec<StudyRun>,
        same_puzzles: Vec<Vec<String>>,
        dynamics: Vec<PathBuf>,
    ) -> Self {
        let (title, base) = (title.into(), base.into());
        let (recoveries, solvers) = (Vec::new(), Vec::new());
        StudyIndex {
            format_version: FORMAT_VERSION,
            title,
            base,
            regimes,
            runs,
            same_puzzles,
            recoveries,
            dynamics,
            solvers,
            sequence: None,
        }
    }

    /// The name that stands for all new tasks that are the same puzzles as this one.
    pub fn puzzles_of<'a>(&'a self, new_task: &'a str) -> &'a str {
        let group = self.same_puzzles.iter().find(|names| names.iter().any(|name| name == new_task));
        group.and_then(|names| names.first()).map_or(new_task, String::as_str)
    }

    /// Read `study.json` in the study's directory `dir`; `None` if there is none.
    ///
    /// # Errors
    /// Input errors that name the file: not JSON, another format version, a run whose regime is not listed, a name given twice, two runs
    /// of a regime with the same learning rate and seed.
    pub fn read(dir: &Path) -> Result<Option<StudyIndex>> {
        let path = dir.join(STUDY_JSON);
        if !path.is_file() {
            return Ok(None);
        }
        let again = "run `jigsaw study` on that directory again to rewrite it";
        let index: StudyIndex = files::read_versioned(&path, FORMAT_VERSION, again)?;
        index.check().map_err(|why| Error::input(format!("{}: {why}; {again}", path.display())))?;
        Ok(Some(index))
    }

    /// With what the training of the runs has come to that are finished in the study's directory `dir`.
    ///
    /// # Errors
    /// A `finished.json` that cannot be read.
    pub fn with_trained(&self, dir: &Path) -> Result<StudyIndex> {
        let mut index = self.clone();
        for run in &mut index.runs {
            let finished = run.dir.as_ref().map(|own| dir.join(own).join(FINISHED_JSON)).filter(|path| path.exists());
            run.training = finished.map(|path| files::read_json(&path)).transpose()?;
        }
        Ok(index)
    }

    /// Write `study.json` into the study's directory `dir`, whole or not at all.
    ///
    /// # Errors
    /// An input error for what [`StudyIndex::read`] would refuse; a failure to write.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let path = dir.join(STUDY_JSON);
        self.check().map_err(|why| Error::input(format!("{}: {why}", path.display())))?;
        files::write_changed(&path, &files::to_json(self).map_err(|e| e.context(path.display()))?)
    }

    fn check(&self) -> std::result::Result<(), String> {
        let mut regimes = HashSet::new();
        if let Some(twice) = self.regimes.iter().find(|regime| !regimes.insert(regime.name.as_str())) {
            return Err(format!("the regime {:?} is listed twice", twice.name));
        }
        let mut runs = HashSet::new();
        let mut places: Vec<(&str, Option<f64>, u64)> = Vec::new();
        for run in &self.runs {
            if !regimes.contains(run.regime.as_str()) {
                return Err(format!("the run {:?} is of the regime {:?}, which is not listed", run.name, run.regime));
            }
            if !runs.insert(run.name.as_str()) {
                return Err(format!("the run {:?} is listed twice", run.name));
            }
            if run.learning_rate.is_some_and(|lr| !(lr.is_finite() && lr > 0.0)) {
                return Err(format!("the run {:?} has a learning rate that is no positive number", run.name));
            }
            let place = (run.regime.as_str(), run.learning_rate, run.seed);
            if run.learning_rate.is_some() && places.contains(&place) {
                return Err(format!(
                    "the run {:?} is not the only one of the regime {:?} with its learning rate and seed; runs that \
                     differ in anything else belong to different regimes",
                    run.name, run.regime
                ));
            }
            places.push(place);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn index() -> StudyIndex {
        let regime = |name: &str| RegimeEntry { name: name.into(), about: String::new() };
        let run = |name: &str, lr| StudyRun {
            name: name.into(),
            regime: "rft".into(),
            learning_rate: lr,
            seed: 1,
            dir: lr.map(|_| "runs/a".into()),
            comparison: "compare/a".into(),
            data: None,
            new_task: Some("bare".into()),
            training: None,
        };
        let runs = vec![run("a", Some(5e-5)), run("b", None)];
        let same = vec![vec!["thought".to_string(), "bare".to_string()]];
        StudyIndex::new("A study", "base", vec![regime("rft"), regime("sft")], runs, same, vec!["dynamics".into()])
    }

    #[test]
    fn what_is_written_is_read_and_no_file_is_no_study() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(StudyIndex::read(dir.path()).unwrap(), None);
        index().write(dir.path()).unwrap();
        assert_eq!(StudyIndex::read(dir.path()).unwrap(), Some(index()));
        assert_eq!(
            ["bare", "thought", "other"].map(|name| index().puzzles_of(name).to_string()),
            ["thought", "thought", "other"]
        );
    }

    #[test]
    fn what_training_came_to_is_read_from_the_runs_that_are_finished() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("runs/a")).unwrap();
        assert_eq!(index().with_trained(dir.path()).unwrap(), index());
        let finished =
            r#"{"step":400,"metrics":{"eval/accuracy":0.31},"criterion":{"stop_when":"accuracy >= 0.5","met":false}}"#;
        fs::write(dir.path().join("runs/a/finished.json"), finished).unwrap();
        let trained = index().with_trained(dir.path()).unwrap();
        trained.write(dir.path()).unwrap();
        let read = StudyIndex::read(dir.path()).unwrap().unwrap();
        let training = read.runs[0].training.as_ref().unwrap();
        assert!(training.step == 400 && training.criterion.as_ref().is_some_and(|criterion| !criterion.met));
        assert_eq!(read.runs[1].training, None);
    }

    #[test]
    fn fields_that_may_be_left_out_or_null_are_none() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"format_version":1,"title":"t","base":"b","regimes":[{"name":"x"}],
            "runs":[{"name":"x.1","regime":"x","learning_rate":null,"seed":1,"dir":null,"comparison":"c","data":null}]}"#;
        fs::write(dir.path().join(STUDY_JSON), text).unwrap();
        let read = StudyIndex::read(dir.path()).unwrap().unwrap();
        assert!(read.runs[0].learning_rate.is_none() && read.runs[0].dir.is_none() && read.dynamics.is_empty());
        assert!(read.runs[0].new_task.is_none() && read.same_puzzles.is_empty());
        let named = |name: &str| StudyRun { name: name.into(), ..read.runs[0].clone() };
        assert_eq!((named("x.alpha-0.5.seed-1").setting(), named("x.seed-1").setting()), ("alpha-0.5", ""));
    }

    #[test]
    fn what_is_not_usable_is_refused_by_name_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |text: &str, expected: &str| {
            fs::write(dir.path().join(STUDY_JSON), text).unwrap();
            let error = StudyIndex::read(dir.path()).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{error}");
            for part in ["study.json", expected, "jigsaw study"] {
                assert!(error.to_string().contains(part), "{part:?} is not in {error}");
            }
        };
        refused("{\"format_version\":1,", "column 20: the text ends in the middle");
        refused("{\"format_version\":7}", "has format version 7, this program reads 1");
        refused("{\"format_version\":1,\"title\":\"t\"}", "base");
        let with = |change: fn(&mut StudyIndex)| {
            let mut index = index();
            change(&mut index);
            assert_eq!(index.write(dir.path()).unwrap_err().exit_code(), 2);
            serde_json::to_string(&index).unwrap()
        };
        refused(&with(|i| i.runs[0].regime = "other".into()), "not listed");
        refused(&with(|i| i.runs[1].name = "a".into()), "listed twice");
        refused(&with(|i| i.regimes[1].name = "rft".into()), "listed twice");
        refused(&with(|i| i.runs[0].learning_rate = Some(-1.0)), "no positive number");
        refused(&with(|i| i.runs[1].learning_rate = i.runs[0].learning_rate), "not the only one");
    }
}
