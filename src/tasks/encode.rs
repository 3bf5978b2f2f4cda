//! Examples of a task as token sequences.

use super::task::Task;
use crate::model::{Prompt, PromptEncoder, PromptSize, Sequence};
use crate::{Error, Result};
use std::sync::Arc;

/// The prompt of example `i`.
///
/// # Errors
/// Input errors that name the example: an image that cannot be read, a prompt that does not fit the model.
pub fn encode_example(task: &dyn Task, encoder: &dyn PromptEncoder, i: usize) -> Result<Arc<Prompt>> {
    let record = task.example(i)?;
    let images = task.images(i).and_then(|images| encoder.encode_prompt(record.prompt(), &images));
    images.map_err(|e| e.context(format!("example {}", record.id)))
}

/// The size of the prompt of example `i`, from the sizes of its images; no pixel is read.
///
/// # Errors
/// As [`encode_example`].
pub fn example_size(task: &dyn Task, encoder: &dyn PromptEncoder, i: usize) -> Result<PromptSize> {
    let record = task.example(i)?;
    let size = task.image_sizes(i).and_then(|sizes| encoder.prompt_size(record.prompt(), &sizes));
    size.map_err(|e| e.context(format!("example {}", record.id)))
}

/// The reference response of example `i`, with its closing token.
///
/// # Errors
/// An input error if the record has no assistant turn.
pub fn reference_response(task: &dyn Task, encoder: &dyn PromptEncoder, i: usize) -> Result<Vec<u32>> {
    let record = task.example(i)?;
    let Some(text) = record.response() else {
        return Err(Error::input(format!(
            "example {}: no assistant turn, and so no response to learn from",
            record.id
        )));
    };
    encoder.encode_response(text).map_err(|e| e.context(format!("example {}", record.id)))
}

/// The prompt and the reference response of example `i`.
///
/// # Errors
/// As [`encode_example`] and [`reference_response`].
pub fn reference_sequence(task: &dyn Task, encoder: &dyn PromptEncoder, i: usize) -> Result<Sequence> {
    let response = reference_response(task, encoder, i)?;
    Ok(Sequence { prompt: encode_example(task, encoder, i)?, response })
}
