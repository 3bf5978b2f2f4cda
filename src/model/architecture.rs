//! The seam for model families: what [`Architecture`] answers is all that differs between them.
//!
//! A family is one folder that reads its `config.json` into a value with this trait, and one line in [`super::registry`]. Weights on
//! disk, LoRA, batching, training, generation, memory plans and conversion ask the trait and know no family.

use super::decoder::Decoder;
use super::parts::Part;
use super::positions::Positions;
use super::sequence::ImageInput;
use super::shapes::{DecoderShape, ImageTokens, VisionShape};
use super::weights::named::NamedWeights;
use crate::Result;
use crate::nn::{Tape, Value};
use candle_core::Device;
use serde_json::Value as Json;
use std::fmt::Debug;
use std::sync::Arc;

/// One checkpoint's configuration, and how its family computes.
pub trait Architecture: Debug + Send + Sync {
    /// `model_type` of `config.json`.
    fn model_type(&self) -> &'static str;
    /// The family's name for people.
    fn title(&self) -> &'static str;
    /// The `config.json` of the published checkpoints, which every version of transformers reads. Two configurations are the same if and
    /// only if this is the same.
    fn to_json(&self) -> Json;

    /// Sizes of the decoder.
    fn decoder(&self) -> DecoderShape;
    /// Sizes of the vision tower, if there is one.
    fn vision(&self) -> Option<VisionShape> {
        None
    }

    /// Every weight with its shape, in the order of the computation, under its published name. Matrices are `[out, in]`. The output head
    /// only where it is not tied.
    fn parameter_shapes(&self) -> Vec<(String, Vec<usize>)>;
    /// The published form of a stored weight's name; a name of no known form comes back as it is.
    fn published_name(&self, stored: &str) -> String;
    /// The name that today's transformers, and with it PEFT, has for the module or weight of a published name.
    fn transformers_name(&self, published: &str) -> String {
        published.to_string()
    }
    /// A regular expression for the names, in today's transformers, of all linear maps of the decoder's layers.
    fn decoder_module_pattern(&self) -> &'static str;
    /// The part of the model that a weight belongs to, or an adapter's matrix by its module; by published name.
    fn part(&self, parameter: &str) -> Part;

    /// Ids that end a sequence, as `config.json` has them (`generation_config.json` says more).
    fn eos_token_ids(&self) -> &[u32];
    /// The tokens that images go through, if the model takes images.
    fn image_tokens(&self) -> Option<ImageTokens> {
        None
    }
    /// The position ids of a prompt with images of these patch grids `[t, h, w]`.
    ///
    /// # Errors
    /// An input error if the image tokens of `ids` are not exactly those of `grids`.
    fn positions(&self, ids: &[u32], grids: &[[usize; 3]]) -> Result<Positions>;

    /// The layers over these weights.
    fn build(&self, weights: &mut NamedWeights) -> Result<Network>;
}

/// What a family computes with.
pub struct Network {
    /// Turns images into rows of the decoder's input.
    pub vision: Option<Box<dyn VisionEncoder>>,
    /// Turns rows into predictions.
    pub decoder: Decoder,
}

/// A vision tower with what joins it to the decoder.
pub trait VisionEncoder: Send + Sync {
    /// Features of `images`. With `recompute`, only the input of each block is kept for the backward pass.
    fn forward(&self, tape: &Tape, images: &[Arc<ImageInput>], device: &Device, recompute: bool) -> Result<Features>;
}

/// Features of a batch of images.
pub struct Features {
    /// `[image tokens of all images, hidden]`, in an order of the encoder's own.
    pub rows: Value,
    /// Features that are added to the image tokens' rows after the decoder's first layers, one for each layer, shaped and ordered like `rows`
    /// (DeepStack). Fewer than layers.
    pub deep: Vec<Value>,
    /// For each image, the row of each of its tokens in reading order.
    pub places: Vec<Vec<u32>>,
}
