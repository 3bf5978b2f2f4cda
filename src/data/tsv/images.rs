//! The images of a TSV file: checked while the file is read, read again when their pixels are needed.

use super::list::{brief, list};
use super::parser::Parser;
use crate::data::source::{self, MAX_FILE_BYTES};
use crate::io::files;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_PAD_INDIFFERENT as BASE64;
use sha2::{Digest as _, Sha256};
use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// A field of at most this many characters is another row's index: no image is that short in base64 (VLMEvalKit's limit).
const MAX_REFERENCE_CHARS: usize = 64;

/// An image of the file: where it is and what was learnt when it was checked.
#[derive(Debug)]
pub(super) struct TsvImage {
    origin: ImageSource,
    /// Width and height in pixels, after orientation.
    pub size: (u32, u32),
    /// SHA-256 of the encoded image.
    pub digest: [u8; 32],
    /// Line of the row that holds it.
    pub line: u64,
}

#[derive(Debug)]
enum ImageSource {
    /// In the `image` field of the row at this offset, as an item of its list if it has one.
    Field {
        offset: u64,
        item: Option<usize>,
    },
    File(PathBuf),
    /// The encoded image, for files that have no offset to read it from again.
    #[cfg(feature = "parquet")]
    Held(Vec<u8>),
}

/// One entry of a row's `image` field.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ImageRef {
    /// Index into the images found so far.
    Image(usize),
    /// Those of the row with this index.
    Row(String),
}

/// Collects the images of a file while it is read.
#[derive(Debug)]
pub(super) struct ImageCollector {
    /// The directory that paths are relative to.
    dir: PathBuf,
    pub found: Vec<TsvImage>,
    files: HashMap<PathBuf, usize>,
}

impl ImageCollector {
    pub fn new(dir: &Path) -> Self {
        ImageCollector { dir: dir.to_path_buf(), found: Vec::new(), files: HashMap::new() }
    }

    /// The entries of an `image` field that is not blank, of the row at `offset` and `line`.
    pub fn field(&mut self, field: &[u8], offset: u64, line: u64) -> Result<Vec<ImageRef>, String> {
        let field = field.trim_ascii();
        if !field.starts_with(b"[") {
            return Ok(vec![self.entry(field, ImageSource::Field { offset, item: None }, line)?]);
        }
        let mut entries = Vec::new();
        for (i, item) in items(field)?.iter().enumerate() {
            let origin = ImageSource::Field { offset, item: Some(i) };
            entries.push(self.entry(item.as_bytes(), origin, line).map_err(|why| format!("item {}: {why}", i + 1))?);
        }
        Ok(entries)
    }

    fn entry(&mut self, text: &[u8], origin: ImageSource, line: u64) -> Result<ImageRef, String> {
        let text = text.trim_ascii();
        if text.is_empty() {
            return Err("is empty".into());
        }
        if text.len() <= MAX_REFERENCE_CHARS {
            return Ok(ImageRef::Row(String::from_utf8_lossy(text).into_owned()));
        }
        let bytes = decode_base64(text)?;
        self.add(&bytes, origin, line).map(ImageRef::Image)
    }

    /// The images of an `image_path` field: a path or a list of them.
    pub fn paths(&mut self, field: &str, line: u64) -> Result<Vec<ImageRef>, String> {
        let paths = list(field)?.unwrap_or_else(|| vec![field.trim().to_string()]);
        let mut entries = Vec::new();
        for path in paths {
            let path = self.dir.join(path);
            let known = self.files.get(&path).copied();
            let image = match known {
                Some(image) => image,
                None => {
                    let named = |why: String| format!("{}: {why}", path.display());
                    let bytes = source::read(&path).map_err(named)?;
                    let image = self.add(&bytes, ImageSource::File(path.clone()), line).map_err(named)?;
                    self.files.insert(path, image);
                    image
                }
            };
            entries.push(ImageRef::Image(image));
        }
        Ok(entries)
    }

    /// An image that is given as it is encoded, and held.
    #[cfg(feature = "parquet")]
    pub fn held(&mut self, bytes: &[u8], line: u64) -> Result<ImageRef, String> {
        self.add(bytes, ImageSource::Held(bytes.to_vec()), line).map(ImageRef::Image)
    }

    /// A text in place of an image: base64, or another row's index.
    #[cfg(feature = "parquet")]
    pub fn text(&mut self, text: &str, line: u64) -> Result<ImageRef, String> {
        match text.trim() {
            text if text.len() <= MAX_REFERENCE_CHARS => Ok(ImageRef::Row(text.to_string())),
            text => self.held(&decode_base64(text.as_bytes())?, line),
        }
    }

    fn add(&mut self, bytes: &[u8], origin: ImageSource, line: u64) -> Result<usize, String> {
        let size = source::probe(bytes)?;
        if !is_complete(bytes) {
            return Err("truncated".into());
        }
        self.found.push(TsvImage { origin, size, digest: Sha256::digest(bytes).into(), line });
        Ok(self.found.len() - 1)
    }
}

impl TsvImage {
    /// The encoded image again, from the file it is in; `column` is that of `image`.
    pub fn bytes(&self, tsv: &Path, column: Option<usize>) -> Result<Vec<u8>, String> {
        let (offset, item) = match &self.origin {
            ImageSource::File(path) => return source::read(path).map_err(|why| format!("{}: {why}", path.display())),
            ImageSource::Field { offset, item } => (*offset, *item),
            #[cfg(feature = "parquet")]
            ImageSource::Held(bytes) => return Ok(bytes.clone()),
        };
        let unreadable = |e: std::io::Error| format!("cannot be read: {e}");
        let mut file = files::open_regular(tsv).map_err(unreadable)?;
        file.seek(SeekFrom::Start(offset)).map_err(unreadable)?;
        let mut parser = Parser::new(file);
        let record = parser.read().map_err(|(_, why)| why)?;
        let field = record.and_then(|(record, _)| record.get(column?)).ok_or("the file is shorter than it was")?;
        let field = field.trim_ascii();
        match item {
            None => decode_base64(field),
            Some(i) => decode_base64(items(field)?.get(i).ok_or("the list is shorter than it was")?.trim().as_bytes()),
        }
    }
}

/// Whether a PNG has its last chunk and a WebP the length it says (of a JPEG, the header's reader looks for the end).
pub(in crate::data) fn is_complete(bytes: &[u8]) -> bool {
    const PNG: usize = 8; // bytes of the signature
    let word = |at: usize| bytes.get(at..at + 4).and_then(|word| <[u8; 4]>::try_from(word).ok());
    if bytes.starts_with(b"RIFF") {
        return word(4).is_some_and(|length| u32::from_le_bytes(length) as usize <= bytes.len() - 8);
    }
    if !bytes.starts_with(b"\x89PNG") {
        return true;
    }
    let mut at = PNG;
    loop {
        // Length, type, data, checksum.
        let (Some(length), Some(kind)) = (word(at), word(at + 4)) else { return false };
        at += 12 + u32::from_be_bytes(length) as usize;
        if at > bytes.len() {
            return false;
        }
        if &kind == b"IEND" {
            return true;
        }
    }
}

/// The items of a field that begins as a list.
fn items(field: &[u8]) -> Result<Vec<String>, String> {
    let text = std::str::from_utf8(field).map_err(|_| "is not UTF-8")?;
    let items = list(text)?.ok_or_else(|| format!("`{}` is no list of images", brief(text)))?;
    if items.is_empty() { Err("is an empty list".into()) } else { Ok(items) }
}

/// Bytes of a base64 text, line breaks in it and the head of a data URL allowed.
pub(in crate::data) fn decode_base64(text: &[u8]) -> Result<Vec<u8>, String> {
    const URL: &[u8] = b"data:";
    let mut text = Cow::Borrowed(text);
    if text.starts_with(URL) {
        let comma = text.iter().position(|&b| b == b',').ok_or("is a data URL without data")?;
        text = Cow::Owned(text[comma + 1..].to_vec());
    }
    if text.iter().any(u8::is_ascii_whitespace) {
        text = Cow::Owned(text.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect());
    }
    if text.len() as u64 / 4 * 3 > MAX_FILE_BYTES {
        return Err(format!("is an image of more than {} MiB", MAX_FILE_BYTES >> 20));
    }
    BASE64.decode(&*text).map_err(|e| format!("is not base64: {e}"))
}
