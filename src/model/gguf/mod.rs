//! GGUF files (llama.cpp's) of Llama, Qwen2 and Qwen3 as checkpoint directories: weights dequantised by candle's readers, configuration and
//! tokenizer from the file's metadata.
//!
//! `gguf.json` beside the weights says where they are from and how they were quantised. It goes with every model that is trained from them.

mod config;
mod file;
mod tensors;
mod tokenizer;

use crate::Result;
use crate::io::files;
use crate::model::convert_dtype::declare;
use crate::model::new_checkpoint::{NewCheckpoint, Written, check_output};
use crate::model::weight_dtype::WeightDtype;
use file::GgufFile;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use tensors::Tensors;

/// The file that says where the weights of a directory are from.
pub const ORIGIN: &str = "gguf.json";

/// Where the weights of an imported checkpoint are from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// Name of the GGUF file.
    pub file: String,
    /// SHA-256 of the file, in hex.
    pub sha256: String,
    /// What the file calls the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The licence that the file names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// Tensors by the type that they were stored in, such as `Q4_1`.
    pub stored: BTreeMap<String, usize>,
}

impl Origin {
    /// What a checkpoint directory says of itself, if it was imported.
    pub fn of(dir: &Path) -> Result<Option<Origin>> {
        let path = dir.join(ORIGIN);
        if path.is_file() { files::read_json(&path).map(Some) } else { Ok(None) }
    }

    /// A line for people.
    pub fn describe(&self) -> String {
        let types: Vec<String> = self.stored.iter().map(|(dtype, count)| format!("{count} {dtype}")).collect();
        format!("from {}, whose tensors were stored as {}", self.file, types.join(", "))
    }
}

/// Write the model of the GGUF file `from` as a checkpoint to `to`, which must be new or empty, or with `overwrite` a checkpoint; weights in
/// `dtype`. One tensor is held at a time.
///
/// # Errors
/// An input error that names the file and the fault: it is cut off, of another architecture, has a quantisation or a tokenizer of an unknown
/// kind, or tensors that contradict its metadata; and those of [`NewCheckpoint::write`].
pub fn import(from: &Path, to: &Path, dtype: WeightDtype, overwrite: bool) -> Result<(Origin, Written)> {
    check_output(to)?;
    let name = || from.display().to_string();
    let file = GgufFile::open(from)?;
    let architecture = config::architecture(&file).map_err(|e| e.context(name()))?;
    let mut beside = tokenizer::files(&file).map_err(|e| e.context(name()))?;
    let shapes = architecture.parameter_shapes();
    let tensors = Tensors::new(&file, architecture.as_ref(), &shapes).map_err(|e| e.context(name()))?;
    let origin = Origin {
        file: from.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        sha256: file.sha256()?,
        name: file.string("general.name")?,
        license: file.string("general.license")?,
        stored: file.types(),
    };
    beside.push((ORIGIN.to_string(), files::to_json(&origin)?));
    let mut config = architecture.to_json();
    declare(&mut config, dtype.name());
    let make = |i: usize| tensors.values(i).map_err(|e| e.context(name()));
    let from = name();
    let or = "give --overwrite to replace it";
    let new = NewCheckpoint { from: &from, beside, config, shapes: &shapes, dtype, or, make: &make };
    Ok((origin, new.write(to, overwrite)?))
}
