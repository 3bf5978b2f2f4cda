//! Examples of a task as token sequences.

use super::response::{Style, asked_style, respond};
use super::scorers;
use super::task::Task;
use crate::data::Record;
use crate::model::{Prompt, PromptEncoder, PromptSize, Sequence};
use crate::{Error, Result};
use std::sync::Arc;

/// An error about example `i` with its place and its id.
pub fn named(error: Error, task: &dyn Task, i: usize) -> Error {
    let error = match task.example(i) {
        Ok(record) => error.context(format!("example {}", record.id)),
        Err(_) => error,
    };
    match task.place(i) {
        Some(place) => error.context(place),
        None => error,
    }
}

/// Bytes of the text of example `i`: its prompt, and its reference response where `with_response`.
///
/// # Errors
/// As [`Task::example`].
pub fn text_bytes(task: &dyn Task, i: usize, with_response: bool) -> Result<usize> {
    let record = task.example(i)?;
    let prompt: usize = record.prompt().iter().map(|message| message.content.len()).sum();
    Ok(prompt + record.response().filter(|_| with_response).map_or(0, str::len))
}

/// The prompt of example `i`.
///
/// # Errors
/// Input errors that name the example: an image that cannot be read, a prompt that does not fit the model.
pub fn encode_example(task: &dyn Task, encoder: &dyn PromptEncoder, i: usize) -> Result<Arc<Prompt>> {
    let record = task.example(i)?;
    let images = task.images(i).and_then(|images| encoder.encode_prompt(record.prompt(), &images));
    images.map_err(|e| named(e, task, i))
}

/// The size of the prompt of example `i`, from the sizes of its images; no pixel is read.
///
/// # Errors
/// As [`encode_example`].
pub fn example_size(task: &dyn Task, encoder: &dyn PromptEncoder, i: usize) -> Result<PromptSize> {
    let record = task.example(i)?;
    let size = task.image_sizes(i).and_then(|sizes| encoder.prompt_size(record.prompt(), &sizes));
    size.map_err(|e| named(e, task, i))
}

/// The reference response of example `i`, with its closing token.
///
/// # Errors
/// An input error if the record has no assistant turn.
pub fn reference_response(task: &dyn Task, encoder: &dyn PromptEncoder, i: usize) -> Result<Vec<u32>> {
    let record = task.example(i)?;
    let Some(text) = record.response() else {
        return Err(named(Error::input("no assistant turn, and so no response to learn from"), task, i));
    };
    encoder.encode_response(text).map_err(|e| named(e, task, i))
}

/// The gold response to a record: its own assistant turn, else its gold answer in the form that it asks for. `None` where that is not known: a
/// record that asks to think first and has no thought, a box in unknown coordinates, no answer.
pub fn gold_response(record: &Record) -> Option<String> {
    if let Some(response) = record.response() {
        return Some(response.to_string());
    }
    let declared = record.meta.get("style").map(|style| serde_json::from_value::<Style>(style.clone()).ok());
    let prompt = || record.prompt().iter().rev().find_map(|message| asked_style(&message.content));
    let style = declared.unwrap_or_else(prompt);
    if record.answer.is_empty() || record.task == scorers::BOX || style == Some(Style::Think) {
        return None;
    }
    Some(style.map_or(record.answer.clone(), |style| respond(style, "", &record.answer)))
}

/// The prompt and the reference response of example `i`.
///
/// # Errors
/// As [`encode_example`] and [`reference_response`].
pub fn reference_sequence(task: &dyn Task, encoder: &dyn PromptEncoder, i: usize) -> Result<Sequence> {
    let response = reference_response(task, encoder, i)?;
    Ok(Sequence { prompt: encode_example(task, encoder, i)?, response })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Message;

    fn record(task: &str, prompt: &str, response: Option<&str>, answer: &str) -> Record {
        let message = |role: &str, content: &str| Message { role: role.into(), content: content.into() };
        let response = response.map(|response| message("assistant", response));
        Record {
            file_name: String::new(),
            id: "a".into(),
            task: task.into(),
            messages: [message("user", prompt)].into_iter().chain(response).collect(),
            images: Vec::new(),
            answer: answer.into(),
            source: String::new(),
            seed: 0,
            meta: Default::default(),
        }
    }

    #[test]
    fn the_gold_response_is_the_records_own_else_its_answer_in_the_form_asked_for() {
        let think = "First think in <think></think>, then answer <answer>x</answer>.";
        let tags = "Answer only <answer>x</answer>.";
        for (task, prompt, response, answer, expected) in [
            ("exact", think, Some("<think>So.</think><answer>no</answer>"), "no", Some("<think>So.</think><answer>no</answer>")),
            ("exact", tags, None, "no", Some("<answer>no</answer>")),
            ("choice", "A or B?", None, "B", Some("B")),
            ("exact", think, None, "no", None),
            ("iou", tags, None, "1 2 3 4", None),
            ("exact", tags, None, "", None),
        ] {
            assert_eq!(gold_response(&record(task, prompt, response, answer)).as_deref(), expected, "{task} {prompt}");
        }
    }
}
