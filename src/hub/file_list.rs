//! Which files of a repository make a checkpoint: those that this program or transformers read, and weights as safetensors only.

use super::git::GitHasher;
use crate::model::lora;
use crate::model::weights::{INDEX, Index};
use crate::{Error, Result};
use std::path::Path;

const CONFIG: &str = "config.json";
const ADAPTER: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];
const WEIGHTS: &str = "model.safetensors";

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RepoFile {
    /// Its path in the repository.
    pub name: String,
    /// Its length in bytes, if the Hub says it.
    pub size: Option<u64>,
    /// SHA-256 of its content, of a large file.
    pub sha256: Option<String>,
    /// Its name among the blobs of the cache: of a small file the one that git has for its content, if the Hub says it.
    pub blob: String,
}

impl RepoFile {
    /// What makes git's name of the content, to be compared with `blob`, where that is such a name.
    pub fn git_hasher(&self) -> Option<GitHasher> {
        let named_by_git =
            self.sha256.is_none() && self.blob.len() == 40 && self.blob.chars().all(|c| c.is_ascii_hexdigit());
        named_by_git.then(|| GitHasher::of(self.size)).flatten()
    }
}

/// What a repository holds at a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RepoFiles {
    /// The commit.
    pub commit: String,
    /// Its files.
    pub entries: Vec<RepoFile>,
}

/// Where the weights are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WeightFiles {
    /// Weight files.
    pub given: Vec<String>,
    /// A file that names more of them.
    pub index: Option<String>,
}

impl RepoFiles {
    fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|entry| entry.name == name)
    }

    /// The small files of a checkpoint: configuration, tokenizer, chat template, image settings.
    pub fn config_files(&self) -> Vec<String> {
        self.entries.iter().map(|entry| &entry.name).filter(|name| is_config_file(name)).cloned().collect()
    }

    /// The weights.
    ///
    /// # Errors
    /// An input error if there are none that can be read.
    pub fn weights(&self) -> Result<WeightFiles> {
        let mut given: Vec<String> = Vec::new();
        given.extend([WEIGHTS, ADAPTER[1]].iter().filter(|name| self.has(name)).map(|name| name.to_string()));
        // As in a directory, one file goes before shards.
        let index = (self.has(INDEX) && !self.has(WEIGHTS)).then(|| INDEX.to_string());
        if given.is_empty() && index.is_none() {
            let pickled =
                self.entries.iter().find(|e| [".bin", ".pt", ".pth", ".gguf"].iter().any(|end| e.name.ends_with(end)));
            let instead = pickled.map_or(String::new(), |e| format!("; there is {}, which is not read", e.name));
            return Err(Error::input(format!("neither {WEIGHTS} nor {INDEX} is there{instead}")));
        }
        Ok(WeightFiles { given, index })
    }

    /// The shards that an index names.
    ///
    /// # Errors
    /// An input error if the index cannot be read, or names what the repository does not have.
    pub fn shards(&self, index: &Path) -> Result<Vec<String>> {
        let shards = Index::read(index)?.shards();
        match shards.iter().find(|name| !self.has(name)) {
            Some(name) => {
                Err(Error::input(format!("{} names {name}, which the repository does not have", index.display())))
            }
            None => Ok(shards),
        }
    }
}

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

/// What a snapshot lacks of a checkpoint.
///
/// # Errors
/// An index that cannot be read.
pub(super) fn missing_files(dir: &Path) -> Result<Vec<String>> {
    let has = |name: &str| dir.join(name).is_file();
    let mut needed: Vec<String> = Vec::new();
    // An adapter may have a configuration beside it, and has no other weights all the same.
    if lora::is_adapter(dir) {
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
