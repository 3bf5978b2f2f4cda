//! The images of a conversation: paths, or base64 in the line.

use crate::data::stored_records::Embedded;
use crate::data::tsv::{brief, decode_base64, is_complete};
use crate::data::{Digest, source};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::path::Path;

/// Bytes of a path, at most: no system accepts longer ones.
const MAX_PATH_BYTES: usize = 4096;

/// The names of the images in a field: one or a list, each a path, a data URL, or `{"path": ..., "bytes": ...}` with the
/// bytes in base64. `record` is the place of their record in the file, `line 3` or `item 3`. The bytes go into
/// `embedded`.
pub(super) fn names(field: &Value, record: &str, embedded: &mut Embedded) -> Result<Vec<String>, String> {
    let one = std::slice::from_ref(field);
    let all: &[Value] = match field {
        Value::Null => &[],
        Value::Array(all) => all.as_slice(),
        _ => one,
    };
    let item = |(k, item)| name(item, record, k, embedded).map_err(|why: String| format!("item {}: {why}", k + 1));
    all.iter().enumerate().map(item).collect()
}

fn name(item: &Value, record: &str, k: usize, embedded: &mut Embedded) -> Result<String, String> {
    let text = |name: &str| item.get(name).filter(|value| !value.is_null());
    let (bytes, path) = match item {
        Value::String(text) if text.starts_with("data:") => (Some(text.as_str()), None),
        Value::String(path) => (None, Some(path.as_str())),
        Value::Object(_) => {
            let string = |name: &str| match text(name) {
                None => Ok(None),
                Some(Value::String(text)) => Ok(Some(text.as_str())),
                Some(_) => Err(format!("`{name}` is not a string")),
            };
            (string("bytes")?, string("path")?)
        }
        _ => return Err("is neither a path nor an object with `path` or `bytes`".into()),
    };
    match (bytes, path) {
        (Some(base64), _) => {
            // A path relative to the file never looks like this.
            let name = format!("{record}/image {}", k + 1);
            embedded.insert(name.clone(), decode_base64(base64.as_bytes())?);
            Ok(name)
        }
        (None, Some(path)) if path.starts_with("http://") || path.starts_with("https://") => {
            Err(format!("`{path}` is a URL; download the images and name their paths"))
        }
        (None, Some(path)) if !path.is_empty() => Ok(path.to_string()),
        _ => Err("has neither a path nor bytes".into()),
    }
}

/// SHA-256, width and height of the image of this name, or why it cannot be used.
pub(super) fn check_image(root: &Path, name: &str, embedded: &Embedded) -> Result<(Digest, (u32, u32)), String> {
    let check = |bytes: &[u8]| {
        let size = source::probe(bytes)?;
        if is_complete(bytes) { Ok((Sha256::digest(bytes).into(), size)) } else { Err("truncated".to_string()) }
    };
    match embedded.get(name) {
        Some(bytes) => check(bytes).map_err(|why| format!("{name}: {why}")),
        None => {
            let path = root.join(name);
            if !path.is_file() {
                return Err(match name {
                    _ if is_base64(name) => format!(
                        "there is no file `{}`, which looks like an image in base64; write that as `data:image/png;base64,...`",
                        brief(name)
                    ),
                    _ if name.len() > MAX_PATH_BYTES => format!("there is no file `{}`", brief(name)),
                    _ => format!("there is no file {}", path.display()),
                });
            }
            let named = |why: String| format!("{}: {why}", path.display());
            check(&source::read(&path).map_err(named)?).map_err(named)
        }
    }
}

/// Whether a text begins like a base64-encoded image.
fn is_base64(text: &str) -> bool {
    // A multiple of four, long enough for what images begin with.
    const LOOKED_AT: usize = 64;
    let bytes = text.as_bytes();
    decode_base64(&bytes[..bytes.len().min(LOOKED_AT)]).is_ok_and(|bytes| image::guess_format(&bytes).is_ok())
}
