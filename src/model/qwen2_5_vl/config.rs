//! `config.json` of a Qwen2.5-VL checkpoint: both Hugging Face layouts in, one checked [`Config`] out.
//!
//! The published checkpoints keep the decoder's keys at the top level and call the rotary settings `rope_scaling`;
//! transformers 5 writes them under `text_config` and calls them `rope_parameters`. A key that is absent has the value
//! that transformers' `Qwen2_5_VLConfig` gives it, because transformers does not write keys that have their default.

use crate::io::files;
use crate::model::fields::Fields;
use crate::model::lora;
use crate::{Error, Result, data};
use serde_json::{Value, json};
use std::path::Path;

/// Epsilon of every RMSNorm of the vision tower and its merger; not a setting of the architecture.
pub const VISION_NORM_EPS: f64 = 1e-6;

/// Base of the vision tower's rotary frequencies in every published checkpoint, which do not state it.
const VISION_ROPE_THETA: f64 = 10_000.0;

/// Most layers, and largest width, that are taken for what somebody meant.
const MOST_LAYERS: usize = 10_000;
const MOST_WIDE: usize = 1 << 24;
/// Largest side of a patch, in pixels or frames, and of what the merger makes one token of, in patches.
const MOST_PATCH: usize = 1 << 10;

/// Models that are easily taken for this one, by the `model_type` of their `config.json`.
const OTHERS: [(&str, &str); 16] = [
    ("qwen2_vl", "Qwen2-VL"),
    ("qwen2_5_omni", "Qwen2.5-Omni"),
    ("qwen2_5_omni_thinker", "Qwen2.5-Omni"),
    ("qwen2_5_vl_text", "the text part of Qwen2.5-VL alone"),
    ("qwen3_vl", "Qwen3-VL"),
    ("qwen3_vl_moe", "Qwen3-VL with experts"),
    ("qwen3_omni_moe", "Qwen3-Omni"),
    ("qwen2", "Qwen2 or Qwen2.5, without vision"),
    ("qwen2_moe", "Qwen2 with experts, without vision"),
    ("qwen2_audio", "Qwen2-Audio"),
    ("qwen3", "Qwen3, without vision"),
    ("qwen3_moe", "Qwen3 with experts, without vision"),
    ("llava", "LLaVA"),
    ("llava_onevision", "LLaVA-OneVision"),
    ("internvl", "InternVL"),
    ("mllama", "Llama 3.2 Vision"),
];

/// The architecture of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The decoder.
    pub text: TextConfig,
    /// The vision tower and its merger.
    pub vision: VisionConfig,
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

/// The decoder: Qwen2 with multimodal rotary positions.
#[derive(Debug, Clone, PartialEq)]
pub struct TextConfig {
    /// Rows of the embedding matrix.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; divides the query heads.
    pub num_key_value_heads: usize,
    /// Width of a head: `hidden_size / num_attention_heads`.
    pub head_dim: usize,
    /// Epsilon of the RMSNorms.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// How many of the `head_dim / 2` rotary frequencies follow the temporal, height and width position.
    pub mrope_section: Vec<usize>,
    /// Longest sequence the checkpoint was made for.
    pub max_position_embeddings: usize,
}

/// The vision tower: a ViT with window attention and 2-D rotary positions, and the patch merger.
#[derive(Debug, Clone, PartialEq)]
pub struct VisionConfig {
    /// Blocks.
    pub depth: usize,
    /// Width of a patch's hidden state.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Width of a head: `hidden_size / num_heads`.
    pub head_dim: usize,
    /// Colour channels.
    pub in_channels: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Frames that one patch spans (a still image is repeated).
    pub temporal_patch_size: usize,
    /// Side, in patches, of the square that the merger turns into one token.
    pub spatial_merge_size: usize,
    /// Side of an attention window in pixels.
    pub window_size: usize,
    /// Blocks that attend over the whole image, ascending; all others attend within windows.
    pub fullatt_block_indexes: Vec<usize>,
    /// Width of a merged token; equals the decoder's `hidden_size`.
    pub out_hidden_size: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
}

impl VisionConfig {
    /// Values of one flattened patch: channels x frames x height x width.
    pub fn patch_len(&self) -> usize {
        self.in_channels * self.temporal_patch_size * self.patch_size * self.patch_size
    }

    /// Side of an attention window in merged tokens.
    pub fn window_tokens(&self) -> usize {
        self.window_size / self.patch_size / self.spatial_merge_size
    }
}

/// An input error unless `dir` looks like a checkpoint directory: that it is there and holds a `config.json`.
pub fn require(dir: &Path) -> Result<()> {
    files::require_dir(dir, "model")?;
    let path = lora::model_files(dir)?.join("config.json");
    if path.is_file() {
        return Ok(());
    }
    let hint = match dir.join(data::MANIFEST).is_file() || dir.join(data::METADATA).is_file() {
        true => "it holds a dataset: are model and data swapped?",
        false => "download one, or make one with `jigsaw model init`",
    };
    Err(Error::input(format!(
        "{} not found: {} must be a Hugging Face checkpoint directory ({hint})",
        path.display(),
        dir.display()
    )))
}

impl Config {
    /// Read and check `config.json` of a checkpoint directory.
    ///
    /// # Errors
    /// An input error that names the file and the field, for a missing file, a value of the wrong type, an architecture
    /// other than Qwen2.5-VL, quantised weights, or settings that contradict each other.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        require(dir)?;
        let path = lora::model_files(dir)?.join("config.json");
        Self::from_json(&files::read_json(&path)?).map_err(|e| e.context(path.display()))
    }

    /// The configuration in a parsed `config.json`; errors name the field.
    pub fn from_json(value: &Value) -> Result<Self> {
        let root = Fields::root(value)?;
        match root.string("model_type")?.as_deref() {
            Some("qwen2_5_vl") => {}
            Some(other) => {
                let known = OTHERS.iter().find(|(model_type, _)| *model_type == other);
                let name = known.map_or(String::new(), |(_, name)| format!(" ({name})"));
                return Err(Error::input(format!(
                    "model_type: `{other}`{name} is not supported; only Qwen2.5-VL (`qwen2_5_vl`) is"
                )));
            }
            None => return Err(Error::input("model_type is missing; a Qwen2.5-VL checkpoint has `qwen2_5_vl`")),
        }
        if let Some(quantized) = root.section("quantization_config")? {
            let method = quantized.string("quant_method")?.unwrap_or_else(|| "not named".into());
            return Err(quantized.error(
                "quant_method",
                format!("{method}: quantised weights are not supported; give the checkpoint that they were made from, unquantised"),
            ));
        }
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
        let config = Config {
            text: TextConfig::from_fields(&text_fields)?,
            vision: VisionConfig::from_fields(&vision_fields)?,
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
        if self.vision.out_hidden_size != self.text.hidden_size {
            return Err(Error::input(format!(
                "vision_config.out_hidden_size is {} but the decoder's hidden_size is {}: image tokens would not fit \
                 between text tokens",
                self.vision.out_hidden_size, self.text.hidden_size
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

    /// The flat layout of the published checkpoints, which every version of transformers and this program read.
    pub fn to_json(&self) -> Value {
        let (t, v) = (&self.text, &self.vision);
        let mut vision = json!({
            "model_type": "qwen2_5_vl",
            "depth": v.depth,
            "hidden_act": "silu",
            "hidden_size": v.hidden_size,
            "intermediate_size": v.intermediate_size,
            "num_heads": v.num_heads,
            "in_chans": v.in_channels,
            "in_channels": v.in_channels,
            "out_hidden_size": v.out_hidden_size,
            "patch_size": v.patch_size,
            "spatial_patch_size": v.patch_size,
            "temporal_patch_size": v.temporal_patch_size,
            "spatial_merge_size": v.spatial_merge_size,
            "window_size": v.window_size,
            "fullatt_block_indexes": v.fullatt_block_indexes,
            "tokens_per_second": 2,
        });
        if v.rope_theta != VISION_ROPE_THETA {
            vision["rope_parameters"] = json!({ "rope_type": "axial", "rope_theta": v.rope_theta });
        }
        let eos = match self.eos_token_ids.as_slice() {
            [one] => json!(one),
            several => json!(several),
        };
        json!({
            "architectures": ["Qwen2_5_VLForConditionalGeneration"],
            "attention_dropout": 0.0,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": eos,
            "vision_start_token_id": self.vision_start_token_id,
            "vision_end_token_id": self.vision_end_token_id,
            "image_token_id": self.image_token_id,
            "video_token_id": self.video_token_id,
            "hidden_act": "silu",
            "hidden_size": t.hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": t.intermediate_size,
            "max_position_embeddings": t.max_position_embeddings,
            "model_type": "qwen2_5_vl",
            "num_attention_heads": t.num_attention_heads,
            "num_hidden_layers": t.num_hidden_layers,
            "num_key_value_heads": t.num_key_value_heads,
            "rms_norm_eps": t.rms_norm_eps,
            "rope_theta": t.rope_theta,
            "rope_scaling": { "type": "mrope", "mrope_section": t.mrope_section },
            "tie_word_embeddings": self.tie_word_embeddings,
            "torch_dtype": "float32",
            "use_cache": true,
            "use_sliding_window": false,
            "vision_config": vision,
            "vocab_size": t.vocab_size,
        })
    }
}

impl TextConfig {
    fn from_fields(f: &Fields) -> Result<Self> {
        f.activation("hidden_act")?;
        let hidden_size = f.size("hidden_size", MOST_WIDE)?.unwrap_or(8192);
        let num_hidden_layers = f.size("num_hidden_layers", MOST_LAYERS)?.unwrap_or(80);
        let heads = f.positive("num_attention_heads")?.unwrap_or(64);
        let kv_heads = match f.has("num_key_value_heads") {
            true => f.positive("num_key_value_heads")?.unwrap_or(heads),
            false => 8,
        };
        if hidden_size % heads != 0 {
            return Err(
                f.error("hidden_size", format!("{hidden_size} is not divisible by num_attention_heads {heads}"))
            );
        }
        if heads % kv_heads != 0 {
            return Err(
                f.error("num_attention_heads", format!("{heads} is not divisible by num_key_value_heads {kv_heads}"))
            );
        }
        let head_dim = hidden_size / heads;
        // transformers' attention ignores head_dim while its rotary embedding uses it, so another value cannot work.
        if let Some(stated) = f.positive("head_dim")?
            && stated != head_dim
        {
            return Err(f.error(
                "head_dim",
                format!("{stated} is not hidden_size / num_attention_heads = {head_dim}, which Qwen2.5-VL requires"),
            ));
        }
        if head_dim % 2 != 0 {
            return Err(
                f.error("hidden_size", format!("gives heads of odd width {head_dim}; rotary positions need pairs"))
            );
        }
        let max_window_layers = f.count("max_window_layers")?.unwrap_or(80);
        if f.boolean("use_sliding_window")?.unwrap_or(false) && max_window_layers < num_hidden_layers {
            return Err(f.error("use_sliding_window", "sliding-window attention is not supported; set it to false"));
        }
        let (rope_theta, mrope_section) = text_rope(f)?;
        if mrope_section.len() != 3
            || mrope_section.iter().fold(0, |sum: usize, n| sum.saturating_add(*n)) != head_dim / 2
        {
            return Err(f.error(
                "mrope_section",
                format!("{mrope_section:?} must be three numbers that sum to half the head width, {}", head_dim / 2),
            ));
        }
        Ok(TextConfig {
            vocab_size: f.size("vocab_size", MOST_WIDE)?.unwrap_or(152_064),
            hidden_size,
            intermediate_size: f.size("intermediate_size", MOST_WIDE)?.unwrap_or(29_568),
            num_hidden_layers,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim,
            rms_norm_eps: f.positive_number("rms_norm_eps")?.unwrap_or(1e-5),
            rope_theta,
            mrope_section,
            max_position_embeddings: f.positive("max_position_embeddings")?.unwrap_or(32_768),
        })
    }
}

/// Base and sections of the decoder's rotary positions, under either name.
fn text_rope(f: &Fields) -> Result<(f64, Vec<usize>)> {
    let outer_theta = f.positive_number("rope_theta")?;
    // transformers: `rope_scaling` wins where both are present.
    let rope = match f.section("rope_scaling")? {
        Some(section) => Some(section),
        None => f.section("rope_parameters")?,
    };
    let Some(rope) = rope else {
        return Ok((outer_theta.unwrap_or(1_000_000.0), vec![16, 24, 24]));
    };
    let kind = match rope.string("rope_type")? {
        Some(kind) => Some(kind),
        None => rope.string("type")?,
    };
    if let Some(kind) = kind.filter(|k| k != "default" && k != "mrope") {
        return Err(rope.error("rope_type", format!("`{kind}` is not supported; only `default` and `mrope` are")));
    }
    let theta = rope.positive_number("rope_theta")?.or(outer_theta).unwrap_or(1_000_000.0);
    Ok((theta, rope.counts("mrope_section")?.unwrap_or_else(|| vec![16, 24, 24])))
}

impl VisionConfig {
    fn from_fields(f: &Fields) -> Result<Self> {
        f.activation("hidden_act")?;
        let depth = f.size("depth", MOST_LAYERS)?.unwrap_or(32);
        let hidden_size = f.size("hidden_size", MOST_WIDE)?.unwrap_or(3584);
        let num_heads = f.positive("num_heads")?.unwrap_or(16);
        if hidden_size % num_heads != 0 {
            return Err(f.error("hidden_size", format!("{hidden_size} is not divisible by num_heads {num_heads}")));
        }
        let head_dim = hidden_size / num_heads;
        if head_dim % 4 != 0 {
            return Err(f.error(
                "hidden_size",
                format!("gives heads of width {head_dim}; 2-D rotary positions need a multiple of 4"),
            ));
        }
        let patch_size = f.small_square("patch_size", MOST_PATCH)?.unwrap_or(14);
        if let Some(spatial) = f.square("spatial_patch_size")?
            && spatial != patch_size
        {
            return Err(f.error("spatial_patch_size", format!("{spatial} differs from patch_size {patch_size}")));
        }
        let in_channels = match f.positive("in_channels")? {
            Some(channels) => channels,
            None => f.positive("in_chans")?.unwrap_or(3),
        };
        if in_channels != 3 {
            return Err(f.error("in_channels", format!("{in_channels} is not supported; images have 3 channels")));
        }
        let spatial_merge_size = f.size("spatial_merge_size", MOST_PATCH)?.unwrap_or(2);
        let window_size = f.size("window_size", MOST_WIDE)?.unwrap_or(112);
        if window_size < patch_size * spatial_merge_size {
            return Err(f.error(
                "window_size",
                format!(
                    "{window_size} is smaller than one merged token, patch_size x spatial_merge_size = {}",
                    patch_size * spatial_merge_size
                ),
            ));
        }
        let mut fullatt = f.counts("fullatt_block_indexes")?.unwrap_or_else(|| vec![7, 15, 23, 31]);
        // transformers only asks whether a block's index is listed, so indexes beyond the depth mean nothing.
        fullatt.retain(|&i| i < depth);
        fullatt.sort_unstable();
        fullatt.dedup();
        let rope = f.section("rope_parameters")?;
        let rope_theta = rope.as_ref().map(|r| r.positive_number("rope_theta")).transpose()?.flatten();
        Ok(VisionConfig {
            depth,
            hidden_size,
            intermediate_size: f.size("intermediate_size", MOST_WIDE)?.unwrap_or(3420),
            num_heads,
            head_dim,
            in_channels,
            patch_size,
            temporal_patch_size: f.small_square("temporal_patch_size", MOST_PATCH)?.unwrap_or(2),
            spatial_merge_size,
            window_size,
            fullatt_block_indexes: fullatt,
            out_hidden_size: f.size("out_hidden_size", MOST_WIDE)?.unwrap_or(3584),
            rope_theta: rope_theta.unwrap_or(VISION_ROPE_THETA),
        })
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
