//! Reading and writing files so that an error names the file and a reader never sees half of one.

use crate::{Error, Result};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Read a whole file. A missing or unreadable file is an input error that names it.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|e| Error::input(format!("cannot read {}: {e}", path.display())))
}

/// Read a whole UTF-8 file; a non-UTF-8 byte is reported with its offset.
pub fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read(path)?).map_err(|e| {
        Error::input(format!("{} is not UTF-8: bad byte at offset {}", path.display(), e.utf8_error().valid_up_to()))
    })
}

/// Read and parse a JSON file; a parse error names file, line and column.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    serde_json::from_str(&read_text(path)?).map_err(|e| Error::input(format!("{}: {e}", path.display())))
}

/// Create a directory and its parents.
pub fn create_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|e| Error::failed(format!("cannot create directory {}: {e}", path.display())))
}

/// Write a file whole or not at all: temporary name in the same directory, sync, rename.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomic_with(path, |f| f.write_all(bytes))
}

/// As [`write_atomic`], with the content written by `fill` (for files too large to hold twice).
pub fn write_atomic_with(path: &Path, fill: impl FnOnce(&mut File) -> std::io::Result<()>) -> Result<()> {
    let fail = |e: std::io::Error| Error::failed(format!("cannot write {}: {e}", path.display()));
    let temporary = temporary_name(path);
    let mut file = File::create(&temporary).map_err(fail)?;
    let written = fill(&mut file).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(fail)?;
    if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty())
        && let Ok(dir) = File::open(dir)
    {
        // A directory that cannot be synced (some file systems) does not make the file itself wrong.
        let _ = dir.sync_all();
    }
    Ok(())
}

/// As [`write_atomic`], with the whole file written by `fill` under the temporary name it is given.
pub fn replace(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let temporary = temporary_name(path);
    let written = fill(&temporary).and_then(|()| {
        let fail = |e: std::io::Error| Error::failed(format!("cannot write {}: {e}", path.display()));
        File::open(&temporary).and_then(|f| f.sync_all()).and_then(|()| fs::rename(&temporary, path)).map_err(fail)
    });
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Write a value as indented JSON, whole or not at all.
pub fn write_json<T: serde::Serialize + ?Sized>(path: &Path, value: &T) -> Result<()> {
    let mut text =
        serde_json::to_string_pretty(value).map_err(|e| Error::failed(format!("{}: {e}", path.display())))?;
    text.push('\n');
    write_atomic(path, text.as_bytes())
}

fn temporary_name(path: &Path) -> PathBuf {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    path.with_file_name(format!(".{name}.{}.tmp", std::process::id()))
}
