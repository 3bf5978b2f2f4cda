//! Whether a checkpoint directory can be used, told from its small files and the headers of its weights.

use crate::Result;
use crate::model::Processor;
use crate::model::qwen2_5_vl::Config;
use crate::model::qwen2_5_vl::weights::Stored;
use std::path::Path;

/// Refuse a checkpoint directory that cannot be loaded, before anything is computed or hashed; no weight is read. A directory that
/// holds an adapter and no model is left to whoever loads it.
///
/// # Errors
/// An input error that names the file and what is wrong with it: another model than Qwen2.5-VL, a missing or cut-off weight file, a
/// tensor that is missing or has another shape or type, a tokenizer without the tokens of vision.
pub fn check(dir: &Path) -> Result<()> {
    if dir.join("adapter_config.json").is_file() && !dir.join("config.json").is_file() {
        return Ok(());
    }
    let config = Config::from_dir(dir)?;
    Stored::open(dir, &config)?;
    Processor::from_dir(dir).map(drop)
}
