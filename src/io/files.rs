//! Reading and writing files: errors name the file, and a reader never sees half of one.

use crate::io::lock;
use crate::io::plain::json_fault;
use crate::{Error, Result};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Times that a temporary file is asked for which another process is looking at, with [`PAUSE`] between them.
const ATTEMPTS: usize = 1000;
const PAUSE: Duration = Duration::from_millis(1);

/// Open a regular file for reading. A link to one is followed. Anything else (a directory, a named pipe, a device, a socket) is refused before
/// it is opened, because reading it may wait for ever or never end.
///
/// # Errors
/// Why it cannot be opened, without its name.
pub fn open_regular(path: &Path) -> std::io::Result<File> {
    let found = fs::metadata(path)?;
    if !found.is_file() {
        return Err(std::io::Error::other(format!("it is {}; a regular file is needed", kind(found.file_type()))));
    }
    File::open(path)
}

/// As [`open_regular`], with an input error that names the file.
pub fn open(path: &Path) -> Result<File> {
    open_regular(path).map_err(|e| unreadable(path, &e))
}

fn unreadable(path: &Path, why: &std::io::Error) -> Error {
    match why.kind() {
        std::io::ErrorKind::NotFound => Error::input(format!("cannot read {}: there is no such file", path.display())),
        _ => Error::input(format!("cannot read {}: {why}", path.display())),
    }
}

/// What is no regular file, in words.
fn kind(found: fs::FileType) -> &'static str {
    if found.is_dir() {
        return "a directory";
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if found.is_fifo() {
            return "a pipe";
        } else if found.is_socket() {
            return "a socket";
        }
    }
    "a device"
}

/// Read a whole file. A file that is missing, unreadable or not a regular one is an input error that names it.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = open_regular(path).and_then(|mut file| file.read_to_end(&mut bytes));
    read.map_err(|e| unreadable(path, &e))?;
    Ok(bytes)
}

/// Read a whole UTF-8 file; a non-UTF-8 byte is reported with its offset.
pub fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read(path)?).map_err(|e| {
        Error::input(format!("{} is not UTF-8: bad byte at offset {}", path.display(), e.utf8_error().valid_up_to()))
    })
}

/// Read and parse a JSON file; a parse error names file, line and column.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = read_text(path)?;
    serde_json::from_str(&text).map_err(|e| Error::input(format!("{}: {}", path.display(), json_fault(&e))))
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
        _ if path.is_file() => "that is a file; a directory is needed",
        _ if path.exists() => "that is neither a file nor a directory",
        _ => "there is no such directory",
    };
    Err(Error::input(format!("no {what} at {}: {why}", path.display())))
}

/// Create a directory and its parents. A file in its place is an input error.
pub fn create_dir(path: &Path) -> Result<()> {
    if path.exists() && !path.is_dir() {
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

/// A path from the root of the file system, or the path itself where there is no working directory.
pub fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
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

/// Write a file whole or not at all: temporary name in the same directory, sync, rename.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomic_with(path, |f| f.write_all(bytes))
}

/// As [`write_atomic`], unless the file holds these bytes already: then those who read it are not disturbed.
pub fn write_changed(path: &Path, bytes: &[u8]) -> Result<()> {
    if holds(path, |file| file.write_all(bytes)).unwrap_or(false) { Ok(()) } else { write_atomic(path, bytes) }
}

/// As [`write_atomic`], with the content written by `fill` (for files too large to hold twice).
pub fn write_atomic_with(path: &Path, fill: impl FnOnce(&mut File) -> std::io::Result<()>) -> Result<()> {
    let fail = |e: std::io::Error| Error::failed(format!("cannot write {}: {e}", path.display()));
    if let Some(found) = fs::metadata(path).ok().filter(|found| !found.is_file()) {
        let what = kind(found.file_type());
        return Err(Error::input(format!("cannot write {}: it is {what}; name a file", path.display())));
    }
    let temporary = lock::temporary_name(path);
    let mut file = create_temporary(&temporary).map_err(fail)?;
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

/// An empty temporary file, locked: others can tell that its writer is there.
fn create_temporary(path: &Path) -> std::io::Result<File> {
    for _ in 0..ATTEMPTS {
        if let Some(file) = lock::open_locked(path)? {
            file.set_len(0)?;
            return Ok(file);
        }
        std::thread::sleep(PAUSE);
    }
    Err(std::io::Error::other(format!("another process is writing {}", path.display())))
}

/// Whether the file at `path` holds what `fill` would write there.
///
/// # Errors
/// An input error if it is there and cannot be read; what `fill` returns.
pub fn holds(path: &Path, fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<bool> {
    if !path.exists() {
        return Ok(false);
    }
    let mut comparison = Comparison { file: std::io::BufReader::new(open(path)?), differs: false };
    let fail = |e: std::io::Error| Error::failed(format!("cannot compare {}: {e}", path.display()));
    match fill(&mut comparison) {
        Err(e) if !comparison.differs => return Err(fail(e)),
        _ => {}
    }
    let rest = comparison.file.read(&mut [0]).map_err(fail)?;
    Ok(!comparison.differs && rest == 0)
}

/// A writer that compares what is written with a file, and fails where they differ.
struct Comparison {
    file: std::io::BufReader<File>,
    differs: bool,
}

impl Write for Comparison {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut found = vec![0; bytes.len().min(1 << 16)];
        let wanted = &bytes[..found.len()];
        self.differs |= self.file.read_exact(&mut found).is_err() || found != wanted;
        if self.differs { Err(std::io::Error::other("the content differs")) } else { Ok(wanted.len()) }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
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
    write_atomic(path, &to_json(value).map_err(|e| e.context(path.display()))?)
}

/// A value as indented JSON with a line break at its end.
pub fn to_json<T: serde::Serialize + ?Sized>(value: &T) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|e| Error::failed(format!("no JSON: {e}")))?;
    text.push(b'\n');
    Ok(text)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_compared_to_the_last_byte() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "abc").unwrap();
        let same = |text: &str| holds(&path, |out| text.chars().try_for_each(|c| write!(out, "{c}"))).unwrap();
        assert_eq!(["abc", "abd", "ab", "abcd", ""].map(same), [true, false, false, false, false]);
        assert!(!holds(&dir.path().join("none"), |_| Ok(())).unwrap());
        assert!(holds(&path, |_| Err(std::io::Error::other("failed"))).is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_no_regular_file_is_refused_by_name_before_it_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
        std::os::unix::fs::symlink("/dev/zero", at("link")).unwrap();
        for (path, said) in [
            (at("pipe"), "it is a pipe"),
            (at("link"), "it is a device"),
            (PathBuf::from("/dev/zero"), "it is a device"),
            (dir.path().to_path_buf(), "it is a directory"),
        ] {
            for error in [read(&path).unwrap_err(), write_atomic(&path, b"x").unwrap_err()] {
                let text = error.to_string();
                assert!(error.exit_code() == 2 && text.contains(said), "{text}");
                assert!(text.contains(&path.display().to_string()), "{text}");
            }
        }
        // A link to a regular file is one.
        fs::write(at("file"), "x").unwrap();
        std::os::unix::fs::symlink("file", at("named")).unwrap();
        assert_eq!(read(&at("named")).unwrap(), b"x");
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
