//! Whether a directory holds a checkpoint that can be used, as far as its small files and the headers of its weights say.

use crate::io::files;
use crate::model::lora;
use crate::{Error, Result, data};
use std::path::Path;

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
