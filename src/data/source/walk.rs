//! The image files of a folder and the folders below it.

use crate::data::Skipped;
use crate::{Error, Result};
use std::path::{Path, PathBuf};
use walkdir::{DirEntry, WalkDir};

/// Extensions of supported image files.
const SUPPORTED_EXTENSIONS: [&str; 4] = ["jpg", "jpeg", "png", "webp"];
/// Extensions of image files that are reported as unsupported; all other files are ignored.
const UNSUPPORTED_EXTENSIONS: [&str; 10] = ["gif", "bmp", "tif", "tiff", "heic", "heif", "avif", "jxl", "jp2", "ico"];

/// An image file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Where it is.
    pub path: PathBuf,
    /// Path relative to the folder that was walked, with `/` between its parts.
    pub name: String,
}

/// All JPEG, PNG and WebP files (by extension) in `dir` and below, sorted by name, and the skipped files with reasons. Follows symbolic
/// links but not loops; ignores hidden files and folders.
pub fn walk(dir: &Path) -> Result<(Vec<SourceFile>, Vec<Skipped>)> {
    if !dir.is_dir() {
        return Err(Error::input(format!(
            "no images folder at {}: name a folder of JPEG, PNG or WebP files with --images",
            dir.display()
        )));
    }
    let name = |path: &Path| {
        let relative = path.strip_prefix(dir).unwrap_or(path);
        let parts: Vec<_> = relative.iter().map(|part| part.to_string_lossy()).collect();
        parts.join("/")
    };
    let hidden = |e: &DirEntry| e.depth() > 0 && e.file_name().to_string_lossy().starts_with('.');
    let (mut found, mut skipped) = (Vec::new(), Vec::new());
    for entry in WalkDir::new(dir).follow_links(true).into_iter().filter_entry(|e| !hidden(e)) {
        let entry = match entry {
            Ok(entry) => entry,
            Err(e) => {
                let reason = match (e.loop_ancestor(), e.io_error()) {
                    (Some(_), _) => "symbolic link to a folder above it".to_owned(),
                    (None, Some(io)) => io.to_string(),
                    (None, None) => e.to_string(),
                };
                skipped.push(Skipped { file: e.path().map(name).unwrap_or_default(), reason });
                continue;
            }
        };
        let file = name(entry.path());
        let ending = entry.path().extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
        let wanted = SUPPORTED_EXTENSIONS.contains(&ending.as_str());
        if entry.file_type().is_dir() {
            continue;
        } else if wanted && !entry.file_type().is_file() {
            skipped.push(Skipped { file, reason: "not a regular file".into() });
        } else if wanted {
            found.push(SourceFile { name: file, path: entry.into_path() });
        } else if UNSUPPORTED_EXTENSIONS.contains(&ending.as_str()) {
            skipped.push(Skipped { file, reason: format!("{ending} file; only JPEG, PNG and WebP are read") });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name).then_with(|| a.path.cmp(&b.path)));
    skipped.sort_by(|a, b| a.file.cmp(&b.file));
    Ok((found, skipped))
}
