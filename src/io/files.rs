//! Reading and writing files: errors name the file, and a reader never sees half of one.

use crate::{Error, Result};
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Locked while a process works in a directory. The file is hidden, so that [`has_other_files`] ignores it, and is not removed.
pub const LOCK: &str = ".lock";

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

/// Read a JSON file that names its format in a field `format_version`.
///
/// # Errors
/// An input error that ends with `what_to_do`, if the file cannot be read or has another version than `version`.
pub fn read_versioned<T: serde::de::DeserializeOwned>(path: &Path, version: u32, what_to_do: &str) -> Result<T> {
    #[derive(serde::Deserialize)]
    struct Versioned {
        format_version: u32,
    }
    let broken = |e: Error| Error::input(format!("{e}; {what_to_do}"));
    let Versioned { format_version: found } = read_json(path).map_err(broken)?;
    if found != version {
        return Err(Error::input(format!(
            "{} has format version {found}, this program reads {version}; {what_to_do}",
            path.display()
        )));
    }
    read_json(path).map_err(broken)
}

/// An input error unless `path` is a directory; `what` names what should be there.
pub fn require_dir(path: &Path, what: &str) -> Result<()> {
    let why = match path {
        _ if path.is_dir() => return Ok(()),
        _ if path.exists() => "that is a file; a directory is needed",
        _ => "there is no such directory",
    };
    Err(Error::input(format!("no {what} at {}: {why}", path.display())))
}

/// Create a directory and its parents. A file in its place is an input error.
pub fn create_dir(path: &Path) -> Result<()> {
    if path.is_file() {
        return Err(Error::input(format!("cannot write to {}: that is a file; a directory is needed", path.display())));
    }
    fs::create_dir_all(path).map_err(|e| Error::failed(format!("cannot create directory {}: {e}", path.display())))
}

/// Remove a file or a directory with its content, if it is there.
///
/// # Errors
/// A failure that names it.
pub fn remove_if_exists(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::failed(format!("cannot remove {}: {e}", path.display())))
        }
        _ => Ok(()),
    }
}

/// Keep other processes out of a directory until the returned file is closed. `doing` says for the message what is done there.
///
/// # Errors
/// An input error if another process has the directory; a failure if the file [`LOCK`] cannot be written.
pub fn lock(dir: &Path, doing: &str) -> Result<File> {
    lock_with(dir, LOCK, doing)
}

/// As [`lock`], by the file `name` in the directory.
pub fn lock_with(dir: &Path, name: &str, doing: &str) -> Result<File> {
    let path = dir.join(name);
    let file = File::create(&path).map_err(|e| Error::failed(format!("cannot write {}: {e}", path.display())))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(Error::input(format!(
            "another process is {doing} in {}; wait for it or give another --out",
            dir.display()
        ))),
        // The command continues without a lock on a file system that has none.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(file),
    }
}

/// Whether `path`, which need not exist, is in the directory `dir` or is that directory. Links are followed.
pub fn is_inside(path: &Path, dir: &Path) -> bool {
    let absolute = std::path::absolute(path).ok();
    let existing = absolute.iter().flat_map(|p| p.ancestors()).find_map(|p| p.canonicalize().ok());
    dir.canonicalize().is_ok_and(|dir| existing.is_some_and(|p| p.starts_with(dir)))
}

/// Whether the directory holds files other than those with an `own` name. Hidden files do not count; a missing directory holds none.
pub fn has_other_files(dir: &Path, own: impl Fn(&str) -> bool) -> bool {
    let foreign = |name: &str| !name.starts_with('.') && !own(name);
    fs::read_dir(dir).is_ok_and(|mut d| d.any(|e| e.is_ok_and(|e| foreign(&e.file_name().to_string_lossy()))))
}

/// Marks a directory whose content is not complete yet.
pub const UNFINISHED: &str = ".jigsaw-unfinished";

/// An output directory that this process is filling.
pub struct OutputDir {
    marker: PathBuf,
    _lock: File,
}

/// An input error if [`create_output_dir`] would refuse `dir`. Nothing is changed.
pub fn check_output_dir(dir: &Path, overwrite: bool, mark: &str) -> Result<()> {
    let replaceable = dir.join(mark).is_file();
    if dir.join(UNFINISHED).exists() || overwrite && replaceable || !has_other_files(dir, |_| false) {
        return Ok(());
    }
    let or = if replaceable { ", or --overwrite to replace what is there" } else { "" };
    Err(Error::input(format!("{} is not empty; choose another --out{or}", dir.display())))
}

/// Create an output directory, or empty it. It must be new, empty, or left behind by an interrupted call. With `overwrite` it may also hold
/// plain files with `mark` among them.
///
/// # Errors
/// An input error if it holds something else, or another process writes to it; a failure to write.
pub fn create_output_dir(dir: &Path, overwrite: bool, mark: &str) -> Result<OutputDir> {
    check_output_dir(dir, overwrite, mark)?;
    let here = dir.display();
    let marker = dir.join(UNFINISHED);
    let begun = marker.exists();
    create_dir(dir)?;
    let lock = lock_with(dir, UNFINISHED, "writing")?;
    let failed = |e: std::io::Error| Error::failed(format!("cannot write to {here}: {e}"));
    let entries = fs::read_dir(dir).and_then(|entries| entries.collect::<std::io::Result<Vec<_>>>()).map_err(failed)?;
    let old: Vec<PathBuf> = entries.iter().map(|entry| entry.path()).filter(|path| *path != marker).collect();
    if let Some(inside) = old.iter().find(|path| path.is_dir()) {
        if !begun {
            fs::remove_file(&marker).map_err(failed)?;
        }
        return Err(Error::input(format!(
            "{here} holds the directory {}, which is no part of what is made here; choose another --out",
            inside.file_name().unwrap_or_default().to_string_lossy()
        )));
    }
    old.iter().try_for_each(fs::remove_file).map_err(failed)?;
    Ok(OutputDir { marker, _lock: lock })
}

impl OutputDir {
    /// The content is complete.
    ///
    /// # Errors
    /// A failure to write.
    pub fn finish(self) -> Result<()> {
        let failed = |e| Error::failed(format!("cannot remove {}: {e}", self.marker.display()));
        fs::remove_file(&self.marker).map_err(failed)
    }
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

/// Length and checksum of a file as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChecksum {
    /// The file.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// CRC-32 of its content.
    pub crc32: u32,
}

/// As [`write_atomic_with`], with a checksum of the bytes written.
pub fn write_with_checksum(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<FileChecksum> {
    let mut sum = (0, crc32fast::Hasher::new());
    write_atomic_with(path, |file| fill(&mut ChecksumWriter { file, sum: &mut sum }))?;
    let (bytes, hasher) = sum;
    Ok(FileChecksum { path: path.to_owned(), bytes, crc32: hasher.finalize() })
}

/// A file with the length and checksum of what is written to it.
struct ChecksumWriter<'a> {
    file: &'a mut File,
    sum: &'a mut (u64, crc32fast::Hasher),
}

impl Write for ChecksumWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.sum.0 += written as u64;
        self.sum.1.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// Write a value as indented JSON, whole or not at all.
pub fn write_json<T: serde::Serialize + ?Sized>(path: &Path, value: &T) -> Result<()> {
    let mut text =
        serde_json::to_string_pretty(value).map_err(|e| Error::failed(format!("{}: {e}", path.display())))?;
    text.push('\n');
    write_atomic(path, text.as_bytes())
}

/// Free bytes on the disk of `path`, which need not exist yet; `None` where the system does not say.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let absolute = std::path::absolute(path).ok()?;
    let existing = absolute.ancestors().find(|p| p.exists())?;
    #[cfg(unix)]
    return rustix::fs::statvfs(existing).ok().map(|found| found.f_bavail * found.f_frsize);
    #[cfg(not(unix))]
    return None;
}

/// `1.2 GB`, `340 MB`.
pub fn format_bytes(bytes: usize) -> String {
    match bytes as f64 / 1e6 {
        mb if mb >= 1000.0 => format!("{:.2} GB", mb / 1000.0),
        mb => format!("{mb:.0} MB"),
    }
}

fn temporary_name(path: &Path) -> PathBuf {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    path.with_file_name(format!(".{name}.{}.tmp", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_refused_until_the_first_has_finished() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock(dir.path(), "sampling").unwrap();
        let error = lock(dir.path(), "sampling").unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let said = format!("another process is sampling in {}; wait for it", dir.path().display());
        assert!(error.to_string().starts_with(&said), "{error}");
        assert!(!has_other_files(dir.path(), |_| false));
        drop(held);
        lock(dir.path(), "sampling").unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn written_files_have_normal_permissions_and_leave_no_temporary_file() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("any"), "x").unwrap();
        write_atomic(&path("text"), b"x").unwrap();
        let written =
            write_with_checksum(&path("sum"), |f| f.write_all(b"xy").and_then(|()| f.write_all(b"z"))).unwrap();
        assert_eq!((written.bytes, written.crc32), (3, crc32fast::hash(b"xyz")));
        assert_eq!((fs::read(&written.path).unwrap().as_slice(), &*written.path), (&b"xyz"[..], &*path("sum")));
        let mode = |name: &str| fs::metadata(path(name)).unwrap().permissions().mode();
        assert_eq!((mode("text"), mode("sum")), (mode("any"), mode("any")));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }
}
