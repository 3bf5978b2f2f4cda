//! A new checkpoint directory with random weights, in a size that trains on a laptop.

mod tokenizer;

use crate::io::files;
use crate::model::architecture::Architecture;
use crate::model::causal_lm::{self, TextConfig, families};
use crate::model::convert_dtype::declare;
use crate::model::new_checkpoint::{NewCheckpoint, Written, check_output};
use crate::model::qwen_vl::vision_fields::PatchConfig;
use crate::model::qwen2_5_vl::{Config, VisionConfig};
use crate::model::shapes::VisionShape;
use crate::model::weight_dtype::WeightDtype;
use crate::model::{qwen_vl, qwen2_vl, qwen3_vl};
use crate::nn::Parameter;
use crate::{Error, Result, rng};
use candle_core::{Device, Tensor, Var};
use rand::RngExt;
use rayon::prelude::*;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
pub(crate) use tokenizer::SPECIAL;

/// A chat template that renders as the published one of Qwen2.5-VL does.
const CHAT_TEMPLATE: &str = include_str!("chat_template.jinja");

/// Standard deviation of fresh embeddings.
const EMBEDDING_STD: f64 = 0.1;
/// Share of the usual standard deviation for the matrices that write to the residual stream.
const RESIDUAL_SCALE: f64 = 0.2;

/// Rows of the embedding matrix are a multiple of this.
const VOCAB_MULTIPLE: usize = 64;

/// Image bounds of a fresh checkpoint, in pixels: one merged token to 16 x 16 of them, so that small puzzles keep their size.
const PIXELS: (usize, usize) = (28 * 28, 448 * 448);

/// The published image bounds.
const PUBLISHED_PIXELS: (usize, usize) = (3136, 12_845_056);

/// Elements of a matrix from which on its rows have random streams of their own, so that threads can share the work.
const LARGE: usize = 1 << 22;

/// Sizes a fresh checkpoint comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Preset {
    /// About 1.7 million parameters: minutes of training on two CPU cores.
    Tiny,
    /// The decoder of `tiny` alone (Qwen2.5, text without images): about a million parameters.
    TinyText,
    /// As `tiny-text`, a Llama.
    TinyLlama,
    /// As `tiny-text`, a Qwen3.
    TinyQwen3,
    /// As `tiny`, a Qwen2-VL.
    #[value(name = "tiny-qwen2-vl")]
    TinyQwen2Vl,
    /// As `tiny`, a Qwen3-VL.
    #[value(name = "tiny-qwen3-vl")]
    TinyQwen3Vl,
    /// About 60 million parameters.
    Small,
    /// The architecture of Qwen2.5-VL-3B, 3.75 billion parameters, bf16: to measure what the published one takes.
    #[value(name = "qwen2.5-vl-3b")]
    Qwen3b,
    /// The architecture of Qwen2.5-VL-7B, 8.29 billion parameters, bf16.
    #[value(name = "qwen2.5-vl-7b")]
    Qwen7b,
    /// The widths of Qwen2.5-VL-3B, two decoder layers and two vision blocks: half a billion parameters, bf16.
    #[value(name = "qwen2.5-vl-3b-cut")]
    Qwen3bCut,
}

impl Preset {
    /// Whether it has the sizes of a published checkpoint, whose weights a random one does not have.
    pub fn is_published(self) -> bool {
        matches!(self, Preset::Qwen3b | Preset::Qwen7b | Preset::Qwen3bCut)
    }

    /// How its weights are stored, and the bounds of its images in pixels.
    fn precision_and_pixels(self) -> (WeightDtype, (usize, usize)) {
        match self.is_published() {
            true => (WeightDtype::Bf16, PUBLISHED_PIXELS),
            false => (WeightDtype::F32, PIXELS),
        }
    }

    /// The architecture, for a tokenizer of `tokens` entries whose first special token has id `first_special`.
    fn architecture(self, tokens: usize, first_special: u32) -> Box<dyn Architecture> {
        let family = match self {
            Preset::TinyText => &families::QWEN2,
            Preset::TinyLlama => &families::LLAMA,
            Preset::TinyQwen3 => &families::QWEN3,
            Preset::TinyQwen2Vl => return Box::new(tiny_qwen2_vl(Preset::Tiny.vision_language(tokens, first_special))),
            Preset::TinyQwen3Vl => return Box::new(tiny_qwen3_vl(Preset::Tiny.vision_language(tokens, first_special))),
            _ => return Box::new(self.vision_language(tokens, first_special)),
        };
        let Config { text, bos_token_id, eos_token_ids, tie_word_embeddings, .. } =
            Preset::Tiny.vision_language(tokens, first_special);
        let TextConfig { qkv_bias, qk_norm, .. } = family.rules.defaults;
        let text = TextConfig { qkv_bias, qk_norm, ..text };
        Box::new(causal_lm::Config { family, text, bos_token_id, eos_token_ids, tie_word_embeddings })
    }

    /// A Qwen2.5-VL architecture.
    fn vision_language(self, tokens: usize, first_special: u32) -> Config {
        let (text, mrope_section, vision) = match self {
            Preset::Small => small(tokens),
            Preset::Qwen3b => published([2048, 11_008, 36, 16, 2], 32, 151_936),
            Preset::Qwen3bCut => published([2048, 11_008, 2, 16, 2], 2, 151_936),
            Preset::Qwen7b => published([3584, 18_944, 28, 28, 4], 32, 152_064),
            // `tiny`, from which the other small ones are made.
            _ => (
                TextConfig {
                    hidden_size: 128,
                    intermediate_size: 384,
                    num_hidden_layers: 4,
                    num_attention_heads: 4,
                    num_key_value_heads: 2,
                    head_dim: 32,
                    // Height and width have the slowest frequencies. With heads this narrow and the published base of 1e6 they
                    // would hardly turn, and one tile's place could not be told from another's. With a base of 10 they all turn so
                    // fast that what a question names was not found at changing distances (docs/base-tiny.md).
                    rope_theta: 1000.0,
                    ..text_defaults(tokens)
                },
                vec![4, 6, 6],
                VisionConfig {
                    depth: 4,
                    hidden_size: 96,
                    intermediate_size: 192,
                    num_heads: 4,
                    head_dim: 24,
                    fullatt_block_indexes: vec![1, 3],
                    out_hidden_size: 128,
                    ..vision_defaults()
                },
            ),
        };
        let special = |token: &str| first_special + SPECIAL.iter().position(|t| *t == token).unwrap_or(0) as u32;
        Config {
            text,
            mrope_section,
            vision,
            image_token_id: special("<|image_pad|>"),
            video_token_id: special("<|video_pad|>"),
            vision_start_token_id: special("<|vision_start|>"),
            vision_end_token_id: special("<|vision_end|>"),
            bos_token_id: Some(special("<|endoftext|>")),
            eos_token_ids: vec![special("<|im_end|>")],
            tie_word_embeddings: self != Preset::Qwen7b,
        }
    }
}

/// The `small` preset: decoder, rotary sections, vision tower.
fn small(tokens: usize) -> (TextConfig, Vec<usize>, VisionConfig) {
    (
        TextConfig {
            hidden_size: 512,
            intermediate_size: 2048,
            num_hidden_layers: 8,
            num_attention_heads: 8,
            num_key_value_heads: 2,
            head_dim: 64,
            ..text_defaults(tokens)
        },
        vec![8, 12, 12],
        VisionConfig {
            depth: 8,
            hidden_size: 512,
            intermediate_size: 1280,
            num_heads: 8,
            head_dim: 64,
            fullatt_block_indexes: vec![3, 7],
            out_hidden_size: 512,
            ..vision_defaults()
        },
    )
}

/// A tiny model with another vision tower and decoder.
fn with_vision<V>(tiny: Config, text: TextConfig, vision: V) -> qwen_vl::Config<V> {
    qwen_vl::Config {
        text,
        vision,
        mrope_section: tiny.mrope_section,
        image_token_id: tiny.image_token_id,
        video_token_id: tiny.video_token_id,
        vision_start_token_id: tiny.vision_start_token_id,
        vision_end_token_id: tiny.vision_end_token_id,
        bos_token_id: tiny.bos_token_id,
        eos_token_ids: tiny.eos_token_ids,
        tie_word_embeddings: tiny.tie_word_embeddings,
    }
}

fn tiny_qwen2_vl(tiny: Config) -> qwen2_vl::Config {
    let VisionConfig { depth, hidden_size, num_heads, head_dim, patches, out_hidden_size, rope_theta, .. } =
        tiny.vision;
    let vision = qwen2_vl::VisionConfig {
        depth,
        embed_dim: hidden_size,
        mlp_ratio: 2,
        num_heads,
        head_dim,
        patches,
        hidden_size: out_hidden_size,
        rope_theta,
    };
    let text = tiny.text;
    with_vision(tiny, text, vision)
}

fn tiny_qwen3_vl(tiny: Config) -> qwen3_vl::Config {
    let VisionConfig { depth, hidden_size, num_heads, head_dim, patches, out_hidden_size, rope_theta, .. } =
        tiny.vision;
    let vision = qwen3_vl::VisionConfig {
        depth,
        hidden_size,
        intermediate_size: 2 * hidden_size,
        num_heads,
        head_dim,
        patches: PatchConfig { patch_size: 16, ..patches },
        out_hidden_size,
        num_position_embeddings: 64,
        deepstack_visual_indexes: vec![0, 2],
        rope_theta,
    };
    let text = TextConfig { qkv_bias: false, qk_norm: true, ..tiny.text };
    with_vision(tiny, text, vision)
}

/// The published architectures: (hidden, intermediate, layers, heads, key and value heads) of the decoder, blocks of the vision tower,
/// rows of the embeddings. From the `config.json` of Qwen/Qwen2.5-VL-3B-Instruct and -7B-Instruct.
fn published(
    [hidden, inner, layers, heads, kv]: [usize; 5],
    depth: usize,
    vocab: usize,
) -> (TextConfig, Vec<usize>, VisionConfig) {
    let text = TextConfig {
        vocab_size: vocab,
        hidden_size: hidden,
        intermediate_size: inner,
        num_hidden_layers: layers,
        num_attention_heads: heads,
        num_key_value_heads: kv,
        head_dim: hidden / heads,
        max_position_embeddings: 128_000,
        ..text_defaults(0)
    };
    let vision = VisionConfig {
        depth,
        hidden_size: 1280,
        intermediate_size: 3420,
        num_heads: 16,
        head_dim: 80,
        fullatt_block_indexes: if depth == 32 { vec![7, 15, 23, 31] } else { vec![depth - 1] },
        out_hidden_size: hidden,
        ..vision_defaults()
    };
    (text, vec![16, 24, 24], vision)
}

/// What the presets share; the sizes are placeholders that each preset sets.
fn text_defaults(tokens: usize) -> TextConfig {
    TextConfig {
        vocab_size: tokens.next_multiple_of(VOCAB_MULTIPLE),
        hidden_size: 0,
        intermediate_size: 0,
        num_hidden_layers: 0,
        num_attention_heads: 0,
        num_key_value_heads: 0,
        head_dim: 0,
        qkv_bias: true,
        qk_norm: false,
        rms_norm_eps: 1e-6,
        rope_theta: 1_000_000.0,
        rope_scaling: None,
        max_position_embeddings: 32_768,
    }
}

/// As [`text_defaults`], for the vision tower.
fn vision_defaults() -> VisionConfig {
    VisionConfig {
        depth: 0,
        hidden_size: 0,
        intermediate_size: 0,
        num_heads: 0,
        head_dim: 0,
        patches: PatchConfig { in_channels: 3, patch_size: 14, temporal_patch_size: 2, spatial_merge_size: 2 },
        window_size: 112,
        fullatt_block_indexes: Vec::new(),
        out_hidden_size: 0,
        rope_theta: 10_000.0,
    }
}

/// Write a fresh checkpoint directory: the same preset and seed give the same bytes. Returns the number of parameters.
///
/// The files are those of a published checkpoint, so that transformers loads it too. `config.json` is written last.
///
/// # Errors
/// An input error if `dir` already holds another checkpoint or something else; a failure if a file cannot be written.
pub fn write_checkpoint(dir: &Path, preset: Preset, seed: u64) -> Result<(usize, Written)> {
    check_output(dir)?;
    let tokenizer = tokenizer::train()?;
    let first_special = tokenizer
        .token_to_id(SPECIAL[0])
        .ok_or_else(|| Error::failed(format!("the new tokenizer lacks {}", SPECIAL[0])))?;
    let (precision, pixels) = preset.precision_and_pixels();
    let architecture = preset.architecture(tokenizer.get_vocab_size(true), first_special);
    let text = tokenizer.to_string(true).map_err(|e| Error::failed(format!("cannot write the tokenizer: {e}")))?;
    // transformers' processor looks for the template in a file of its own, its tokenizer in tokenizer_config.json.
    let mut described = vec![
        ("tokenizer_config.json", tokenizer_config(first_special)),
        ("chat_template.json", json!({ "chat_template": CHAT_TEMPLATE })),
        ("generation_config.json", generation_config(first_special)),
    ];
    if let Some(vision) = architecture.vision() {
        described.push(("preprocessor_config.json", preprocessor_config(architecture.as_ref(), &vision, pixels)));
    }
    let mut beside = vec![("tokenizer.json".to_string(), text.into_bytes())];
    for (name, value) in described {
        beside.push((name.to_string(), files::to_json(&value).map_err(|e| e.context(name))?));
    }
    let mut config = architecture.to_json();
    declare(&mut config, precision.name());
    let shapes = architecture.parameter_shapes();
    let make = |i: usize| Ok(fresh_values(&shapes[i].0, &shapes[i].1, seed));
    let new = NewCheckpoint {
        from: "init",
        beside,
        config,
        shapes: &shapes,
        dtype: precision,
        or: "remove it first",
        make: &make,
    };
    let written = new.write(dir, false)?;
    Ok((shapes.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum(), written))
}

/// Random weights for an architecture: norms one, biases zero, matrices and embeddings normal. A matrix has standard deviation
/// `1 / sqrt(fan in)`, so that a narrow model starts with activations of the size that a wide one has with the usual 0.02; the
/// matrices that write to the residual stream a fifth of that, and the embeddings [`EMBEDDING_STD`], so that a token's identity
/// is not drowned by the first layers. Each weight has its own random stream, so that it does not depend on the others.
pub fn fresh_parameters(architecture: &dyn Architecture, seed: u64) -> Result<Vec<Arc<Parameter>>> {
    architecture
        .parameter_shapes()
        .into_par_iter()
        .map(|(name, shape)| {
            let tensor = Tensor::from_vec(fresh_values(&name, &shape, seed), shape, &Device::Cpu)?;
            Ok(Arc::new(Parameter::new(name, Var::from_tensor(&tensor)?)))
        })
        .collect()
}

/// The random numbers of one weight, see [`fresh_parameters`].
fn fresh_values(name: &str, shape: &[usize], seed: u64) -> Vec<f32> {
    let count: usize = shape.iter().product();
    if name.ends_with(".bias") {
        return vec![0.0; count];
    } else if shape.len() == 1 {
        return vec![1.0; count];
    }
    let (std, stream) = (standard_deviation(name, count / shape[0]), format!("init {name}"));
    if count <= LARGE {
        return normal(&mut rng::stream(seed, &stream, &[]), count, std);
    }
    let mut values = vec![0.0; count];
    values.par_chunks_mut(count / shape[0]).enumerate().for_each(|(row, values)| {
        values.copy_from_slice(&normal(&mut rng::stream(seed, &stream, &[row as u64]), values.len(), std));
    });
    values
}

fn standard_deviation(name: &str, fan_in: usize) -> f64 {
    if name.contains("embed_tokens") || name.starts_with("lm_head") {
        return EMBEDDING_STD;
    }
    let residual = ["o_proj.weight", "down_proj.weight", "attn.proj.weight"].iter().any(|end| name.ends_with(end));
    (if residual { RESIDUAL_SCALE } else { 1.0 }) / (fan_in as f64).sqrt()
}

/// Normal numbers of standard deviation `std`, in pairs by Marsaglia's polar method.
fn normal(rng: &mut rng::Rng, count: usize, std: f64) -> Vec<f32> {
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        let (x, y) = (2.0 * rng.random::<f64>() - 1.0, 2.0 * rng.random::<f64>() - 1.0);
        let square = x * x + y * y;
        if square > 0.0 && square < 1.0 {
            let scale = std * (-2.0 * square.ln() / square).sqrt();
            values.extend([(x * scale) as f32, (y * scale) as f32]);
        }
    }
    values.truncate(count);
    values
}

fn tokenizer_config(first_special: u32) -> Value {
    let added: serde_json::Map<String, Value> = SPECIAL
        .iter()
        .zip(first_special..)
        .map(|(token, id)| {
            let entry = json!({ "content": token, "lstrip": false, "normalized": false, "rstrip": false,
                "single_word": false, "special": true });
            (id.to_string(), entry)
        })
        .collect();
    json!({
        "add_bos_token": false,
        "add_prefix_space": false,
        "added_tokens_decoder": added,
        "additional_special_tokens": SPECIAL[1..],
        "bos_token": null,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": false,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 32_768,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": false,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": null,
    })
}

fn generation_config(first_special: u32) -> Value {
    let (end_of_text, im_end) = (first_special, first_special + 2);
    json!({ "bos_token_id": end_of_text, "pad_token_id": end_of_text, "do_sample": false,
        "eos_token_id": [im_end, end_of_text] })
}

/// The published settings of the family; Qwen3-VL maps colours to [-1, 1], the others use CLIP's mean and deviation.
fn preprocessor_config(
    architecture: &dyn Architecture,
    vision: &VisionShape,
    (min_pixels, max_pixels): (usize, usize),
) -> Value {
    let clip = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]);
    let (processor, (mean, std)) = match architecture.model_type() {
        "qwen3_vl" => ("Qwen3VLProcessor", ([0.5; 3], [0.5; 3])),
        "qwen2_vl" => ("Qwen2VLProcessor", clip),
        _ => ("Qwen2_5_VLProcessor", clip),
    };
    json!({
        "min_pixels": min_pixels,
        "max_pixels": max_pixels,
        "patch_size": vision.patch_size,
        "temporal_patch_size": vision.temporal_patch_size,
        "merge_size": vision.merge_size,
        "image_mean": mean,
        "image_std": std,
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": processor,
    })
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
