//! Locks on files, and temporary files, which are locked as long as their writer lives.
//!
//! A lock ends with its process, however that ends. So a temporary file without a lock is what a process has left behind that was killed
//! between writing and renaming it, and any process may remove it.
//!
//! On a file system that several machines share, locks may be missing, or be known only to the machine that has them (NFS with `nolock` or
//! `local_lock`). So the name of a temporary file also names its machine: no two processes write the same one, and where several machines
//! write at once ([`remove_own_temporaries`]) each removes only its own.

use crate::machine::host_name;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// A locked file, which is removed when the lock ends.
#[derive(Debug)]
pub struct LockFile {
    path: PathBuf,
    _file: File,
}

impl LockFile {
    /// Lock the file at `path`, which is made if need be; `None` if another process has it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn acquire(path: &Path) -> io::Result<Option<LockFile>> {
        Ok(open_locked(path)?.map(|file| LockFile { path: path.to_path_buf(), _file: file }))
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // While it is locked: whoever has opened it in the meantime sees that it is gone and makes a new one.
        let _ = fs::remove_file(&self.path);
    }
}

/// Open the file at `path` for writing, make it if need be, and lock it; `None` if another process has it. On a file system without locks
/// it is open and not locked.
///
/// # Errors
/// The file cannot be written.
pub fn open_locked(path: &Path) -> io::Result<Option<File>> {
    loop {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(_)) => return Ok(Some(file)),
            Ok(()) if is_at(&file, path) => return Ok(Some(file)),
            // Whoever had the lock has removed or renamed the file.
            Ok(()) => {}
        }
    }
}

/// Whether the open file is still the one at `path`.
fn is_at(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let place = |found: &fs::Metadata| (found.dev(), found.ino());
        matches!((file.metadata(), fs::metadata(path)), (Ok(a), Ok(b)) if place(&a) == place(&b))
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        path.exists()
    }
}

/// The name under which `path` is written before it is renamed: `.NAME.PID-MACHINE.tmp` beside it.
pub fn temporary_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}-{}.tmp", std::process::id(), machine()))
}

/// A number for the name of this machine.
fn machine() -> u32 {
    static NUMBER: LazyLock<u32> = LazyLock::new(|| crc32fast::hash(host_name().as_bytes()));
    *NUMBER
}

/// The name of the file that a temporary file of this name was to become; `None` for a name of another form.
fn target_of(temporary: &str) -> Option<&str> {
    let (name, writer) = temporary.strip_prefix('.')?.strip_suffix(".tmp")?.rsplit_once('.')?;
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_ours = match writer.split_once('-') {
        Some((process, machine)) => number(process) && number(machine),
        None => number(writer),
    };
    (is_ours && !name.is_empty()).then_some(name)
}

/// Whether a temporary file of this program has this name.
pub fn is_temporary(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| target_of(name).is_some())
}

/// Remove the temporary files in `dir` whose writers are gone.
pub fn remove_temporaries(dir: &Path) {
    remove_abandoned(dir, |name| target_of(name).is_some());
}

/// Remove the temporary files in `dir` whose writers were processes of this machine that are gone.
pub fn remove_own_temporaries(dir: &Path) {
    let own = format!("-{}.tmp", machine());
    remove_abandoned(dir, |name| name.ends_with(&own) && target_of(name).is_some());
}

/// Remove the temporary files of `path` whose writers are gone.
pub fn remove_temporaries_of(path: &Path) {
    let Some(wanted) = path.file_name().and_then(OsStr::to_str) else { return };
    remove_abandoned(&parent(path), |name| target_of(name) == Some(wanted));
}

/// Remove the file `name` in `dir` if no process has it locked.
pub fn remove_if_abandoned(dir: &Path, name: &str) {
    remove_abandoned(dir, |found| found == name);
}

/// What cannot be removed stays: it is in nobody's way.
fn remove_abandoned(dir: &Path, wanted: impl Fn(&str) -> bool) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_file
            && entry.file_name().to_str().is_some_and(&wanted)
            && let Ok(file) = File::open(entry.path())
            && file.try_lock().is_ok()
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The directory that `path` is in.
pub fn parent(path: &Path) -> PathBuf {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::names;

    #[test]
    fn a_lock_keeps_others_out_and_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".lock");
        // As a killed process leaves it.
        fs::write(&path, "").unwrap();
        let held = LockFile::acquire(&path).unwrap().unwrap();
        assert!(LockFile::acquire(&path).unwrap().is_none());
        remove_if_abandoned(dir.path(), ".lock");
        assert!(path.exists());
        drop(held);
        assert!(names(dir.path()).is_empty());
        drop(LockFile::acquire(&path).unwrap().unwrap());
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn only_temporary_files_whose_writers_are_gone_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        for name in [".a.json.12.tmp", ".b.json.13.tmp", ".c.json.14.tmp", ".tmp", ".a.tmp", "a.12.tmp", ".a.x1.tmp"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let writing = open_locked(&dir.path().join(".b.json.13.tmp")).unwrap().unwrap();
        remove_temporaries_of(&dir.path().join("a.json"));
        assert!(!dir.path().join(".a.json.12.tmp").exists() && dir.path().join(".c.json.14.tmp").exists());
        remove_temporaries(dir.path());
        assert_eq!(names(dir.path()), [".a.tmp", ".a.x1.tmp", ".b.json.13.tmp", ".tmp", "a.12.tmp"]);
        drop(writing);
    }

    #[test]
    fn a_temporary_file_of_another_machine_is_left_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let own = temporary_name(&dir.path().join("a.json"));
        let other = dir.path().join(format!(".a.json.12-{}.tmp", machine().wrapping_add(1)));
        [&own, &other].into_iter().for_each(|path| fs::write(path, "").unwrap());
        assert!(is_temporary(own.file_name().unwrap()) && is_temporary(other.file_name().unwrap()));
        remove_own_temporaries(dir.path());
        assert!(!own.exists() && other.exists());
        // By a process that has the directory for itself.
        remove_temporaries(dir.path());
        assert!(!other.exists());
    }
}
