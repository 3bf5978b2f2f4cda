//! `eval.prior`: questions of prior knowledge that a run asks at each evaluation. The scores are compared, question by question, with those
//! before the first step, so that `train.stop_when_forgotten` can end the run while little is lost.

use super::job::TrainJob;
use super::metrics::Metrics;
use crate::data::{METADATA, is_dataset};
use crate::io::hex;
use crate::model::{Processor, SamplingParams};
use crate::sampling::{SamplePlan, sample_task};
use crate::stats::{Interval, clustered_difference, paired_proportions, totals};
use crate::tasks::{DatasetTask, Task, benchmarks, example_size};
use crate::{Error, Result};
use rayon::prelude::*;
use std::collections::HashMap;
use std::path::Path;

/// Open the dataset or benchmark file at `path`; `processor` must take all its prompts.
///
/// # Errors
/// An input error that names the file and what is wrong in it.
pub(super) fn open(path: &Path, processor: &Processor) -> Result<Box<dyn Task>> {
    let task: Box<dyn Task> = match is_dataset(path) {
        true => {
            let split = if path.join("validation").join(METADATA).is_file() { "validation" } else { "test" };
            Box::new(DatasetTask::open(path, split)?)
        }
        false => {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            let resize = |(width, height)| match processor.images() {
                Some(images) => images.resized(width, height).map_err(|e| e.to_string()),
                None => Ok((width, height)),
            };
            let mut task = benchmarks::read(&name, path, None)?.into_task(&name, &resize)?;
            if task.take_predictions().is_some() {
                return Err(Error::input(format!("{} has no answers to score by", path.display())));
            }
            Box::new(task)
        }
    };
    let checked: Vec<Result<()>> =
        (0..task.len()).into_par_iter().map(|i| example_size(task.as_ref(), processor, i).map(drop)).collect();
    checked.into_iter().collect::<Result<()>>()?;
    Ok(task)
}

/// Ask the model all questions of `task`. The first call, before the first step, fills `baseline` with the score of each; later ones give
/// the change from it too, with its paired 95 % interval.
///
/// # Errors
/// A failure to sample; an input error if `baseline` is of another number of questions.
pub(super) fn measure(job: &TrainJob<'_>, task: &dyn Task, baseline: &mut Vec<f64>) -> Result<Metrics> {
    let settings = &job.config.eval;
    let plan = SamplePlan { limit: None, num_generations: 1, batch_size: settings.batch_size };
    let sampling = SamplingParams::greedy(settings.max_new_tokens);
    let (summary, outcomes) = sample_task(&job.responder(), task, &plan, &sampling, |_| {})?;
    let scores: Vec<f64> = outcomes.iter().map(|outcome| outcome.score.value).collect();
    let mut metrics = Metrics::default();
    metrics.push("eval/prior_score", summary.value.value);
    if baseline.is_empty() {
        *baseline = scores;
        return Ok(metrics);
    }
    if baseline.len() != scores.len() {
        return Err(Error::input(format!(
            "eval.prior: {} questions, where the run began with {}; put the file back as it was",
            scores.len(),
            baseline.len()
        )));
    }
    let change = paired_change(baseline, &scores, &groups(task)?);
    metrics.push("eval/prior_change", change.value);
    metrics.push("eval/prior_change_low", change.low);
    metrics.push("eval/prior_change_high", change.high);
    Ok(metrics)
}

/// The group of each question: those with one `meta.group`, else of one source image, else with the same picture (as the two styles of a question
/// have) are not independent. A picture that all questions have, such as a blank one, tells nothing.
fn groups(task: &dyn Task) -> Result<Vec<usize>> {
    let mut numbers: HashMap<String, usize> = HashMap::new();
    let group = |i: usize| {
        let record = task.example(i)?;
        let name = match (record.meta.get("group"), record.shared_source(), task.image_digests(i)?.as_deref()) {
            (Some(group), ..) => format!("group {group}"),
            (None, Some(source), _) => format!("source {source}"),
            (None, _, Some([picture, ..])) => format!("picture {}", hex(picture)),
            _ => format!("question {i}"),
        };
        let next = numbers.len();
        Ok(*numbers.entry(name).or_insert(next))
    };
    let groups: Vec<usize> = (0..task.len()).map(group).collect::<Result<_>>()?;
    Ok(if groups.iter().all(|group| *group == 0) { (0..task.len()).collect() } else { groups })
}

/// Mean of `now - before` with its 95 % interval, as comparisons of finished models have it: Tango's score interval of independent 0/1 scores,
/// else t with the cluster-robust error.
fn paired_change(before: &[f64], now: &[f64], groups: &[usize]) -> Interval {
    let differences = || before.iter().zip(now).map(|(before, now)| now - before);
    let independent = groups.iter().max().is_some_and(|last| last + 1 == groups.len());
    let all_or_nothing = before.iter().chain(now).all(|score| [0.0, 1.0].contains(score));
    if !(independent && all_or_nothing) {
        return clustered_difference(&totals(differences(), groups)).mean;
    }
    let count = |sign: f64| differences().filter(|difference| difference * sign > 0.0).count() as f64;
    paired_proportions(before.len() as f64, count(1.0), count(-1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Record;
    use crate::tasks::Score;
    use std::borrow::Cow;

    /// Questions of which only the source is known.
    struct Sources(Vec<Record>);

    impl Task for Sources {
        fn name(&self) -> &str {
            "sources"
        }
        fn len(&self) -> usize {
            self.0.len()
        }
        fn example(&self, i: usize) -> Result<Cow<'_, Record>> {
            Ok(Cow::Borrowed(&self.0[i]))
        }
        fn images(&self, _i: usize) -> Result<Vec<image::RgbImage>> {
            Ok(Vec::new())
        }
        fn score(&self, _i: usize, _response: &str) -> Score {
            unreachable!("nothing is answered")
        }
    }

    #[test]
    fn questions_about_one_photo_are_one_group_and_made_up_ones_each_their_own() {
        let record = |source: &str| {
            let value = serde_json::json!({
                "id": "q", "task": "vqa", "messages": [], "answer": "a", "source": source, "seed": 1
            });
            serde_json::from_value::<Record>(value).unwrap()
        };
        let of = |sources: &[&str]| groups(&Sources(sources.iter().map(|source| record(source)).collect())).unwrap();
        assert_eq!(of(&["synthetic", "fish.jpg", "synthetic", "fish.jpg", ""]), [0, 1, 2, 1, 3]);
        // A single photo for all tells nothing apart.
        assert_eq!(of(&["fish.jpg", "fish.jpg"]), [0, 1]);
    }

    #[test]
    fn the_interval_is_tangos_of_independent_questions_and_wider_where_they_share_images() {
        let before = [vec![1.0; 80], vec![0.0; 20]].concat();
        let now = [vec![0.0; 10], vec![1.0; 70], vec![0.0; 18], vec![1.0; 2]].concat();
        let alone: Vec<usize> = (0..100).collect();
        let found = paired_change(&before, &now, &alone);
        assert_eq!(found, paired_proportions(100.0, 2.0, 10.0));
        assert!(found.value == -0.08 && found.high < 0.0, "{found:?}");
        let shared: Vec<usize> = (0..100).map(|i| i / 10).collect();
        let clustered = paired_change(&before, &now, &shared);
        assert!((clustered.value + 0.08).abs() < 1e-12 && clustered.low < found.low, "{clustered:?}");
        assert!(clustered.high > 0.0, "ten pictures, one of which lost all: {clustered:?}");
    }
}
