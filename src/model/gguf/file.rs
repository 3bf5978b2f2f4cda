//! A GGUF file, opened: its metadata by key, its tensors by name.

use crate::error::catch_panic;
use crate::io::{files, hex};
use crate::{Error, Result};
use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::{Content, Value};
use candle_core::{DType, Device};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// Stored types that are read. Of them, candle dequantises all but the first three.
const TYPES: [(GgmlDType, &str); 13] = [
    (GgmlDType::F32, "F32"),
    (GgmlDType::F16, "F16"),
    (GgmlDType::BF16, "BF16"),
    (GgmlDType::Q4_0, "Q4_0"),
    (GgmlDType::Q4_1, "Q4_1"),
    (GgmlDType::Q5_0, "Q5_0"),
    (GgmlDType::Q5_1, "Q5_1"),
    (GgmlDType::Q8_0, "Q8_0"),
    (GgmlDType::Q2K, "Q2_K"),
    (GgmlDType::Q3K, "Q3_K"),
    (GgmlDType::Q4K, "Q4_K"),
    (GgmlDType::Q5K, "Q5_K"),
    (GgmlDType::Q6K, "Q6_K"),
];

/// An opened file.
pub struct GgufFile {
    path: PathBuf,
    content: Content,
}

impl GgufFile {
    /// Read the header: metadata, and where each tensor lies.
    ///
    /// # Errors
    /// An input error that names the file: it is none of the kind, or is cut off, or has a tensor of a type that is not read.
    pub fn open(path: &Path) -> Result<Self> {
        let bad = |why: String| Error::input(format!("{}: {why}", path.display()));
        let file = files::open_regular(path).map_err(|e| bad(format!("cannot be opened: {e}")))?;
        let length = file.metadata().map_err(|e| bad(format!("cannot be read: {e}")))?.len();
        let mut reader = BufReader::new(file);
        let content = catch_panic(|| Content::read(&mut reader)).and_then(|read| read.map_err(|e| one_line(&e)));
        let content = content.map_err(|why| {
            bad(format!(
                "is no GGUF file that can be read, or is cut off ({why}); tensors may be stored as {}",
                known()
            ))
        })?;
        for (name, info) in &content.tensor_infos {
            if type_name(info.ggml_dtype).is_none() {
                let kind = info.ggml_dtype;
                return Err(bad(format!("`{name}` is stored as {kind:?}, which is not read; {} are", known())));
            }
            let elements = info.shape.dims().iter().try_fold(1usize, |all, n| all.checked_mul(*n));
            let blocks = elements.map(|n| n.div_ceil(info.ggml_dtype.block_size()));
            let bytes = blocks.and_then(|n| n.checked_mul(info.ggml_dtype.type_size()));
            let end =
                bytes.and_then(|bytes| content.tensor_data_offset.checked_add(info.offset)?.checked_add(bytes as u64));
            if end.is_none_or(|end| end > length) {
                return Err(bad(format!(
                    "is cut off: `{name}` {:?} lies beyond its {length} bytes",
                    info.shape.dims()
                )));
            }
        }
        Ok(GgufFile { path: path.to_path_buf(), content })
    }

    /// SHA-256 of the file.
    pub fn sha256(&self) -> Result<String> {
        let fail = |e: std::io::Error| Error::failed(format!("cannot read {}: {e}", self.path.display()));
        let (mut hash, mut file, mut chunk) =
            (Sha256::new(), files::open_regular(&self.path).map_err(fail)?, vec![0; 1 << 20]);
        loop {
            match file.read(&mut chunk).map_err(fail)? {
                0 => return Ok(hex(&hash.finalize())),
                read => hash.update(&chunk[..read]),
            }
        }
    }

    /// Number of tensors of each type.
    pub fn types(&self) -> BTreeMap<String, usize> {
        let mut types = BTreeMap::new();
        for info in self.content.tensor_infos.values() {
            *types.entry(type_name(info.ggml_dtype).unwrap_or("?").to_string()).or_default() += 1;
        }
        types
    }

    /// Names of the tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.content.tensor_infos.keys().map(String::as_str)
    }

    /// Shape of a tensor, `[out, in]` for a matrix.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.content.tensor_infos.get(name).map(|info| info.shape.dims())
    }

    /// The numbers of a tensor.
    ///
    /// # Errors
    /// An input error that names it, where it cannot be read.
    pub fn values(&self, name: &str) -> Result<Vec<f32>> {
        let fail = |why: String| Error::input(format!("`{name}` cannot be read: {why}"));
        let file = files::open_regular(&self.path).map_err(|e| fail(e.to_string()))?;
        let read = || -> candle_core::Result<Vec<f32>> {
            let tensor = self.content.tensor(&mut BufReader::new(file), name, &Device::Cpu)?;
            tensor.dequantize(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
        };
        catch_panic(read).and_then(|read| read.map_err(|e| one_line(&e))).map_err(fail)
    }

    /// A text of the metadata.
    pub fn string(&self, key: &str) -> Result<Option<String>> {
        match self.content.metadata.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => Err(wrong(key, "a text", other)),
        }
    }

    /// A whole number.
    pub fn count(&self, key: &str) -> Result<Option<usize>> {
        self.content
            .metadata
            .get(key)
            .map(|value| whole(value).ok_or_else(|| wrong(key, "a whole number", value)))
            .transpose()
    }

    /// As [`GgufFile::count`].
    ///
    /// # Errors
    /// An input error if it is missing.
    pub fn required(&self, key: &str) -> Result<usize> {
        self.count(key)?.ok_or_else(|| Error::input(format!("the metadata lack `{key}`")))
    }

    /// A number. One in f32 is the shortest decimal number that it can stand for.
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        match self.content.metadata.get(key) {
            None => Ok(None),
            Some(Value::F64(x)) => Ok(Some(*x)),
            Some(Value::F32(x)) => Ok(x.to_string().parse().ok()),
            Some(other) => match whole(other) {
                Some(n) => Ok(Some(n as f64)),
                None => Err(wrong(key, "a number", other)),
            },
        }
    }

    /// A list of texts.
    pub fn strings(&self, key: &str) -> Result<Option<Vec<&str>>> {
        self.list(key, "a list of texts", |value| match value {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// A list of whole numbers.
    pub fn counts(&self, key: &str) -> Result<Option<Vec<usize>>> {
        self.list(key, "a list of whole numbers", whole)
    }

    fn list<'a, T>(&'a self, key: &str, expected: &str, of: impl Fn(&'a Value) -> Option<T>) -> Result<Option<Vec<T>>> {
        match self.content.metadata.get(key) {
            None => Ok(None),
            Some(Value::Array(items)) => {
                let read = items.iter().map(|item| of(item).ok_or_else(|| wrong(key, expected, item)));
                read.collect::<Result<_>>().map(Some)
            }
            Some(other) => Err(wrong(key, expected, other)),
        }
    }
}

fn type_name(dtype: GgmlDType) -> Option<&'static str> {
    TYPES.iter().find(|(known, _)| *known == dtype).map(|(_, name)| *name)
}

fn known() -> String {
    TYPES.map(|(_, name)| name).join(", ")
}

fn whole(value: &Value) -> Option<usize> {
    let number = match value {
        Value::U8(n) => u64::from(*n),
        Value::U16(n) => u64::from(*n),
        Value::U32(n) => u64::from(*n),
        Value::U64(n) => *n,
        Value::I8(n) => u64::try_from(*n).ok()?,
        Value::I16(n) => u64::try_from(*n).ok()?,
        Value::I32(n) => u64::try_from(*n).ok()?,
        Value::I64(n) => u64::try_from(*n).ok()?,
        _ => return None,
    };
    usize::try_from(number).ok()
}

fn wrong(key: &str, expected: &str, found: &Value) -> Error {
    Error::input(format!("`{key}` of the metadata must be {expected}, not of type {:?}", found.value_type()))
}

/// The first line of an error of the library, which may go on with a backtrace.
fn one_line(error: &candle_core::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_string()
}
