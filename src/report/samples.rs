//! Puzzles, or examples of other tasks that draw, with the answers of each evaluation or each model drawn in.

use super::discover::EvalRun;
use super::example_cards::{Answer, Card, card};
use super::shown_models::{ExampleCheck, ShownModel, ShownModels};
use crate::eval::EvalInfo;
use crate::forgetting::BenchmarkChange;
use crate::sampling::ScoredResponse;
use crate::tasks::Task;
use crate::{Result, rng, tasks};
use rand::seq::SliceRandom;
use serde::Serialize;

/// Examples of evaluations drawn: the first of the split, so that none is hand-picked.
const MAX_EXAMPLES: usize = 8;
/// Evaluations drawn beside an example.
const MAX_DRAWN: usize = 6;
/// Examples of comparisons drawn, and the seed that they are chosen with.
const MAX_CHOSEN: usize = 6;
const SEED: u64 = 0;

/// Examples of one split with the answers to them.
#[derive(Serialize)]
pub struct ExampleGroup {
    title: String,
    caption: String,
    cards: Vec<Card>,
}

/// Answers of one model.
struct Answers {
    /// Its place among the others.
    place: usize,
    name: String,
    /// The run that the model is of, where that has another name.
    run: Option<String>,
    /// None of the base.
    colour: Option<usize>,
    outcomes: Vec<ScoredResponse>,
}

/// A set of examples with all answers to it.
struct AnsweredExamples {
    task: Box<dyn Task>,
    answers: Vec<Answers>,
}

/// The examples of each dataset that was evaluated by itself. What cannot be drawn is named in `notices`.
pub fn of_evaluations(
    evals: &[EvalRun],
    colour: &dyn Fn(&str) -> usize,
    notices: &mut Vec<String>,
) -> Vec<ExampleGroup> {
    let mut groups: Vec<Vec<&EvalRun>> = Vec::new();
    // An evaluation of a benchmark's file has no split.
    for eval in evals.iter().filter(|e| !e.outcomes.is_empty() && !e.about.split.is_empty()) {
        let about = &eval.about;
        let same = |g: &&mut Vec<&EvalRun>| g[0].about.data == about.data && g[0].about.split == about.split;
        match groups.iter_mut().find(same) {
            Some(group) => group.push(eval),
            None => groups.push(vec![eval]),
        }
    }
    let several = groups.len() > 1;
    let mut drawn = Vec::new();
    for group in groups {
        let about = &group[0].about;
        match first_cards(&group, colour, notices) {
            Ok(cards) if cards.is_empty() => {}
            Ok(cards) => {
                let title = if several { format!("Examples: {}", about.data.display()) } else { "Examples".into() };
                let shown = cards.len();
                let mut caption = format!(
                    "The first {shown} example{} of the {} split in file order, not selected.",
                    if shown == 1 { "" } else { "s" },
                    about.split
                );
                caption += &legend(&cards);
                if group.len() > MAX_DRAWN && cards.iter().any(|card| card.answers.len() == MAX_DRAWN) {
                    caption += &format!(" Of {} evaluations, the first {MAX_DRAWN} are drawn.", group.len());
                }
                drawn.push(ExampleGroup { title, caption, cards });
            }
            Err(e) => notices.push(format!("The examples of {} are not drawn: {e}.", about.data.display())),
        }
    }
    drawn
}

fn legend(cards: &[Card]) -> String {
    let legend = cards.iter().map(|card| card.legend).find(|legend| !legend.is_empty());
    legend.map_or_else(String::new, |legend| format!(" {legend}"))
}

/// The first examples with the stored answers that are to these examples. The others are named in `notices`: their answers would be drawn
/// over other pictures.
fn first_cards(group: &[&EvalRun], colour: &dyn Fn(&str) -> usize, notices: &mut Vec<String>) -> Result<Vec<Card>> {
    let about = &group[0].about;
    let task = tasks::load(&about.data, &about.split)?;
    let mut check = ExampleCheck::new(task.as_ref());
    let mut answers = Vec::new();
    for (place, eval) in group.iter().enumerate() {
        match check.changed(&eval.about)? {
            None => answers.push(Answers {
                place,
                name: eval.name.clone(),
                run: None,
                colour: Some(colour(&eval.name)),
                outcomes: eval.outcomes.iter().filter(|o| o.index < MAX_EXAMPLES).cloned().collect(),
            }),
            Some(why) => notices.push(format!(
                "{}: its answers are not drawn: {why}. Evaluate again, or put the dataset back as it was ({}).",
                eval.name,
                eval.dir.display()
            )),
        }
    }
    let last = answers.iter().flat_map(|one| &one.outcomes).map(|o| o.index + 1).max().unwrap_or(0);
    let chosen: Vec<usize> = (0..last.min(task.len())).collect();
    answers.truncate(MAX_DRAWN);
    cards(&[AnsweredExamples { task, answers }], &chosen)
}

/// The new task of models that are compared with their base, a few examples chosen at random with the answers of the base and of each
/// model. Wordings of the same puzzles come together.
pub fn of_models(shown: &ShownModels<'_>, notices: &mut Vec<String>) -> Vec<ExampleGroup> {
    let mut groups: Vec<Vec<AnsweredExamples>> = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for new_task in shown.models.iter().filter_map(|model| model.tuned.new_task.as_ref()) {
        if seen.contains(&new_task.data.as_str()) {
            continue;
        }
        seen.push(&new_task.data);
        let examples = match answered(shown, new_task) {
            Ok(Some(examples)) => examples,
            Ok(None) => continue,
            Err(why) => {
                notices.push(format!("Answers to the new task are not drawn: {why}."));
                continue;
            }
        };
        let first = |task: &dyn Task| task.images(0).ok().and_then(|images| images.into_iter().next());
        let picture = first(examples.task.as_ref());
        match groups.iter_mut().find(|group| first(group[0].task.as_ref()) == picture) {
            Some(group) => group.push(examples),
            None => groups.push(vec![examples]),
        }
    }
    let mut drawn = Vec::new();
    for group in groups {
        let n = group.iter().map(|set| set.task.len()).min().unwrap_or(0);
        let mut order: Vec<usize> = (0..n).collect();
        order.shuffle(&mut rng::stream(SEED, "report examples", &[]));
        let answered = |i: &usize| group.iter().all(|set| set.answers.iter().all(|a| a.outcome(*i).is_some()));
        let chosen: Vec<usize> = order.into_iter().filter(answered).take(MAX_CHOSEN).collect();
        match cards(&group, &chosen) {
            Ok(cards) if cards.is_empty() => {}
            Ok(cards) => {
                let mut caption = format!(
                    "{} of {n} test examples, chosen at random with a fixed seed, each with the answers of the base and of every model.",
                    cards.len()
                );
                caption += &legend(&cards);
                if shown.more > 0 {
                    caption += &format!(" {} more models are not drawn.", shown.more);
                }
                let title = shown
                    .study
                    .map_or("The new task: answers".into(), |_| "The new task: each regime’s answers".into());
                drawn.push(ExampleGroup { title, caption, cards });
            }
            Err(e) => notices.push(format!("Answers to the new task are not drawn: {e}.")),
        }
    }
    drawn
}

/// The answers to a new task that are there; `None` where there are none, or the task draws nothing. `Err` says why they cannot be shown.
fn answered(
    shown: &ShownModels<'_>,
    new_task: &BenchmarkChange,
) -> std::result::Result<Option<AnsweredExamples>, String> {
    let mut about: Option<&EvalInfo> = None;
    let mut answers = Vec::new();
    let base = (0, shown.base.hash.as_str(), format!("base: {}", shown.base.name), None, None);
    let own = |m: &&ShownModel<'_>| m.tuned.new_task.as_ref().is_some_and(|own| own.data == new_task.data);
    let own = (1..).zip(&shown.models).filter(|(_, model)| own(model));
    let own = own.map(|(i, m)| (i, m.tuned.model.hash.as_str(), m.name.clone(), m.run.clone(), Some(m.colour)));
    for (place, hash, name, run, colour) in [base].into_iter().chain(own) {
        let Some(found) = shown.evaluation(hash, new_task) else { continue };
        let lines = found.lines().map_err(|e| e.to_string())?;
        let outcomes = lines.into_iter().map(|line| line.response.into_owned()).collect();
        about = about.or(Some(&found.about));
        answers.push(Answers { place, name, run, colour, outcomes });
    }
    let Some(about) = about else { return Ok(None) };
    Ok(Some(AnsweredExamples { task: shown.task(about)?, answers }))
}

impl Answers {
    /// The first answer to example `i`.
    fn outcome(&self, i: usize) -> Option<&ScoredResponse> {
        self.outcomes.iter().find(|outcome| outcome.index == i)
    }
}

/// These examples of the first set with the answers to it, and those to the same pictures in the other sets.
fn cards(sets: &[AnsweredExamples], chosen: &[usize]) -> Result<Vec<Card>> {
    let mut cards = Vec::with_capacity(chosen.len());
    for &i in chosen {
        let images = sets[0].task.images(i)?;
        let Some(shown) = images.first() else { continue };
        let mut answers = Vec::new();
        for (number, set) in sets.iter().enumerate() {
            // The same puzzle in other words, or another one.
            if number > 0 && set.task.images(i)?.first() != Some(shown) {
                continue;
            }
            let record = set.task.example(i)?;
            for one in &set.answers {
                let Some(outcome) = one.outcome(i) else { continue };
                // The base answers the first wording.
                if number > 0 && one.colour.is_none() {
                    continue;
                }
                let (name, run) = (one.name.clone(), one.run.clone());
                answers.push((one.place, Answer { name, run, colour: one.colour, record: record.clone(), outcome }));
            }
        }
        answers.sort_by_key(|(place, _)| *place);
        let record = sets[0].task.example(i)?;
        cards.push(card(&record, shown, answers.into_iter().map(|(_, answer)| answer).collect())?);
    }
    Ok(cards)
}
