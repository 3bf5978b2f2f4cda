//! Whether a checkpoint directory can be used, as far as its small files and the headers of its weights say.

use crate::Result;
use crate::model::checkpoint_config::read_architecture;
use crate::model::lora::{self, Adapter};
use crate::model::processor::Processor;
use crate::model::weights::CheckpointFiles;
use candle_core::Device;
use std::path::Path;

/// Refuse a checkpoint directory that cannot be loaded, before anything is computed or hashed. No weight is read but those of an adapter,
/// and a head that is tied and stored again.
///
/// Returns a warning for the user, if there is one.
///
/// # Errors
/// An input error that names the file and what is wrong with it: an unknown architecture, a missing or cut-off weight file, a
/// tensor that is missing or has another shape or type, a tokenizer without the tokens that the model needs.
pub fn check(dir: &Path) -> Result<Option<String>> {
    if lora::is_adapter(dir) {
        let base = lora::base_of(dir)?;
        check(&base)?;
        let adapter = Adapter::read(dir, read_architecture(&base)?.as_ref(), &Device::Cpu)?;
        return Ok(adapter.warning().map(String::from));
    }
    let architecture = read_architecture(dir)?;
    CheckpointFiles::open(dir, architecture.as_ref())?.check_head()?;
    Processor::from_dir(dir).map(|_| None)
}
