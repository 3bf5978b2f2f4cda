//! The names of the files of a checkpoint or adapter directory, and which of them are missing.

use super::weights::{INDEX, Index};
use crate::Result;
use std::path::Path;

/// The configuration of a model.
pub(crate) const CONFIG: &str = "config.json";
/// The weights of a model, where they are one file.
pub(crate) const WEIGHTS: &str = "model.safetensors";
/// The configuration of an adapter.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";
/// The weights of an adapter.
pub const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";

/// Whether a directory holds an adapter.
pub fn is_adapter(dir: &Path) -> bool {
    dir.join(ADAPTER_CONFIG).is_file()
}

/// The files that a directory lacks of a checkpoint or an adapter that can be loaded.
///
/// # Errors
/// An index of shards that cannot be read.
pub fn missing_files(dir: &Path) -> Result<Vec<String>> {
    let has = |name: &str| dir.join(name).is_file();
    let mut needed: Vec<String> = Vec::new();
    // An adapter may have a configuration beside it, and needs no other weights all the same.
    if is_adapter(dir) {
        needed.extend([ADAPTER_CONFIG, ADAPTER_WEIGHTS].map(String::from));
    } else {
        needed.extend([CONFIG, "tokenizer.json"].map(String::from));
        match has(INDEX) && !has(WEIGHTS) {
            true => needed.extend(Index::read(&dir.join(INDEX))?.shards()),
            false => needed.push(WEIGHTS.into()),
        }
    }
    needed.retain(|name| !has(name));
    Ok(needed)
}
