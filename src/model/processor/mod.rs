//! Messages and images -> [`Prompt`]: chat template, tokenizer, image preprocessing.

pub mod chat_template;
pub mod image_processor;
pub mod pillow_bicubic;
mod template_limits;
pub(super) mod tokenizer_file;
pub mod tokens;

pub use chat_template::ChatTemplate;
pub use image_processor::{ImageProcessor, MAX_PIXELS, smart_resize};
pub use tokens::Tokens;

use crate::data::{IMAGE_PLACEHOLDER, Message};
use crate::model::checkpoint_config::read_architecture;
use crate::model::language_model::{PromptEncoder, PromptSize};
use crate::model::lora;
use crate::model::sequence::{ImageInput, Prompt};
use crate::model::shapes::VisionShape;
use crate::{Error, Result};
use image::RgbImage;
use serde_json::{Map, Value, json};
use std::path::Path;
use std::sync::Arc;

/// Everything of a checkpoint directory that stands between text with images and token ids with patches.
#[derive(Clone)]
pub struct Processor {
    template: Arc<ChatTemplate>,
    tokens: Arc<Tokens>,
    /// Of a model that takes images.
    images: Option<ImageProcessor>,
    /// The model family's name for people.
    title: &'static str,
}

impl Processor {
    /// Read tokenizer, chat template, preprocessor and generation settings of a checkpoint directory.
    ///
    /// # Errors
    /// An input error that names the file, for one that is missing or contradicts `config.json`.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let dir = &lora::model_files(dir)?;
        let architecture = read_architecture(dir)?;
        let images = match architecture.vision() {
            Some(vision) => Some(image_processor(dir, &vision)?),
            None => None,
        };
        let tokens = Arc::new(Tokens::from_dir(dir, architecture.as_ref())?);
        let template = Arc::new(ChatTemplate::from_dir(dir)?);
        let processor = Processor { template, tokens, images, title: architecture.title() };
        if let Some(token) = processor.tokens.other_end_of_turn() {
            processor.check_turns(token)?;
        }
        Ok(processor)
    }

    /// See that the chat template writes a conversation as training and sampling take it: the prompt, the response, `end_of_turn`. Templates
    /// with `<|im_end|>` do, but for thoughts that they add or drop.
    fn check_turns(&self, end_of_turn: &str) -> Result<()> {
        let (question, answer) = (json!({"role": "user", "content": "One?"}), "Two.");
        let options = Map::from_iter([("add_generation_prompt".to_string(), Value::Bool(true))]);
        let prompt = self.template.render(&json!([question]), &options)?;
        let turns = json!([question, {"role": "assistant", "content": answer}]);
        let whole = self.template.render(&turns, &Map::new())?;
        let mut ids = self.tokens.encode(&prompt)?;
        ids.extend(self.encode_response(answer)?);
        if whole.starts_with(&format!("{prompt}{answer}{end_of_turn}")) && self.tokens.encode(&whole)?.starts_with(&ids)
        {
            return Ok(());
        }
        Err(Error::input(format!(
            "{}: the chat template does not write an answer as prompt, answer, `{end_of_turn}` (the `eos_token` of tokenizer_config.json); \
             such templates are not supported",
            self.template.origin()
        )))
    }

    /// `process` each image with the image preprocessor. Errors name the image by its number.
    fn each_image<I, T>(&self, images: &[I], process: impl Fn(&ImageProcessor, &I) -> Result<T>) -> Result<Vec<T>> {
        let Some(processor) = &self.images else {
            return match images.len() {
                0 => Ok(Vec::new()),
                count => Err(Error::input(format!("the prompt has {count} image(s); {} reads text alone", self.title))),
            };
        };
        let one = |(i, image)| process(processor, image).map_err(|e| e.context(format!("image {}", i + 1)));
        images.iter().enumerate().map(one).collect()
    }

    /// The same with other bounds of a resized image, in pixels; tokenizer and template are shared.
    pub fn with_pixels(&self, min_pixels: usize, max_pixels: usize) -> Self {
        let mut other = self.clone();
        if let Some(images) = &mut other.images {
            (images.min_pixels, images.max_pixels) = (min_pixels, max_pixels);
        }
        other
    }

    /// Render and tokenise the prompt turns (with the generation prompt), preprocess the images, expand the placeholders.
    ///
    /// # Errors
    /// An input error if placeholders and images differ in number, a role is none of `system`, `user`, `assistant`, a
    /// text contains a special token, or an image cannot be resized.
    pub fn encode_prompt(&self, messages: &[Message], images: &[RgbImage]) -> Result<Arc<Prompt>> {
        let text = self.render(messages, images.len())?;
        let inputs = self.each_image(images, |processor, image| processor.process(image).map(Arc::new))?;
        self.expanded(&text, inputs)
    }

    /// The prompt of a rendered text, each image as many tokens as it has merged patches.
    fn expanded(&self, text: &str, images: Vec<Arc<ImageInput>>) -> Result<Arc<Prompt>> {
        let unexpanded = self.unexpanded(text, images.len())?;
        let pad = self.tokens.image_pad();
        let tokens_of = |image: &Arc<ImageInput>| self.images.as_ref().map_or(0, |images| images.tokens_of(image.grid));
        let counts: Vec<usize> = images.iter().map(tokens_of).collect();
        let mut counts_left = counts.iter();
        let mut ids = Vec::with_capacity(unexpanded.len() + counts.iter().sum::<usize>());
        for id in unexpanded {
            let times = if Some(id) == pad { counts_left.next().copied().unwrap_or(1) } else { 1 };
            ids.extend(std::iter::repeat_n(id, times));
        }
        Ok(Arc::new(Prompt { ids, images }))
    }

    /// The number of tokens that [`Processor::encode_prompt`] gives for images of these widths and heights.
    ///
    /// # Errors
    /// As [`Processor::encode_prompt`].
    pub fn prompt_length(&self, messages: &[Message], sizes: &[(u32, u32)]) -> Result<usize> {
        let text = self.render(messages, sizes.len())?;
        let image_tokens = self.each_image(sizes, |processor, &(width, height)| processor.tokens(width, height))?;
        let text_tokens = self.unexpanded(&text, sizes.len())?.len() - sizes.len();
        Ok(text_tokens + image_tokens.iter().sum::<usize>())
    }

    /// Token ids of a rendered prompt, each image still one token.
    fn unexpanded(&self, text: &str, images: usize) -> Result<Vec<u32>> {
        let ids = self.tokens.encode(text)?;
        let template = self.template.origin();
        if ids.is_empty() {
            return Err(Error::input(format!("{template}: the chat template writes nothing for this prompt")));
        }
        let pads = ids.iter().filter(|&&id| Some(id) == self.tokens.image_pad()).count();
        if pads == images {
            return Ok(ids);
        }
        Err(Error::input(format!(
            "{template}: the chat template wrote {pads} image token(s) for {images} image(s); it is not a template of {}",
            self.title
        )))
    }

    /// The text of a prompt with `images` images: the chat template with the generation prompt, one image token each.
    ///
    /// # Errors
    /// As [`Processor::encode_prompt`], but for the images themselves.
    pub fn render(&self, messages: &[Message], images: usize) -> Result<String> {
        let placeholders: usize = messages.iter().map(|m| m.content.matches(IMAGE_PLACEHOLDER).count()).sum();
        if placeholders != images {
            return Err(Error::input(format!(
                "the prompt has {placeholders} `{IMAGE_PLACEHOLDER}` placeholder(s) but {images} image(s) were given"
            )));
        }
        let mut turns = Vec::with_capacity(messages.len());
        for (i, message) in messages.iter().enumerate() {
            if !matches!(message.role.as_str(), "system" | "user" | "assistant") {
                return Err(Error::input(format!(
                    "message {}: role `{}` is none of system, user, assistant",
                    i + 1,
                    message.role
                )));
            }
            self.refuse_special_turn(i, message)?;
            turns.push(json!({ "role": message.role, "content": parts(&message.content) }));
        }
        let options = Map::from_iter([("add_generation_prompt".to_string(), Value::Bool(true))]);
        self.template.render(&Value::Array(turns), &options)
    }

    /// See that a prompt and a response hold no special token, which is what [`Processor::encode_prompt`] and
    /// [`Processor::encode_response`] refuse; much quicker than these.
    ///
    /// # Errors
    /// An input error that names the message, or the response, and the token.
    pub fn refuse_special(&self, prompt: &[Message], response: Option<&str>) -> Result<()> {
        prompt.iter().enumerate().try_for_each(|(i, message)| self.refuse_special_turn(i, message))?;
        response.map_or(Ok(()), |text| self.refuse_special_response(text))
    }

    fn refuse_special_turn(&self, i: usize, message: &Message) -> Result<()> {
        let refused = self.tokens.refuse_special(&message.content);
        refused.map_err(|e| e.context(format!("message {} ({})", i + 1, message.role)))
    }

    fn refuse_special_response(&self, text: &str) -> Result<()> {
        self.tokens.refuse_special(text).map_err(|e| e.context("response"))
    }

    /// Tokenise a response and append the token that ends a turn, [`Tokens::end_of_turn`].
    ///
    /// # Errors
    /// An input error if the text contains a special token.
    pub fn encode_response(&self, text: &str) -> Result<Vec<u32>> {
        self.refuse_special_response(text)?;
        let mut ids = self.tokens.encode(text)?;
        ids.push(self.tokens.end_of_turn());
        Ok(ids)
    }

    /// Text of generated ids, without special tokens.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.tokens.decode(ids)
    }

    /// Ids that end a response.
    pub fn eos_ids(&self) -> &[u32] {
        self.tokens.eos_ids()
    }

    /// Ids that must never be sampled (vision, image and video tokens, and ids beyond the tokenizer).
    pub fn banned_ids(&self) -> &[u32] {
        self.tokens.banned_ids()
    }

    /// The image preprocessor, of a model that takes images.
    pub fn images(&self) -> Option<&ImageProcessor> {
        self.images.as_ref()
    }

    /// The tokenizer and its special tokens.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }
}

/// The image preprocessor of `dir`, which must cut patches as the vision tower takes them.
fn image_processor(dir: &Path, vision: &VisionShape) -> Result<ImageProcessor> {
    let images = ImageProcessor::from_dir(dir)?;
    for (name, ours, theirs) in [
        ("patch_size", images.patch_size, vision.patch_size),
        ("temporal_patch_size", images.temporal_patch_size, vision.temporal_patch_size),
        ("merge_size", images.merge_size, vision.merge_size),
    ] {
        if ours != theirs {
            return Err(Error::input(format!(
                "{}: the image settings have {name} {ours} but the vision_config of config.json has {theirs}",
                dir.display()
            )));
        }
    }
    Ok(images)
}

impl PromptEncoder for Processor {
    fn encode_prompt(&self, messages: &[Message], images: &[RgbImage]) -> Result<Arc<Prompt>> {
        Processor::encode_prompt(self, messages, images)
    }

    fn prompt_size(&self, messages: &[Message], sizes: &[(u32, u32)]) -> Result<PromptSize> {
        let tokens = self.prompt_length(messages, sizes)?;
        let patches = self.each_image(sizes, |images, &(width, height)| {
            Ok(images.tokens(width, height)? * images.merge_size * images.merge_size)
        })?;
        let largest_image = patches.iter().copied().max().unwrap_or(0);
        Ok(PromptSize { tokens, patches: patches.iter().sum(), largest_image })
    }

    fn encode_response(&self, text: &str) -> Result<Vec<u32>> {
        Processor::encode_response(self, text)
    }

    fn decode(&self, ids: &[u32]) -> Result<String> {
        Processor::decode(self, ids)
    }

    fn most_text_bytes(&self, tokens: usize) -> usize {
        self.tokens.most_bytes(tokens)
    }

    fn eos_ids(&self) -> &[u32] {
        Processor::eos_ids(self)
    }

    fn banned_ids(&self) -> &[u32] {
        Processor::banned_ids(self)
    }
}

/// A message's content as the template takes it: plain text, or text and image parts in order.
fn parts(content: &str) -> Value {
    if !content.contains(IMAGE_PLACEHOLDER) {
        return Value::from(content);
    }
    let mut parts = Vec::new();
    for (i, text) in content.split(IMAGE_PLACEHOLDER).enumerate() {
        if i > 0 {
            parts.push(json!({ "type": "image" }));
        }
        if !text.is_empty() {
            parts.push(json!({ "type": "text", "text": text }));
        }
    }
    Value::Array(parts)
}
