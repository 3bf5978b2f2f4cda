//! What the base knew and a tuned model lost, or the other way round: questions with the answers of the base and of every model, to be
//! looked through.
//!
//! A page holds at most [`MAX_QUESTIONS`] of them, at most [`PER_FAMILY`] of each family, with pictures of at most [`SIDE`] pixels, and no
//! more than [`MAX_BYTES`]. They are drawn at random with a fixed seed, the same number for each model and direction as far as there are
//! any. The counts are of all answers.

mod choose;
#[cfg(test)]
mod tests;

use super::example_cards::cut;
use super::picture::data_uri;
use super::shown_models::{FoundEvaluation, ShownModels};
use crate::data::IMAGE_PLACEHOLDER;
use crate::forgetting::BenchmarkChange;
use crate::sampling::{LoggedResponse, ScoredResponse};
use crate::tasks::{Task, answer_block};
use crate::{Error, Result, rng};
use choose::{Flipped, choose};
use rand::seq::SliceRandom;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

/// Questions on a page at most.
const MAX_QUESTIONS: usize = 120;
/// Questions of a family at most.
const PER_FAMILY: usize = 20;
/// Longer side of a picture in pixels.
const SIDE: u32 = 160;
/// Bytes of all questions with their pictures, counted as if each byte of text were escaped.
const MAX_BYTES: usize = 4 << 20;
/// Bytes of a question, of an answer and of a whole response that are shown.
const QUESTION: usize = 500;
const ANSWER: usize = 120;
const RESPONSE: usize = 600;
/// Bytes that a byte of text comes to at most when it is escaped.
const ESCAPED: usize = 6;
/// Questions that are shown where the page cannot run its script.
const FEW: usize = 4;
/// Seed of the choice.
const SEED: u64 = 0;

/// The section of a page.
#[derive(Debug, Serialize)]
pub struct FlipSection {
    /// What a model is called: of a study, its regime.
    what: &'static str,
    base: String,
    /// Models beyond those shown.
    more: usize,
    models: Vec<ModelHead>,
    families: Vec<String>,
    /// For each model, for each family.
    counts: Vec<Vec<FlipCount>>,
    questions: Vec<FlippedQuestion>,
    few: usize,
    /// Evaluations and pictures that are not there, and why.
    left_out: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ModelHead {
    name: String,
    run: Option<String>,
    colour: usize,
}

/// How many answers changed, of all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
struct FlipCount {
    lost: usize,
    gained: usize,
    of: usize,
}

/// A question that some model answers otherwise than the base: one of the two is right.
#[derive(Debug, Clone, Serialize)]
struct FlippedQuestion {
    family: String,
    benchmark: String,
    id: String,
    /// Numbers of the models that lost it, and of those that gained it.
    lost: Vec<usize>,
    gained: Vec<usize>,
    /// The first picture, as a data URI.
    picture: Option<String>,
    /// Pictures beyond the first.
    more_pictures: usize,
    question: String,
    gold: String,
    /// The base's answer, then that of each model.
    answers: Vec<ShownAnswer>,
}

/// An answer, short.
#[derive(Debug, Clone, Serialize)]
struct ShownAnswer {
    /// Number of the model; none for the base.
    model: Option<usize>,
    /// What was answered.
    text: String,
    /// The response, where it says more than that.
    whole: Option<String>,
    right: bool,
    /// `lost`, `gained`, or nothing.
    change: &'static str,
}

/// The section about these models; `None` if no answer changed.
pub fn section(shown: &ShownModels<'_>) -> Option<FlipSection> {
    let benchmarks = &shown.models.first()?.tuned.benchmarks;
    let mut families: Vec<String> = Vec::new();
    for benchmark in benchmarks {
        if !families.contains(&benchmark.family) {
            families.push(benchmark.family.clone());
        }
    }
    let counts: Vec<Vec<FlipCount>> = shown.models.iter().map(|m| counts(&m.tuned.benchmarks, &families)).collect();
    if counts.iter().flatten().all(|count| count.lost + count.gained == 0) {
        return None;
    }
    let mut missing: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let mut of_family: Vec<Vec<Flipped<FlippedQuestion>>> = families.iter().map(|_| Vec::new()).collect();
    for benchmark in benchmarks {
        let family = families.iter().position(|name| *name == benchmark.family).unwrap_or(0);
        let mut lacks = |why: String| missing.entry(why).or_default().push(&benchmark.name);
        of_family[family].extend(flipped(shown, benchmark, &mut lacks));
    }
    for (number, found) in of_family.iter_mut().enumerate() {
        found.shuffle(&mut rng::stream(SEED, "report flips", &[number as u64]));
    }
    let mut chosen: Vec<_> =
        of_family.into_iter().map(|family| choose(family, shown.models.len(), PER_FAMILY).into_iter()).collect();
    // The families take turns, so that the first questions are of all kinds.
    let mut questions = Vec::new();
    while questions.len() < MAX_QUESTIONS {
        let before = questions.len();
        questions.extend(chosen.iter_mut().filter_map(Iterator::next));
        if questions.len() == before {
            break;
        }
    }
    questions.truncate(MAX_QUESTIONS);
    for benchmark in benchmarks {
        let own = questions.iter_mut().filter(|question| question.benchmark == benchmark.name);
        let mut own: Vec<&mut FlippedQuestion> = own.collect();
        if !own.is_empty()
            && let Some(base) = shown.evaluation(&shown.base.hash, benchmark)
            && let Err(why) = shown.task(&base.about).and_then(|task| illustrate(task.as_ref(), &mut own))
        {
            missing.entry(format!("Questions are shown without pictures: {why}")).or_default().push(&benchmark.name);
        }
    }
    let mut bytes = 0;
    questions.retain(|question| {
        bytes += question.bytes();
        bytes <= MAX_BYTES
    });
    let heads = shown.models.iter().map(|m| ModelHead { name: m.name.clone(), run: m.run.clone(), colour: m.colour });
    let left_out = missing.into_iter().map(|(why, of)| format!("{why} ({}).", of.join(", ")));
    Some(FlipSection {
        what: if shown.study.is_some() { "Regime" } else { "Model" },
        base: shown.base.name.clone(),
        more: shown.more,
        models: heads.collect(),
        families,
        counts,
        questions,
        few: FEW,
        left_out: left_out.collect(),
    })
}

/// How many answers of a model changed, by family.
fn counts(benchmarks: &[BenchmarkChange], families: &[String]) -> Vec<FlipCount> {
    let of = |family: &String| {
        let own = benchmarks.iter().filter(|benchmark| benchmark.family == *family);
        own.fold(FlipCount::default(), |sum, benchmark| FlipCount {
            lost: sum.lost + benchmark.transitions.right_to_wrong.count,
            gained: sum.gained + benchmark.transitions.wrong_to_right.count,
            of: sum.of + benchmark.all.n,
        })
    };
    families.iter().map(of).collect()
}

/// Every question of a benchmark that some model answers rightly where the base does not, or the other way round. Responses that are not
/// there are told to `lacks`.
fn flipped(
    shown: &ShownModels<'_>,
    benchmark: &BenchmarkChange,
    lacks: &mut dyn FnMut(String),
) -> Vec<Flipped<FlippedQuestion>> {
    let mut read = |name: &str, hash: &str| match shown.evaluation(hash, benchmark).map(FoundEvaluation::lines) {
        Some(Ok(lines)) => lines,
        Some(Err(e)) => {
            lacks(format!("Responses of {name} cannot be read: {e}"));
            Vec::new()
        }
        None => {
            lacks(format!("The responses of {name} are not there any more"));
            Vec::new()
        }
    };
    let base = read(&shown.base.name, &shown.base.hash);
    let mut of_models: Vec<HashMap<(String, usize), ScoredResponse>> = Vec::new();
    for model in &shown.models {
        let place = |line: LoggedResponse<'static>| {
            let response = line.response.into_owned();
            ((response.id.clone(), response.sample), response)
        };
        of_models.push(read(&model.name, &model.tuned.model.hash).into_iter().map(place).collect());
    }
    let mut found = Vec::new();
    for line in base {
        let before = line.response.as_ref();
        let place = (before.id.clone(), before.sample);
        let after: Vec<Option<&ScoredResponse>> = of_models.iter().map(|model| model.get(&place)).collect();
        let changed = |is_right: bool| -> Vec<usize> {
            let flips = |after: &Option<&ScoredResponse>| {
                before.score.correct != is_right && after.is_some_and(|after| after.score.correct == is_right)
            };
            after.iter().enumerate().filter(|(_, after)| flips(after)).map(|(i, _)| i).collect()
        };
        let (lost, gained) = (changed(false), changed(true));
        if lost.is_empty() && gained.is_empty() {
            continue;
        }
        let change = |i: usize| match (lost.contains(&i), gained.contains(&i)) {
            (true, _) => "lost",
            (_, true) => "gained",
            _ => "",
        };
        let own =
            after.iter().enumerate().filter_map(|(i, after)| Some(ShownAnswer::of(Some(i), (*after)?, change(i))));
        let answers = [ShownAnswer::of(None, before, "")].into_iter().chain(own).collect();
        let question = FlippedQuestion {
            family: benchmark.family.clone(),
            benchmark: benchmark.name.clone(),
            id: before.id.clone(),
            lost: lost.clone(),
            gained: gained.clone(),
            picture: None,
            more_pictures: 0,
            question: line.prompt.as_deref().map_or_else(String::new, asked),
            gold: cut(&line.gold.unwrap_or_default(), ANSWER),
            answers,
        };
        found.push(Flipped { question, lost, gained });
    }
    found
}

/// Give each question its picture, and its words where the responses do not have them.
fn illustrate(task: &dyn Task, questions: &mut [&mut FlippedQuestion]) -> std::result::Result<(), String> {
    let at: HashMap<String, usize> = (0..task.len())
        .map(|i| Ok((task.example(i)?.id.clone(), i)))
        .collect::<Result<_>>()
        .map_err(|e: Error| e.to_string())?;
    for question in questions {
        let Some(&i) = at.get(&question.id) else { continue };
        question.illustrate(task, i).map_err(|e| e.to_string())?;
    }
    Ok(())
}

impl FlippedQuestion {
    fn illustrate(&mut self, task: &dyn Task, i: usize) -> Result<()> {
        let record = task.example(i)?;
        if self.question.is_empty() {
            let turns: Vec<&str> = record.prompt().iter().map(|turn| turn.content.as_str()).collect();
            self.question = asked(&turns.join("\n\n"));
            self.gold = cut(&record.answer, ANSWER);
        }
        let images = task.images(i)?;
        self.more_pictures = images.len().saturating_sub(1);
        self.picture = images.first().map(|image| data_uri(image, SIDE)).transpose()?;
        Ok(())
    }

    /// Bytes on the page at most, without what is the same for every question.
    fn bytes(&self) -> usize {
        let answers = self.answers.iter().map(|a| a.text.len() + a.whole.as_ref().map_or(0, String::len) + 30);
        let text = self.question.len() + self.gold.len() + self.id.len() + answers.sum::<usize>();
        self.picture.as_ref().map_or(0, String::len) + ESCAPED * text
    }
}

impl ShownAnswer {
    fn of(model: Option<usize>, response: &ScoredResponse, change: &'static str) -> ShownAnswer {
        let given = response.response.trim();
        let block = answer_block(given).ok().map(str::trim).filter(|block| !block.is_empty());
        let text = match block {
            Some(block) => cut(block, ANSWER),
            None if given.is_empty() => "(nothing)".to_string(),
            None => cut(given, ANSWER),
        };
        let says_more = given != text && block.is_none_or(|block| given != format!("<answer>{block}</answer>"));
        let whole = says_more.then(|| cut(given, RESPONSE));
        ShownAnswer { model, text, whole, right: response.score.correct, change }
    }
}

/// A question as a person reads it.
fn asked(prompt: &str) -> String {
    cut(prompt.replace(IMAGE_PLACEHOLDER, "").trim(), QUESTION)
}
