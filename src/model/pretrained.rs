//! Checkpoints by path or by their name on the Hub: which files of a repository make one.

use super::fields;
use super::registry::parse_architecture;
use super::weights::{INDEX, Index};
use crate::hub::{self, DownloadProgress, HubConfig, RepoId, RequiredFiles};
use crate::{Error, Result};
use std::path::{Path, PathBuf};

const CONFIG: &str = "config.json";
const ADAPTER: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];
const WEIGHTS: &str = "model.safetensors";

/// The directory of a checkpoint that is given by path or by name; what is missing of a named one is downloaded.
///
/// # Errors
/// See [`hub::resolve`]; also a repository that is no checkpoint that this program can use, before its weights are downloaded.
pub fn resolve(model: &Path, settings: &HubConfig, progress: &mut dyn DownloadProgress) -> Result<PathBuf> {
    hub::resolve(model, settings, &Checkpoint, progress)
}

/// As [`resolve`], without the network: `None` if the checkpoint is not on this machine as a whole.
pub fn cached(model: &Path, settings: &HubConfig) -> Option<PathBuf> {
    hub::cached(model, settings, &Checkpoint)
}

/// The name, with the commit as its revision, by which the cache of the Hub has this directory; `None` of any other directory.
pub fn repo_id_of(dir: &Path, settings: &HubConfig) -> Option<RepoId> {
    hub::repo_id_of(dir, settings, &Checkpoint)
}

/// The files that this program or transformers read, and weights as safetensors only.
struct Checkpoint;

impl RequiredFiles for Checkpoint {
    fn missing(&self, dir: &Path) -> Result<Vec<String>> {
        let has = |name: &str| dir.join(name).is_file();
        let mut needed: Vec<String> = Vec::new();
        // An adapter may have a configuration beside it, and has no other weights all the same.
        if has(ADAPTER[0]) {
            needed.extend(ADAPTER.map(String::from));
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

    fn check(&self, repo: &[&str]) -> Result<()> {
        let has = |name: &str| repo.contains(&name);
        if has(WEIGHTS) || has(ADAPTER[1]) || has(INDEX) {
            return Ok(());
        }
        let pickled = repo.iter().find(|name| [".bin", ".pt", ".pth", ".gguf"].iter().any(|end| name.ends_with(end)));
        let instead = pickled.map_or(String::new(), |name| format!("; there is {name}, which is not read"));
        Err(Error::input(format!("neither {WEIGHTS} nor {INDEX} is there{instead}")))
    }

    fn stage(&self, stage: usize, repo: &[&str], dir: &Path) -> Result<Option<Vec<String>>> {
        let has = |name: &str| repo.contains(&name);
        // As in a directory, one file goes before shards.
        let sharded = has(INDEX) && !has(WEIGHTS);
        match stage {
            0 => Ok(Some(repo.iter().filter(|name| is_config_file(name)).map(|name| name.to_string()).collect())),
            1 => {
                let path = dir.join(CONFIG);
                if path.is_file() {
                    // Before gigabytes are downloaded that nobody can use.
                    parse_architecture(&fields::read_json(&path)?).map_err(|e| e.context(path.display()))?;
                }
                let single = [WEIGHTS, ADAPTER[1]].into_iter().filter(|name| has(name));
                Ok(Some(single.chain(sharded.then_some(INDEX)).map(String::from).collect()))
            }
            2 if sharded => {
                let index = dir.join(INDEX);
                let shards = Index::read(&index)?.shards();
                match shards.iter().find(|name| !has(name)) {
                    Some(name) => Err(Error::input(format!(
                        "{} names {name}, which the repository does not have",
                        index.display()
                    ))),
                    None => Ok(Some(shards)),
                }
            }
            _ => Ok(None),
        }
    }
}

/// Configuration, tokenizer, chat template, image settings.
fn is_config_file(name: &str) -> bool {
    let plain = !name.contains(['/', '\\']) && !name.starts_with('.');
    let starts = ["tokenizer", "chat_template"].iter().any(|start| name.starts_with(start));
    let ends = [".json", ".jinja", ".txt", ".model"].iter().any(|end| name.ends_with(end));
    let others = [
        CONFIG,
        ADAPTER[0],
        "generation_config.json",
        "preprocessor_config.json",
        "video_preprocessor_config.json",
        "processor_config.json",
        "added_tokens.json",
        "special_tokens_map.json",
        "vocab.json",
        "merges.txt",
    ];
    plain && (starts && ends || others.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX_NAME: &str = "model.safetensors.index.json";

    #[test]
    fn the_files_of_a_checkpoint_are_chosen() {
        let small = [
            "chat_template.jinja",
            "chat_template.json",
            "config.json",
            "generation_config.json",
            "merges.txt",
            "preprocessor_config.json",
            "processor_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "video_preprocessor_config.json",
            "vocab.json",
        ];
        let others = [
            "README.md",
            ".gitattributes",
            "onnx/config.json",
            "training_args.bin",
            "trainer_state.json",
            "tokenizer.py",
        ];
        let nowhere = Path::new("/nowhere");
        assert_eq!(Checkpoint.stage(0, &[&small[..], &others].concat(), nowhere).unwrap().unwrap(), small);
        let weights = |names: &[&str]| Checkpoint.stage(1, names, nowhere).unwrap().unwrap();
        assert_eq!(weights(&["model.safetensors", INDEX_NAME]), ["model.safetensors"]);
        assert_eq!(Checkpoint.stage(2, &["model.safetensors", INDEX_NAME], nowhere).unwrap(), None);
        assert_eq!(weights(&["model-00001-of-00001.safetensors", INDEX_NAME]), [INDEX_NAME]);
        let error = Checkpoint.check(&["pytorch_model.bin"]).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("pytorch_model.bin"), "{error}");
    }

    #[test]
    fn an_index_is_read_with_care() {
        let dir = tempfile::tempdir().unwrap();
        let index = dir.path().join(INDEX_NAME);
        std::fs::write(&index, r#"{"weight_map": {"a": "x.safetensors", "b": "x.safetensors", "c": "y.safetensors"}}"#)
            .unwrap();
        std::fs::write(dir.path().join("y.safetensors"), "").unwrap();
        assert_eq!(Checkpoint.missing(dir.path()).unwrap(), ["config.json", "tokenizer.json", "x.safetensors"]);
        let shards = |repo: &[&str]| Checkpoint.stage(2, &[repo, &[INDEX_NAME]].concat(), dir.path());
        assert_eq!(shards(&["x.safetensors", "y.safetensors"]).unwrap().unwrap(), ["x.safetensors", "y.safetensors"]);
        let error = shards(&["x.safetensors"]).unwrap_err().to_string();
        assert!(error.contains("names y.safetensors, which the repository does not have"), "{error}");
        std::fs::write(&index, r#"{"weight_map": {"a": "../../x"}}"#).unwrap();
        assert!(shards(&[]).unwrap_err().to_string().contains("`../../x` is no name of a weight file"));
    }

    #[test]
    fn an_adapter_with_a_configuration_beside_it_lacks_no_model() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["adapter_config.json", "config.json", "tokenizer.json"] {
            std::fs::write(dir.path().join(name), "{}").unwrap();
        }
        assert_eq!(Checkpoint.missing(dir.path()).unwrap(), ["adapter_model.safetensors"]);
        std::fs::write(dir.path().join("adapter_model.safetensors"), "x").unwrap();
        assert!(Checkpoint.missing(dir.path()).unwrap().is_empty());
    }
}
