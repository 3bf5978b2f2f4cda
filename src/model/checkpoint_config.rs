//! The configuration of a checkpoint directory.

use crate::io::files;
use crate::model::architecture::Architecture;
use crate::model::lora;
use crate::model::registry::parse_architecture;
use crate::{Error, Result, data};
use std::path::Path;
use std::sync::Arc;

/// An input error unless `dir` looks like a checkpoint directory: that it is there and holds a `config.json`.
pub fn require_checkpoint(dir: &Path) -> Result<()> {
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

/// The architecture of a checkpoint directory, or of an adapter's base: reads `config.json`, no weights.
///
/// # Errors
/// An input error that names the file and the field; see [`parse_architecture`].
pub fn read_architecture(dir: &Path) -> Result<Arc<dyn Architecture>> {
    require_checkpoint(dir)?;
    let path = lora::model_files(dir)?.join("config.json");
    parse_architecture(&files::read_json(&path)?).map_err(|e| e.context(path.display()))
}
