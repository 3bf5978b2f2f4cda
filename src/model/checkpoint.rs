//! Whether a checkpoint directory can be used, told from its small files and the headers of its weights.

use crate::Result;
use crate::model::Processor;
use crate::model::lora::{self, Adapter};
use crate::model::qwen2_5_vl::Config;
use crate::model::qwen2_5_vl::weights::Stored;
use candle_core::Device;
use std::path::Path;

/// Refuse a checkpoint directory that cannot be loaded, before anything is computed or hashed; no weight is read but those of an adapter,
/// and a head that is tied and stored again.
///
/// Returns what a person should know all the same, if there is something.
///
/// # Errors
/// An input error that names the file and what is wrong with it: another model than Qwen2.5-VL, a missing or cut-off weight file, a
/// tensor that is missing or has another shape or type, a tokenizer without the tokens of vision.
pub fn check(dir: &Path) -> Result<Option<String>> {
    if lora::is_adapter(dir) {
        let base = lora::base_of(dir)?;
        check(&base)?;
        let adapter = Adapter::read(dir, &Config::from_dir(&base)?, &Device::Cpu)?;
        return Ok(adapter.note().map(String::from));
    }
    let config = Config::from_dir(dir)?;
    Stored::open(dir, &config)?.check_head()?;
    Processor::from_dir(dir).map(|_| None)
}
