//! Which files of a repository on the Hub make a checkpoint: those that this program or transformers read, and weights as safetensors only.

use super::checkpoint_config::read_architecture;
use super::file_names::{ADAPTER_CONFIG, ADAPTER_WEIGHTS, CONFIG, WEIGHTS, missing_files};
use super::weights::{INDEX, Index};
use crate::hub::FileSelector;
use crate::{Error, Result};
use std::path::Path;

/// Selects the files of a checkpoint or an adapter. The small files come first, so that a model that cannot be used is refused before its
/// weights are downloaded.
#[derive(Debug, Clone, Copy)]
pub struct CheckpointSelector;

impl FileSelector for CheckpointSelector {
    fn files(&self, round: usize, names: &[&str], dir: &Path) -> Result<Option<Vec<String>>> {
        match round {
            0 => {
                weight_files(names)?;
                Ok(Some(names.iter().filter(|name| is_small_file(name)).map(|name| name.to_string()).collect()))
            }
            1 => {
                if dir.join(CONFIG).is_file() {
                    read_architecture(dir)?;
                }
                weight_files(names).map(Some)
            }
            2 if dir.join(INDEX).is_file() && has_index(names) => shards(names, &dir.join(INDEX)).map(Some),
            _ => Ok(None),
        }
    }

    fn missing(&self, dir: &Path) -> Result<Vec<String>> {
        missing_files(dir)
    }
}

/// The weight files, or the index of their shards. As in a directory, one file goes before shards.
fn weight_files(names: &[&str]) -> Result<Vec<String>> {
    let index = has_index(names).then_some(INDEX);
    let files = [WEIGHTS, ADAPTER_WEIGHTS].into_iter().filter(|name| names.contains(name)).chain(index);
    let files: Vec<String> = files.map(String::from).collect();
    if files.is_empty() {
        let pickled = names.iter().find(|name| [".bin", ".pt", ".pth", ".gguf"].iter().any(|end| name.ends_with(end)));
        let instead = pickled.map_or(String::new(), |name| format!("; there is {name}, which is not read"));
        return Err(Error::input(format!("neither {WEIGHTS} nor {INDEX} is there{instead}")));
    }
    Ok(files)
}

fn has_index(names: &[&str]) -> bool {
    names.contains(&INDEX) && !names.contains(&WEIGHTS)
}

/// The shards that an index names.
fn shards(names: &[&str], index: &Path) -> Result<Vec<String>> {
    let shards = Index::read(index)?.shards();
    match shards.iter().find(|name| !names.contains(&name.as_str())) {
        Some(name) => {
            Err(Error::input(format!("{} names {name}, which the repository does not have", index.display())))
        }
        None => Ok(shards),
    }
}

/// Configuration, tokenizer, chat template, image settings.
fn is_small_file(name: &str) -> bool {
    let plain = !name.contains(['/', '\\']) && !name.starts_with('.');
    let starts = ["tokenizer", "chat_template"].iter().any(|start| name.starts_with(start));
    let ends = [".json", ".jinja", ".txt", ".model"].iter().any(|end| name.ends_with(end));
    let others = [
        CONFIG,
        ADAPTER_CONFIG,
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

    fn files(round: usize, names: &[&str], dir: &Path) -> Result<Vec<String>> {
        Ok(CheckpointSelector.files(round, names, dir)?.unwrap_or_default())
    }

    #[test]
    fn the_files_of_a_checkpoint_are_selected() {
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
            WEIGHTS,
        ];
        let dir = Path::new("nowhere");
        assert_eq!(files(0, &[&small[..], &others].concat(), dir).unwrap(), small);
        assert_eq!(files(1, &[WEIGHTS, INDEX], dir).unwrap(), [WEIGHTS]);
        assert_eq!(files(1, &["model-00001-of-00001.safetensors", INDEX], dir).unwrap(), [INDEX]);
        let error = files(0, &["pytorch_model.bin"], dir).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("pytorch_model.bin"), "{error}");
    }

    #[test]
    fn an_index_that_names_files_outside_the_repository_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let index = dir.path().join(INDEX);
        let map = r#"{"weight_map": {"a": "x.safetensors", "b": "x.safetensors", "c": "y.safetensors"}}"#;
        std::fs::write(&index, map).unwrap();
        std::fs::write(dir.path().join("y.safetensors"), "").unwrap();
        let missing = missing_files(dir.path()).unwrap();
        assert_eq!(missing, ["config.json", "tokenizer.json", "x.safetensors"]);
        let both = ["x.safetensors", "y.safetensors"];
        assert_eq!(files(2, &[&both[..], &[INDEX]].concat(), dir.path()).unwrap(), both);
        let error = files(2, &["x.safetensors", INDEX], dir.path()).unwrap_err().to_string();
        assert!(error.contains("names y.safetensors, which the repository does not have"), "{error}");
        std::fs::write(&index, r#"{"weight_map": {"a": "../../x"}}"#).unwrap();
        let error = files(2, &[INDEX], dir.path()).unwrap_err().to_string();
        assert!(error.contains("`../../x` is no name of a weight file"), "{error}");
    }

    #[test]
    fn an_adapter_with_a_configuration_beside_it_needs_no_model() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["adapter_config.json", "config.json", "tokenizer.json"] {
            std::fs::write(dir.path().join(name), "{}").unwrap();
        }
        assert_eq!(missing_files(dir.path()).unwrap(), ["adapter_model.safetensors"]);
        std::fs::write(dir.path().join("adapter_model.safetensors"), "x").unwrap();
        assert!(missing_files(dir.path()).unwrap().is_empty());
    }
}
