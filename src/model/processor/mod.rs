//! Messages and images -> [`Prompt`]: chat template, tokenizer, image preprocessing.

pub mod pixels;
pub mod resample;
pub mod template;
pub mod tokens;

pub use pixels::{ImageProcessor, smart_resize};
pub use template::ChatTemplate;
pub use tokens::Tokens;

use crate::data::{IMAGE_PLACEHOLDER, Message};
use crate::model::qwen2_5_vl::Config;
use crate::model::{ImageInput, Prompt, lora};
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
    images: ImageProcessor,
}

impl Processor {
    /// Read tokenizer, chat template, preprocessor and generation settings of a checkpoint directory.
    ///
    /// # Errors
    /// An input error that names the file, for one that is missing or contradicts `config.json`.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let dir = &lora::model_files(dir)?;
        let config = Config::from_dir(dir)?;
        let images = ImageProcessor::from_dir(dir)?;
        let vision = &config.vision;
        for (name, ours, theirs) in [
            ("patch_size", images.patch_size, vision.patch_size),
            ("temporal_patch_size", images.temporal_patch_size, vision.temporal_patch_size),
            ("merge_size", images.merge_size, vision.spatial_merge_size),
        ] {
            if ours != theirs {
                return Err(Error::input(format!(
                    "{}: the image settings have {name} {ours} but the vision_config of config.json has {theirs}",
                    dir.display()
                )));
            }
        }
        let tokens = Arc::new(Tokens::from_dir(dir, &config)?);
        Ok(Processor { template: Arc::new(ChatTemplate::from_dir(dir)?), tokens, images })
    }

    /// The same with other bounds of a resized image, in pixels; tokenizer and template are shared.
    pub fn with_pixels(&self, min_pixels: usize, max_pixels: usize) -> Self {
        let mut other = self.clone();
        (other.images.min_pixels, other.images.max_pixels) = (min_pixels, max_pixels);
        other
    }

    /// Render and tokenise the prompt turns (with the generation prompt), preprocess the images, expand the placeholders.
    ///
    /// # Errors
    /// An input error if placeholders and images differ in number, a role is none of `system`, `user`, `assistant`, a
    /// text contains a special token, or an image cannot be resized.
    pub fn encode_prompt(&self, messages: &[Message], images: &[RgbImage]) -> Result<Arc<Prompt>> {
        let text = self.render(messages, images.len())?;
        let mut inputs = Vec::with_capacity(images.len());
        for (i, image) in images.iter().enumerate() {
            inputs.push(Arc::new(self.images.process(image).map_err(|e| e.context(format!("image {}", i + 1)))?));
        }
        self.expanded(&text, inputs)
    }

    /// As [`Processor::encode_prompt`] for images of these widths and heights, without their pixels: for plans.
    ///
    /// # Errors
    /// As [`Processor::encode_prompt`].
    pub fn meta_prompt(&self, messages: &[Message], sizes: &[(u32, u32)]) -> Result<Arc<Prompt>> {
        let text = self.render(messages, sizes.len())?;
        let outline = |(i, &(width, height)): (usize, &(u32, u32))| {
            let resized = self.images.resized(width, height).map_err(|e| e.context(format!("image {}", i + 1)))?;
            Ok(Arc::new(ImageInput { patches: Vec::new(), grid: self.images.grid(resized) }))
        };
        self.expanded(&text, sizes.iter().enumerate().map(outline).collect::<Result<_>>()?)
    }

    /// The prompt of a rendered text, each image as many tokens as it has merged patches.
    fn expanded(&self, text: &str, images: Vec<Arc<ImageInput>>) -> Result<Arc<Prompt>> {
        let unexpanded = self.unexpanded(text, images.len())?;
        let pad = self.tokens.image_pad();
        let counts: Vec<usize> = images.iter().map(|image| self.images.tokens_of(image.grid)).collect();
        let mut counts_left = counts.iter();
        let mut ids = Vec::with_capacity(unexpanded.len() + counts.iter().sum::<usize>());
        for id in unexpanded {
            let times = if id == pad { counts_left.next().copied().unwrap_or(1) } else { 1 };
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
        let mut length = self.unexpanded(&text, sizes.len())?.len() - sizes.len();
        for (i, (width, height)) in sizes.iter().enumerate() {
            length += self.images.tokens(*width, *height).map_err(|e| e.context(format!("image {}", i + 1)))?;
        }
        Ok(length)
    }

    /// Token ids of a rendered prompt, each image still one token.
    fn unexpanded(&self, text: &str, images: usize) -> Result<Vec<u32>> {
        let ids = self.tokens.encode(text)?;
        let pads = ids.iter().filter(|&&id| id == self.tokens.image_pad()).count();
        if pads == images {
            return Ok(ids);
        }
        Err(Error::input(format!(
            "the chat template wrote {pads} image token(s) for {images} image(s); it is not a Qwen2.5-VL template"
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

    /// Tokenise a response and append `<|im_end|>`.
    ///
    /// # Errors
    /// An input error if the text contains a special token.
    pub fn encode_response(&self, text: &str) -> Result<Vec<u32>> {
        self.refuse_special_response(text)?;
        let mut ids = self.tokens.encode(text)?;
        ids.push(self.tokens.im_end());
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

    /// The image preprocessor, for planning lengths and sizes.
    pub fn images(&self) -> &ImageProcessor {
        &self.images
    }

    /// The tokenizer and its special tokens.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
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
