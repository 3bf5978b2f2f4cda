//! Hashes of a checkpoint: its weights, and what turns messages and images into tokens.

use crate::io::{files, hex};
use crate::model::checkpoint_config::require_checkpoint;
use crate::model::lora;
use crate::{Error, Result};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Files are hashed in parts of this many bytes, each by itself, so that the threads can share a large one.
const PART: u64 = 4 << 20;

/// SHA-256 over `config.json` and the weights of a checkpoint directory; of an adapter over its matrices and scale and over its base.
pub fn hash_model(dir: &Path) -> Result<String> {
    require_checkpoint(dir)?;
    if lora::is_adapter(dir) {
        let own = hash_files(dir, |name| name == lora::ADAPTER_WEIGHTS)?.unwrap_or_default();
        let base = hash_model(&lora::base_of(dir)?)?;
        let mut hash = Sha256::new();
        for part in [own.as_str(), lora::scaling_of(dir)?.as_str(), base.as_str()] {
            hash.update(part.as_bytes());
        }
        return Ok(hex(&hash.finalize()));
    }
    let weights = |name: &str| name == "config.json" || name.ends_with(".safetensors");
    let hash = hash_files(dir, weights)?;
    hash.ok_or_else(|| Error::input(format!("{}: no config.json or *.safetensors: not a checkpoint", dir.display())))
}

/// SHA-256 over the files that turn messages and images into token ids and patches.
pub fn hash_prompt_files(dir: &Path) -> Result<String> {
    let names =
        ["tokenizer", "chat_template", "processor_config", "preprocessor_config", "generation_config", "added_tokens"];
    let prompt = |name: &str| names.iter().any(|n| name.starts_with(n));
    let hash = hash_files(&lora::model_files(dir)?, prompt)?;
    hash.ok_or_else(|| Error::input(format!("{}: no tokenizer or preprocessor files", dir.display())))
}

/// Over the name, length and parts of each wanted file: SHA-256 of the SHA-256 of every part.
fn hash_files(dir: &Path, wanted: impl Fn(&str) -> bool) -> Result<Option<String>> {
    let bad = |e: std::io::Error| Error::input(format!("cannot read {}: {e}", dir.display()));
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(bad)? {
        let name = entry.map_err(bad)?.file_name().to_string_lossy().into_owned();
        if wanted(&name) {
            names.push(name);
        }
    }
    names.sort();
    let mut hash = Sha256::new();
    for name in &names {
        let path = dir.join(name);
        let bad = |e: std::io::Error| Error::input(format!("cannot read {}: {e}", path.display()));
        let length = files::open_regular(&path).and_then(|file| file.metadata()).map_err(bad)?.len();
        let part = |i: u64| hash_part(&path, i * PART, PART.min(length - i * PART)).map_err(bad);
        let parts = (0..length.div_ceil(PART)).into_par_iter().map(part).collect::<Result<Vec<_>>>()?;
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name.as_bytes());
        hash.update(length.to_le_bytes());
        parts.iter().for_each(|part| hash.update(part));
    }
    Ok((!names.is_empty()).then(|| hex(&hash.finalize())))
}

fn hash_part(path: &Path, start: u64, length: u64) -> std::io::Result<[u8; 32]> {
    let mut file = files::open_regular(path)?;
    file.seek(SeekFrom::Start(start))?;
    let (mut hash, mut left, mut chunk) = (Sha256::new(), length as usize, vec![0; 1 << 17]);
    while left > 0 {
        let chunk = &mut chunk[..left.min(1 << 17)];
        file.read_exact(chunk)?;
        hash.update(&*chunk);
        left -= chunk.len();
    }
    Ok(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Processor;
    use crate::model::init::{Preset, write_checkpoint};

    #[test]
    fn image_settings_count_in_whichever_file_they_are_read_from() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path();
        write_checkpoint(dir, Preset::Tiny, 0).unwrap();
        let (before, weights) = (hash_prompt_files(dir).unwrap(), hash_model(dir).unwrap());
        fs::write(dir.join("video_preprocessor_config.json"), "{}").unwrap();
        assert_eq!(hash_prompt_files(dir).unwrap(), before, "nothing is read from it");
        let mut images =
            crate::io::files::read_json::<serde_json::Value>(&dir.join("preprocessor_config.json")).unwrap();
        for most in [7840, 15680] {
            images["max_pixels"] = most.into();
            let both = serde_json::json!({ "image_processor": images });
            crate::io::files::write_json(&dir.join("processor_config.json"), &both).unwrap();
            assert_eq!(Processor::from_dir(dir).unwrap().images().unwrap().max_pixels, most, "it is read first");
            assert_ne!(hash_prompt_files(dir).unwrap(), before);
        }
        assert_eq!(hash_model(dir).unwrap(), weights);
    }
}
