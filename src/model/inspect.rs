//! What a checkpoint directory holds, from its small files and the headers of its weights; no weight is read.

use crate::model::architecture::Architecture;
use crate::model::checkpoint_config::read_architecture;
use crate::model::gguf::Origin;
use crate::model::lora::{self, Adapter};
use crate::model::parts::Part;
use crate::model::processor::{ImageProcessor, Processor};
use crate::model::shapes::{DecoderShape, VisionShape};
use crate::model::weights::{CheckpointFiles, StoredTensor};
use crate::{Error, Result};
use candle_core::Device;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// A description of a checkpoint directory.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// The directory.
    pub directory: String,
    /// The model family's name.
    pub family: &'static str,
    /// `model_type` of `config.json`.
    pub model_type: &'static str,
    /// Parameters in all.
    pub parameters: usize,
    /// The GGUF file that the weights, or those that they were trained from, are from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gguf: Option<Origin>,
    /// The adapter, if the directory holds one; the rest describes its base.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<AdapterInfo>,
    /// Parameters by part of the model, in the order of the computation.
    pub parts: Vec<PartSize>,
    /// Parameters by the dtype they are stored in.
    pub dtypes: BTreeMap<String, usize>,
    /// The weight files.
    pub files: Vec<WeightFile>,
    /// The vision tower, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vision: Option<VisionShape>,
    /// The decoder.
    pub decoder: DecoderShape,
    /// Bounds of the image preprocessor, of a model that takes images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<Images>,
    /// The tokenizer.
    pub tokenizer: TokenizerInfo,
}

/// A LoRA adapter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AdapterInfo {
    /// Directory of its base.
    pub base: String,
    /// Linear maps that it adapts.
    pub modules: usize,
    /// Its parameters.
    pub parameters: usize,
    /// A warning about it: see [`Adapter::warning`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// One part of the model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PartSize {
    /// Which one.
    #[serde(rename = "name")]
    pub part: Part,
    /// Its parameters.
    pub parameters: usize,
    /// Its tensors.
    pub tensors: usize,
}

/// One safetensors file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WeightFile {
    /// File name.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
}

/// Bounds of the image preprocessor.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Images {
    /// Fewest pixels after resizing.
    pub min_pixels: usize,
    /// Most pixels after resizing.
    pub max_pixels: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Side, in pixels, of the square that becomes one token.
    pub token_size: usize,
    /// Most tokens that one image can become.
    pub max_tokens: usize,
}

/// The tokenizer and its special tokens.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TokenizerInfo {
    /// Tokens, special ones included.
    pub tokens: usize,
    /// Rows of the embedding matrix.
    pub vocab_size: usize,
    /// Special tokens by id.
    pub special: Vec<Special>,
    /// Ids that are never sampled.
    pub never_sampled: usize,
    /// Settings of `generation_config.json` that are not used, as `key = value`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unused_settings: Vec<String>,
}

/// One special token.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Special {
    /// Its id.
    pub id: u32,
    /// Its text.
    pub token: String,
    /// A response ends with it.
    pub ends_response: bool,
    /// It is never sampled.
    pub never_sampled: bool,
}

/// Describe a checkpoint directory.
///
/// # Errors
/// An input error that names the file and the field or tensor, for whatever would keep the model from being loaded.
pub fn inspect(dir: &Path) -> Result<Inspection> {
    let architecture = read_architecture(dir)?;
    let architecture = architecture.as_ref();
    let processor = Processor::from_dir(dir)?;
    let adapter = lora::is_adapter(dir).then(|| adapter(dir, architecture)).transpose()?;
    let stored = match &adapter {
        Some(adapter) => CheckpointFiles::open(Path::new(&adapter.base), architecture)?,
        None => CheckpointFiles::open(dir, architecture)?,
    };
    let files = stored
        .paths
        .iter()
        .map(|path| {
            let bytes = path.metadata().map_err(|e| Error::input(format!("{}: {e}", path.display())))?.len();
            Ok(WeightFile { name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(), bytes })
        })
        .collect::<Result<Vec<_>>>()?;
    let mut parts: Vec<PartSize> = Vec::new();
    let mut dtypes = BTreeMap::new();
    for StoredTensor { name, shape, dtype, .. } in &stored.tensors {
        let count = shape.iter().product::<usize>();
        *dtypes.entry(format!("{dtype:?}")).or_insert(0) += count;
        let part = architecture.part(name);
        match parts.iter_mut().find(|entry| entry.part == part) {
            Some(entry) => (entry.parameters, entry.tensors) = (entry.parameters + count, entry.tensors + 1),
            None => parts.push(PartSize { part, parameters: count, tensors: 1 }),
        }
    }
    Ok(Inspection {
        directory: dir.display().to_string(),
        family: architecture.title(),
        model_type: architecture.model_type(),
        parameters: parts.iter().map(|part| part.parameters).sum(),
        gguf: Origin::of(dir)?,
        adapter,
        parts,
        dtypes,
        files,
        vision: architecture.vision(),
        decoder: architecture.decoder(),
        images: processor.images().map(images),
        tokenizer: tokenizer(&processor, architecture.decoder().vocab_size),
    })
}

fn adapter(dir: &Path, architecture: &dyn Architecture) -> Result<AdapterInfo> {
    let adapter = Adapter::read(dir, architecture, &Device::Cpu)?;
    Ok(AdapterInfo {
        base: lora::base_of(dir)?.display().to_string(),
        modules: adapter.parameters().count() / 2,
        parameters: adapter.parameters().map(|p| p.var.elem_count()).sum(),
        warning: adapter.warning().map(String::from),
    })
}

fn images(p: &ImageProcessor) -> Images {
    Images {
        min_pixels: p.min_pixels,
        max_pixels: p.max_pixels,
        patch_size: p.patch_size,
        token_size: p.factor(),
        max_tokens: p.max_pixels / (p.factor() * p.factor()),
    }
}

fn tokenizer(processor: &Processor, vocab_size: usize) -> TokenizerInfo {
    let tokens = processor.tokens();
    let special = tokens
        .special()
        .iter()
        .map(|(id, token)| Special {
            id: *id,
            token: token.clone(),
            ends_response: tokens.eos_ids().contains(id),
            never_sampled: tokens.banned_ids().contains(id),
        })
        .collect();
    TokenizerInfo {
        tokens: tokens.len(),
        vocab_size,
        special,
        never_sampled: tokens.banned_ids().len(),
        unused_settings: tokens.unused_settings().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::files;
    use crate::model::init::{Preset, write_checkpoint};

    fn tiny() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        write_checkpoint(dir.path(), Preset::Tiny, 1).unwrap();
        dir
    }

    #[test]
    fn the_parts_add_up_and_stand_in_the_order_of_the_computation() {
        let found = inspect(tiny().path()).unwrap();
        let names: Vec<&str> = found.parts.iter().map(|entry| entry.part.name()).collect();
        assert_eq!(names, ["vision tower", "merger", "embeddings", "decoder"]);
        assert_eq!(found.dtypes, BTreeMap::from([("F32".to_string(), found.parameters)]));
        assert_eq!(found.parts[2].parameters, found.tokenizer.vocab_size * found.decoder.hidden_size);
        assert_eq!(found.images.unwrap().max_tokens, 256);
        let ends: Vec<&str> =
            found.tokenizer.special.iter().filter(|s| s.ends_response).map(|s| s.token.as_str()).collect();
        assert_eq!(ends, ["<|endoftext|>", "<|im_end|>"]);
        assert!(found.tokenizer.unused_settings.is_empty());
    }

    #[test]
    fn settings_of_other_generators_are_named() {
        let dir = tiny();
        let path = dir.path().join("generation_config.json");
        let mut config: serde_json::Value = files::read_json(&path).unwrap();
        config["repetition_penalty"] = 1.05.into();
        config["no_repeat_ngram_size"] = 0.into();
        config["temperature"] = 0.1.into();
        files::write_json(&path, &config).unwrap();
        assert_eq!(inspect(dir.path()).unwrap().tokenizer.unused_settings, ["repetition_penalty = 1.05"]);
    }

    #[test]
    fn a_tokenizer_config_that_changes_the_tokenizer_is_refused() {
        for (key, value, said) in [
            (
                "additional_special_tokens",
                serde_json::json!(["<extra>"]),
                "names the token `<extra>`, which tokenizer.json",
            ),
            ("pad_token", serde_json::json!({"content": "<extra>"}), "pad_token: names the token `<extra>`"),
            ("added_tokens_decoder", serde_json::json!({"9": {"content": "<extra>"}}), "added_tokens_decoder: names"),
            ("extra_special_tokens", serde_json::json!({"a_token": "<extra>"}), "extra_special_tokens: names"),
            ("split_special_tokens", true.into(), "split_special_tokens: true is not supported"),
            ("add_prefix_space", true.into(), "add_prefix_space: true is not supported"),
        ] {
            let dir = tiny();
            let path = dir.path().join("tokenizer_config.json");
            let mut config: serde_json::Value = files::read_json(&path).unwrap();
            config[key] = value;
            files::write_json(&path, &config).unwrap();
            let error = inspect(dir.path()).unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains(said), "{error}");
        }
    }

    #[test]
    fn a_bad_directory_is_reported_precisely() {
        let error = |dir: &Path| inspect(dir).unwrap_err().to_string();
        assert!(
            error(Path::new("/nowhere/at/all")).contains("no model at /nowhere/at/all: there is no such directory")
        );

        let dir = tiny();
        let weights = dir.path().join("model.safetensors");
        let bytes = files::read(&weights).unwrap();
        files::write_atomic(&weights, &bytes[..bytes.len() - 1]).unwrap();
        assert!(error(dir.path()).contains("is a file incomplete?"), "{}", error(dir.path()));
        std::fs::remove_file(&weights).unwrap();
        assert!(error(dir.path()).contains("model.safetensors"), "{}", error(dir.path()));

        let dir = tiny();
        let path = dir.path().join("config.json");
        let mut config: serde_json::Value = files::read_json(&path).unwrap();
        config["intermediate_size"] = 385.into();
        files::write_json(&path, &config).unwrap();
        let message = error(dir.path());
        assert!(message.contains("`model.layers.0.mlp.gate_proj.weight` has shape [384, 128]"), "{message}");
        config["intermediate_size"] = 384.into();
        config["tie_word_embeddings"] = false.into();
        files::write_json(&path, &config).unwrap();
        assert!(error(dir.path()).contains("the weights lack `lm_head.weight`"), "{}", error(dir.path()));
    }
}
