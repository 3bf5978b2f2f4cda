//! Which safetensors files hold the weights of a directory: one, or shards by their index.

use crate::model::json_fields;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The one file.
const SINGLE: &str = "model.safetensors";
/// The file that maps tensors to shards.
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// An index of shards.
#[derive(Debug)]
pub(crate) struct Index {
    /// The index itself.
    path: PathBuf,
    /// Name of the shard of each tensor.
    map: BTreeMap<String, String>,
}

impl Index {
    /// Read an index.
    ///
    /// # Errors
    /// An input error that names the index, if it cannot be read or names what is no file beside it.
    pub fn read(path: &Path) -> Result<Index> {
        #[derive(serde::Deserialize)]
        struct Written {
            weight_map: BTreeMap<String, String>,
        }
        let map = json_fields::read_json::<Written>(path)?.weight_map;
        match map.values().find(|name| name.is_empty() || name.contains(['/', '\\']) || name.starts_with('.')) {
            Some(name) => Err(Error::input(format!(
                "{}: `{name}` is no name of a weight file; shards lie beside their index",
                path.display()
            ))),
            None => Ok(Index { path: path.to_path_buf(), map }),
        }
    }

    /// The names of the shards, each once.
    pub fn shards(&self) -> Vec<String> {
        let mut names: Vec<String> = self.map.values().cloned().collect();
        names.sort();
        names.dedup();
        names
    }

    /// Refuse a tensor that the index places elsewhere than in `file`, or does not name.
    ///
    /// # Errors
    /// An input error that names the tensor and the files.
    pub fn check(&self, tensor: &str, file: &Path) -> Result<()> {
        let index = self.path.file_name().unwrap_or_default().to_string_lossy();
        let placed = match self.map.get(tensor) {
            Some(shard) if file.file_name().is_some_and(|name| name == shard.as_str()) => return Ok(()),
            Some(shard) => format!("places in {shard}"),
            None => "does not name".into(),
        };
        Err(Error::input(format!(
            "{} holds `{tensor}`, which {index} {placed}; are the files of one checkpoint, and all of them?",
            file.display()
        )))
    }
}

/// The safetensors files of a checkpoint directory, and the index that names them if there are shards.
///
/// # Errors
/// An input error if there are none, or not all that the index names.
pub(crate) fn weight_files(dir: &Path) -> Result<(Vec<PathBuf>, Option<Index>)> {
    let single = dir.join(SINGLE);
    if single.is_file() {
        return Ok((vec![single], None));
    }
    let path = dir.join(INDEX);
    if !path.is_file() {
        return Err(Error::input(format!(
            "{}: neither {SINGLE} nor {INDEX} found; a Hugging Face checkpoint directory with safetensors weights is needed",
            dir.display()
        )));
    }
    let index = Index::read(&path)?;
    let paths: Vec<PathBuf> = index.shards().iter().map(|name| dir.join(name)).collect();
    match paths.iter().find(|path| !path.is_file()) {
        Some(missing) => {
            Err(Error::input(format!("{} names {}, which is not there", path.display(), missing.display())))
        }
        None => Ok((paths, Some(index))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_names_files_beside_it_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(INDEX);
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Index::read(&path)
        };
        for name in ["../elsewhere/x.safetensors", "/x.safetensors", "sub/x.safetensors", "..", "a\\\\b", ""] {
            let error = read(&format!(r#"{{"weight_map": {{"a": "{name}"}}}}"#)).unwrap_err();
            let said = error.to_string();
            assert!(error.exit_code() == 2 && said.contains("is no name of a weight file"), "{name}: {said}");
            assert!(said.contains(INDEX), "{said}");
        }
        let index = read(
            "\u{feff}{\"weight_map\": {\"a\": \"y.safetensors\", \"b\": \"x.safetensors\", \"c\": \"y.safetensors\"}}",
        );
        let index = index.unwrap();
        assert_eq!(index.shards(), ["x.safetensors", "y.safetensors"]);
        assert!(index.check("a", &dir.path().join("y.safetensors")).is_ok());
        let said = |tensor: &str| index.check(tensor, &dir.path().join("x.safetensors")).unwrap_err().to_string();
        assert!(said("a").contains("x.safetensors holds `a`") && said("a").contains("places in y.safetensors"));
        assert!(said("d").contains("model.safetensors.index.json does not name"), "{}", said("d"));
    }
}
