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

/// The prompt of example `i`, and in it, after the question, its reference response as a demonstration. The words are those of the
/// code of arXiv 2601.19897, without "including the thinking process": an answer in this task's form may have none.
///
/// # Errors
/// As [`encode_example`] and [`reference_response`].
pub fn encode_demonstrated(task: &dyn Task, encoder: &dyn PromptEncoder, i: usize) -> Result<Arc<Prompt>> {
    let record = task.example(i)?;
    let demonstration = record.response().ok_or_else(|| named(no_response(), task, i))?;
    let mut messages = record.prompt().to_vec();
    if let Some(question) = messages.last_mut() {
        question.content.push_str(&format!(
            "\n\nThis is an example for a response to the question:\n{demonstration}\n\nNow answer with a response of your own."
        ));
    }
    let images = task.images(i).and_then(|images| encoder.encode_prompt(&messages, &images));
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
    let text = record.response().ok_or_else(|| named(no_response(), task, i))?;
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

fn no_response() -> Error {
    Error::input("no assistant turn, and so no response to learn from")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Message;
    use crate::tasks::Score;
    use image::RgbImage;

    struct One(Record);

    impl Task for One {
        fn name(&self) -> &str {
            "one"
        }
        fn len(&self) -> usize {
            1
        }
        fn example(&self, _i: usize) -> Result<std::borrow::Cow<'_, Record>> {
            Ok(std::borrow::Cow::Borrowed(&self.0))
        }
        fn images(&self, _i: usize) -> Result<Vec<RgbImage>> {
            Ok(vec![RgbImage::new(1, 1)])
        }
        fn score(&self, _i: usize, _response: &str) -> Score {
            unreachable!("nothing is scored")
        }
    }

    /// A prompt is its text, byte by byte, and as many zeros as it has images.
    struct Bytes;

    impl PromptEncoder for Bytes {
        fn encode_prompt(&self, messages: &[Message], images: &[RgbImage]) -> Result<Arc<Prompt>> {
            let text = messages.iter().flat_map(|m| m.content.bytes().map(u32::from));
            Ok(Arc::new(Prompt { ids: text.chain(images.iter().map(|_| 0)).collect(), images: Vec::new() }))
        }
        fn prompt_size(&self, _messages: &[Message], _sizes: &[(u32, u32)]) -> Result<PromptSize> {
            Ok(PromptSize::default())
        }
        fn encode_response(&self, _text: &str) -> Result<Vec<u32>> {
            Ok(Vec::new())
        }
        fn decode(&self, _ids: &[u32]) -> Result<String> {
            Ok(String::new())
        }
        fn eos_ids(&self) -> &[u32] {
            &[]
        }
        fn banned_ids(&self) -> &[u32] {
            &[]
        }
    }

    #[test]
    fn a_demonstration_follows_the_question_and_its_images() {
        let record = |turns: serde_json::Value| -> Record {
            serde_json::from_value(serde_json::json!({
                "id": "a", "task": "one", "messages": turns, "answer": "7", "source": "", "seed": 0
            }))
            .unwrap()
        };
        let question = serde_json::json!({"role": "user", "content": "<image> How many?"});
        let answered = One(record(serde_json::json!([question, {"role": "assistant", "content": "Seven."}])));
        let prompt = encode_demonstrated(&answered, &Bytes, 0).unwrap();
        let text: String = prompt.ids.iter().filter_map(|&id| char::from_u32(id)).collect();
        let words = "<image> How many?\n\nThis is an example for a response to the question:\nSeven.\n\n";
        assert_eq!(text, format!("{words}Now answer with a response of your own.\0"));
        let error = encode_demonstrated(&One(record(serde_json::json!([question]))), &Bytes, 0).unwrap_err();
        assert!(error.to_string().contains("example a: no assistant turn"), "{error}");
    }

    fn asked(task: &str, prompt: &str, response: Option<&str>, answer: &str) -> Record {
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
            (
                "exact",
                think,
                Some("<think>So.</think><answer>no</answer>"),
                "no",
                Some("<think>So.</think><answer>no</answer>"),
            ),
            ("exact", tags, None, "no", Some("<answer>no</answer>")),
            ("choice", "A or B?", None, "B", Some("B")),
            ("exact", think, None, "no", None),
            ("iou", tags, None, "1 2 3 4", None),
            ("exact", tags, None, "", None),
        ] {
            assert_eq!(gold_response(&asked(task, prompt, response, answer)).as_deref(), expected, "{task} {prompt}");
        }
    }
}
