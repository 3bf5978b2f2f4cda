//! The configuration of a checkpoint directory.

use crate::io::files;
use crate::model::architecture::Architecture;
use crate::model::lora;
use crate::model::registry::parse_architecture;
use crate::{Error, Result, data};
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// An input error unless `dir` looks like a checkpoint directory: that it is there and holds a `config.json`.
pub fn require_checkpoint(dir: &Path) -> Result<()> {
    files::require_dir(dir, "model")?;
    let path = lora::model_files(dir)?.join("config.json");
    if path.is_file() {
        return Ok(());
    }
    let hint = hint(dir);
    Err(Error::input(format!(
        "{} not found: {} must be a Hugging Face checkpoint directory ({hint})",
        path.display(),
        dir.display()
    )))
}

/// What a directory without a checkpoint is instead, and what was meant.
fn hint(dir: &Path) -> String {
    let has = |name: &str| dir.join(name).is_file();
    let holds = |dir: &Path| lora::is_adapter(dir) || dir.join("config.json").is_file();
    let below = |of: &Path| {
        let all = fs::read_dir(of).into_iter().flatten().flatten().map(|entry| entry.path());
        let models = all.map(|path| if holds(&path.join("model")) { path.join("model") } else { path });
        models.filter(|path| holds(path)).max().map(|path| path.display().to_string())
    };
    let model = dir.join("model");
    match () {
        _ if has(data::MANIFEST) || has(data::METADATA) => "it holds a dataset: are model and data swapped?".into(),
        _ if holds(&model) => format!("it is the directory of a run, whose model is {}", model.display()),
        _ if has("run.json") && has("config.toml") => match below(&dir.join("checkpoints")) {
            Some(last) => format!("it is the directory of a run that is not finished; its last checkpoint is {last}"),
            None => "it is the directory of a run that has no model yet; give the same `jigsaw train` again".into(),
        },
        _ if has("study.toml") => {
            format!("it is the directory of a study, whose models are {}", dir.join("runs/NAME/model").display())
        }
        _ => match below(dir) {
            Some(last) => format!("there is one in it, {last}"),
            None => "download one, or make one with `jigsaw model init`".into(),
        },
    }
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
