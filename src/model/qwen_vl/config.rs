//! `config.json` of a Qwen-VL checkpoint: both Hugging Face layouts in, one checked [`Config`] out; and how such a model computes.
//!
//! The published checkpoints keep the decoder's keys at the top level and call the rotary settings `rope_scaling`;
//! transformers 5 writes them under `text_config` and calls them `rope_parameters`. A key that is absent has the value
//! that transformers' configuration class gives it, because transformers does not write keys that have their default.

use super::mrope::get_rope_index;
use super::weight_names;
use crate::model::architecture::{Architecture, Network, VisionEncoder};
use crate::model::causal_lm::text_config::{DecoderRules, RotaryFields, one_or_list};
use crate::model::causal_lm::{self, TextConfig};
use crate::model::json_fields::Fields;
use crate::model::parts::Part;
use crate::model::positions::Positions;
use crate::model::shapes::{DecoderShape, ImageTokens, VisionShape};
use crate::model::weights::named::NamedWeights;
use crate::{Error, Result};
use serde_json::{Value, json};
use std::fmt::Debug;

/// What sets a family apart: its vision tower with the merger, and what holds for its decoder.
pub trait VisionFamily: Debug + Clone + PartialEq + Send + Sync {
    /// `model_type` of `config.json`.
    const MODEL_TYPE: &'static str;
    /// The family's name for people.
    const TITLE: &'static str;
    /// Its class in transformers.
    const CLASS: &'static str;
    /// What holds for its decoder.
    const RULES: DecoderRules;
    /// The published `config.json` and weight names are those of transformers 5: the decoder's keys in `text_config`, weights under
    /// `model.language_model.` and `model.visual.`.
    const NESTED: bool = false;
    /// The axes take turns in the rotary frequencies, instead of a section for each.
    const INTERLEAVED: bool = false;
    /// Rotary frequencies that follow time, height and width, where `config.json` does not say.
    const MROPE_SECTION: [usize; 3] = [16, 24, 24];

    /// The tower in `vision_config`; errors name the field.
    fn from_fields(f: &Fields) -> Result<Self>;
    /// `vision_config` as the published checkpoints have it.
    fn to_json(&self) -> Value;
    /// Its sizes.
    fn shape(&self) -> VisionShape;
    /// The key for the width of a merged token, and the width, which is the decoder's.
    fn out_size(&self) -> (&'static str, usize);
    /// Every weight with its shape, in the order of the computation, under its published name (`visual.*`).
    fn parameter_shapes(&self) -> Vec<(String, Vec<usize>)>;
    /// The tower over these weights.
    fn build(&self, weights: &mut NamedWeights) -> Result<Box<dyn VisionEncoder>>;
}

/// The architecture of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Config<V> {
    /// The decoder.
    pub text: TextConfig,
    /// How many of the decoder's `head_dim / 2` rotary frequencies follow the temporal, height and width position.
    pub mrope_section: Vec<usize>,
    /// The vision tower and its merger.
    pub vision: V,
    /// Id of `<|image_pad|>`.
    pub image_token_id: u32,
    /// Id of `<|video_pad|>`.
    pub video_token_id: u32,
    /// Id of `<|vision_start|>`.
    pub vision_start_token_id: u32,
    /// Id of `<|vision_end|>`.
    pub vision_end_token_id: u32,
    /// Id of the beginning-of-sequence token (unused by the chat template).
    pub bos_token_id: Option<u32>,
    /// Ids that end a sequence, as `config.json` has them (`generation_config.json` says more).
    pub eos_token_ids: Vec<u32>,
    /// The output head is the embedding matrix.
    pub tie_word_embeddings: bool,
}

impl<V: VisionFamily> Config<V> {
    /// The configuration in a parsed `config.json`; errors name the field.
    pub fn from_json(value: &Value) -> Result<Self> {
        let root = Fields::root(value)?;
        let nested = root.section("text_config")?;
        let text_fields = nested.clone().unwrap_or_else(|| root.clone());
        let vision_fields = root.section("vision_config")?.unwrap_or_else(|| Fields::empty("vision_config"));
        // transformers: the root's value, or true if an older nested layout says so.
        let tied = root.boolean("tie_word_embeddings")?.unwrap_or(false)
            || nested.as_ref().map(|t| t.boolean("tie_word_embeddings")).transpose()?.flatten().unwrap_or(false);
        let eos = match root.ids("eos_token_id")? {
            Some(ids) => ids,
            None => text_fields.ids("eos_token_id")?.unwrap_or_else(|| vec![151645]),
        };
        let bos = match root.ids("bos_token_id")? {
            Some(ids) => Some(ids),
            None => text_fields.ids("bos_token_id")?,
        };
        let rotary = RotaryFields::read(&text_fields, &["default", "mrope"])?;
        let text = TextConfig::from_fields(&text_fields, &V::RULES, &rotary)?;
        let sections = rotary.section().map(|rope| rope.counts("mrope_section")).transpose()?.flatten();
        if let Some(rope) = rotary.section()
            && rope.boolean("mrope_interleaved")?.is_some_and(|on| on != V::INTERLEAVED)
        {
            return Err(rope.error("mrope_interleaved", format!("must be {} in this family", V::INTERLEAVED)));
        }
        let mrope_section = sections.unwrap_or_else(|| V::MROPE_SECTION.to_vec());
        let half = text.head_dim / 2;
        if mrope_section.len() != 3 || mrope_section.iter().fold(0, |sum: usize, n| sum.saturating_add(*n)) != half {
            return Err(text_fields.error(
                "mrope_section",
                format!("{mrope_section:?} must be three numbers that sum to half the head width, {half}"),
            ));
        }
        let config = Config {
            text,
            mrope_section,
            vision: V::from_fields(&vision_fields)?,
            image_token_id: root.id("image_token_id")?.unwrap_or(151655),
            video_token_id: root.id("video_token_id")?.unwrap_or(151656),
            vision_start_token_id: root.id("vision_start_token_id")?.unwrap_or(151652),
            vision_end_token_id: root.id("vision_end_token_id")?.unwrap_or(151653),
            bos_token_id: bos.and_then(|ids| ids.first().copied()),
            eos_token_ids: eos,
            tie_word_embeddings: tied,
        };
        config.check()?;
        Ok(config)
    }

    /// What contradicts itself between the parts.
    fn check(&self) -> Result<()> {
        let (key, width) = self.vision.out_size();
        if width != self.text.hidden_size {
            return Err(Error::input(format!(
                "vision_config.{key} is {width} but the decoder's hidden_size is {}: image tokens would not fit \
                 between text tokens",
                self.text.hidden_size
            )));
        }
        let deepstack = self.vision.shape().deepstack;
        if deepstack >= self.text.num_hidden_layers {
            return Err(Error::input(format!(
                "vision_config.deepstack_visual_indexes has {deepstack} blocks; they must be fewer than num_hidden_layers {}",
                self.text.num_hidden_layers
            )));
        }
        for (name, id) in [
            ("image_token_id", self.image_token_id),
            ("video_token_id", self.video_token_id),
            ("vision_start_token_id", self.vision_start_token_id),
            ("vision_end_token_id", self.vision_end_token_id),
        ] {
            if id as usize >= self.text.vocab_size {
                return Err(Error::input(format!("{name} is {id}, beyond vocab_size {}", self.text.vocab_size)));
            }
        }
        Ok(())
    }
}

impl<V: VisionFamily> Config<V> {
    /// The layout of transformers 5.
    fn to_nested_json(&self) -> Value {
        let t = &self.text;
        json!({
            "architectures": [V::CLASS],
            "image_token_id": self.image_token_id,
            "model_type": V::MODEL_TYPE,
            "text_config": {
                "attention_bias": false,
                "attention_dropout": 0.0,
                "bos_token_id": self.bos_token_id,
                "eos_token_id": one_or_list(&self.eos_token_ids),
                "head_dim": t.head_dim,
                "hidden_act": "silu",
                "hidden_size": t.hidden_size,
                "initializer_range": 0.02,
                "intermediate_size": t.intermediate_size,
                "max_position_embeddings": t.max_position_embeddings,
                "model_type": format!("{}_text", V::MODEL_TYPE),
                "num_attention_heads": t.num_attention_heads,
                "num_hidden_layers": t.num_hidden_layers,
                "num_key_value_heads": t.num_key_value_heads,
                "rms_norm_eps": t.rms_norm_eps,
                "rope_scaling": {
                    "mrope_interleaved": V::INTERLEAVED, "mrope_section": self.mrope_section, "rope_type": "default",
                },
                "rope_theta": t.rope_theta,
                "tie_word_embeddings": self.tie_word_embeddings,
                "use_cache": true,
                "vocab_size": t.vocab_size,
            },
            "tie_word_embeddings": self.tie_word_embeddings,
            "torch_dtype": "float32",
            "video_token_id": self.video_token_id,
            "vision_config": self.vision.to_json(),
            "vision_end_token_id": self.vision_end_token_id,
            "vision_start_token_id": self.vision_start_token_id,
        })
    }
}

impl<V: VisionFamily> Architecture for Config<V> {
    fn model_type(&self) -> &'static str {
        V::MODEL_TYPE
    }

    fn title(&self) -> &'static str {
        V::TITLE
    }

    // The flat layout of the published checkpoints, which every version of transformers and this program read.
    fn to_json(&self) -> Value {
        let t = &self.text;
        if V::NESTED {
            return self.to_nested_json();
        }
        json!({
            "architectures": [V::CLASS],
            "attention_dropout": 0.0,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": one_or_list(&self.eos_token_ids),
            "vision_start_token_id": self.vision_start_token_id,
            "vision_end_token_id": self.vision_end_token_id,
            "image_token_id": self.image_token_id,
            "video_token_id": self.video_token_id,
            "hidden_act": "silu",
            "hidden_size": t.hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": t.intermediate_size,
            "max_position_embeddings": t.max_position_embeddings,
            "model_type": V::MODEL_TYPE,
            "num_attention_heads": t.num_attention_heads,
            "num_hidden_layers": t.num_hidden_layers,
            "num_key_value_heads": t.num_key_value_heads,
            "rms_norm_eps": t.rms_norm_eps,
            "rope_theta": t.rope_theta,
            "rope_scaling": { "type": "mrope", "mrope_section": self.mrope_section },
            "tie_word_embeddings": self.tie_word_embeddings,
            "torch_dtype": "float32",
            "use_cache": true,
            "use_sliding_window": false,
            "vision_config": self.vision.to_json(),
            "vocab_size": t.vocab_size,
        })
    }

    fn decoder(&self) -> DecoderShape {
        DecoderShape { mrope_section: self.mrope_section.clone(), ..self.text.shape(self.tie_word_embeddings) }
    }

    fn vision(&self) -> Option<VisionShape> {
        Some(self.vision.shape())
    }

    fn parameter_shapes(&self) -> Vec<(String, Vec<usize>)> {
        let mut shapes = self.vision.parameter_shapes();
        shapes.extend(causal_lm::parameter_shapes(&self.text, self.tie_word_embeddings));
        if V::NESTED {
            shapes.iter_mut().for_each(|(name, _)| *name = weight_names::transformers_name(name));
        }
        shapes
    }

    fn published_name(&self, stored: &str) -> String {
        let flat = weight_names::flat_name(stored);
        if V::NESTED { weight_names::transformers_name(&flat) } else { flat }
    }

    fn transformers_name(&self, published: &str) -> String {
        weight_names::transformers_name(&weight_names::flat_name(published))
    }

    fn decoder_module_pattern(&self) -> &'static str {
        r"(.*\.)?language_model\.layers\.\d+\.(self_attn|mlp)\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    }

    fn part(&self, parameter: &str) -> Part {
        weight_names::part(&weight_names::flat_name(parameter))
    }

    fn eos_token_ids(&self) -> &[u32] {
        &self.eos_token_ids
    }

    fn image_tokens(&self) -> Option<ImageTokens> {
        Some(ImageTokens {
            image: self.image_token_id,
            video: self.video_token_id,
            start: self.vision_start_token_id,
            end: self.vision_end_token_id,
        })
    }

    fn positions(&self, ids: &[u32], grids: &[[usize; 3]]) -> Result<Positions> {
        get_rope_index(ids, grids, self.image_token_id, self.vision.shape().merge_size)
    }

    fn build(&self, weights: &mut NamedWeights) -> Result<Network> {
        if V::NESTED {
            weights.asked_by(weight_names::transformers_name);
        }
        let vision = self.vision.build(weights)?;
        let rotary = match V::INTERLEAVED {
            true => self.text.rotary().interleaved(&self.mrope_section),
            false => self.text.rotary().with_sections(&self.mrope_section),
        };
        let decoder = causal_lm::decoder(&self.text, self.tie_word_embeddings, rotary, weights)?;
        Ok(Network { vision: Some(vision), decoder })
    }
}
