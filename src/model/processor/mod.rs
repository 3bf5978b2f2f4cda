//! Messages and images -> [`Prompt`](super::Prompt): chat template, tokenizer, image preprocessing.

use crate::Result;
use crate::data::Message;
use crate::model::Prompt;
use image::RgbImage;
use std::path::Path;
use std::sync::Arc;

/// Everything of a checkpoint directory that stands between text with images and token ids with patches.
pub struct Processor {}

impl Processor {
    /// Read tokenizer, chat template, preprocessor and generation settings of a checkpoint directory.
    pub fn from_dir(_dir: &Path) -> Result<Self> {
        todo!()
    }
    /// Render and tokenise the prompt turns (with the generation prompt), preprocess the images, expand the placeholders.
    pub fn encode_prompt(&self, _messages: &[Message], _images: &[RgbImage]) -> Result<Arc<Prompt>> {
        todo!()
    }
    /// Tokenise a response and append `<|im_end|>`.
    pub fn encode_response(&self, _text: &str) -> Result<Vec<u32>> {
        todo!()
    }
    /// Text of generated ids, without special tokens.
    pub fn decode(&self, _ids: &[u32]) -> Result<String> {
        todo!()
    }
    /// Ids that end a response.
    pub fn eos_ids(&self) -> &[u32] {
        todo!()
    }
    /// Ids that must never be sampled (vision, image and video tokens, and ids beyond the tokenizer).
    pub fn banned_ids(&self) -> &[u32] {
        todo!()
    }
}
