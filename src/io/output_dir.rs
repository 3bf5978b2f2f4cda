//! Output directories: whose they are, who works in them, and what an interrupted call has left behind.
//!
//! Some directories grow ([`open`]): a key that says what they hold is written first, and the same call resumes ([`read_key`],
//! [`holds_another`]). Others are filled as a whole ([`fill`]): until their last file is written they hold the file [`UNFINISHED`], and the same
//! call empties them and starts again.
//!
//! One process at a time works in a directory: it has the file [`LOCK`] locked. Then the temporary files of processes that were killed are
//! removed. The lock file is removed at the end.

use crate::io::files;
use crate::io::lock::{self, LockFile};
use crate::{Error, Result};
use serde::de::DeserializeOwned;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Locked while a process works in a directory.
pub const LOCK: &str = ".lock";
/// Marks a directory that is filled as a whole and is not complete yet. Holds the names of directories in it, a line each.
pub const UNFINISHED: &str = ".jigsaw-unfinished";

/// Keep other processes out of a directory until the lock is dropped, and remove the temporary files of processes that are gone. `doing` says
/// for the message what is done there.
///
/// # Errors
/// An input error if another process has the directory; a failure if the file [`LOCK`] cannot be written.
pub fn lock(dir: &Path, doing: &str) -> Result<LockFile> {
    let path = dir.join(LOCK);
    let held = LockFile::acquire(&path).map_err(|e| Error::failed(format!("cannot write {}: {e}", path.display())))?;
    let held = held.ok_or_else(|| {
        Error::input(format!("another process is {doing} in {}; wait for it or give another --out", dir.display()))
    })?;
    lock::remove_temporaries(dir);
    Ok(held)
}

/// As [`lock`], for an output that is a single file. Its directory is made if need be.
pub fn lock_file(path: &Path) -> Result<LockFile> {
    files::create_dir(&lock::parent(path))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let lock_path = path.with_file_name(format!(".{name}.lock"));
    let failed = |e: std::io::Error| Error::failed(format!("cannot write {}: {e}", lock_path.display()));
    let held = LockFile::acquire(&lock_path).map_err(failed)?.ok_or_else(|| {
        Error::input(format!("another process is writing {}; wait for it or give another --out", path.display()))
    })?;
    lock::remove_temporaries_of(path);
    Ok(held)
}

/// Remove what killed processes of this machine have left in a directory that several processes may read and write.
pub fn tidy(dir: &Path) {
    lock::remove_if_abandoned(dir, LOCK);
    lock::remove_own_temporaries(dir);
}

/// What a directory that grows may hold.
pub struct Growing<'a> {
    /// In words, such as `evaluation`.
    pub what: &'a str,
    /// What is done there, such as `evaluating`.
    pub doing: &'a str,
    /// The file by which such a directory is known; without it, the directory may hold nothing else than `own`.
    pub mark: Option<&'a str>,
    /// What else it may hold.
    pub own: &'a dyn Fn(&str) -> bool,
}

/// Create a directory that grows, or open it, and lock it.
///
/// # Errors
/// An input error if it holds something else, which stays as it is, or if another process works there.
pub fn open(dir: &Path, content: &Growing<'_>) -> Result<LockFile> {
    let known = content.mark.is_some_and(|mark| dir.join(mark).exists());
    if !known && files::has_other_files(dir, content.own) {
        return Err(match content.mark {
            Some(_) => not_empty(dir, content.what),
            None => Error::input(format!(
                "{} holds something else than {}; give another --out",
                dir.display(),
                content.what
            )),
        });
    }
    files::create_dir(dir)?;
    lock(dir, content.doing)
}

fn not_empty(dir: &Path, what: &str) -> Error {
    Error::input(format!("{} is not empty and holds no {what}; give another --out", dir.display()))
}

/// The key in the file `path`, which says what the results beside it are of; `None` if there is none and nothing was `begun`.
///
/// # Errors
/// An input error if there is no key of what was begun, or one that cannot be read.
pub fn read_key<K: DeserializeOwned>(path: &Path, what: &str, begun: bool) -> Result<Option<K>> {
    let dir = lock::parent(path);
    if path.exists() {
        let read = files::read_json(path).map(Some);
        return read.map_err(|e| e.context(format!("{} holds no {what} that can be read", dir.display())));
    }
    if begun {
        return Err(Error::input(format!(
            "{} holds results of the {what}, but no {} that says what they are of; give another --out, or --fresh to start over",
            dir.display(),
            path.file_name().unwrap_or_default().to_string_lossy()
        )));
    }
    Ok(None)
}

/// The refusal of a directory that holds the same kind of content with another key. `instead` is what else the user can give, with a comma;
/// `costs` is what --fresh costs.
pub fn holds_another(dir: &Path, what: &str, differences: &[String], instead: &str, costs: &str) -> Error {
    Error::input(format!(
        "{} holds another {what} ({}); give {instead}another --out, or --fresh to start over{costs}",
        dir.display(),
        differences.join("; ")
    ))
}

/// What a directory that is filled as a whole may hold.
pub struct Whole<'a> {
    /// In words, such as `dataset`.
    pub what: &'a str,
    /// The file that is written last: where it is, the directory is complete.
    pub last: &'a str,
    /// Names of what it may hold.
    pub own: &'a dyn Fn(&str) -> bool,
}

/// A directory that this process fills, or that is complete and to be compared with what this process would write.
#[derive(Debug)]
pub struct OutputDir {
    dir: PathBuf,
    complete: bool,
    _lock: Option<LockFile>,
}

/// An input error if [`fill`] would refuse `dir`. Nothing is changed.
pub fn check(dir: &Path, content: &Whole<'_>) -> Result<()> {
    check_beside(dir, content, &[])
}

fn check_beside(dir: &Path, content: &Whole<'_>, beside: &[&str]) -> Result<()> {
    let begun = dir.join(content.last).exists() || dir.join(UNFINISHED).exists();
    let mut names = visible(dir)?;
    names.retain(|name| !beside.contains(&name.as_str()));
    if !begun && !names.is_empty() {
        return Err(not_empty(dir, content.what));
    }
    let Some(foreign) = names.into_iter().find(|name| !(content.own)(name)) else { return Ok(()) };
    let kind = if dir.join(&foreign).is_dir() { "directory" } else { "file" };
    Err(Error::input(format!(
        "{} holds the {kind} {foreign}, which is no part of a {}; move it away or choose another --out",
        dir.display(),
        content.what
    )))
}

/// Lock a directory, which is made if need be, and empty it, unless it is complete and not to be overwritten.
///
/// # Errors
/// An input error if it holds something else, or another process works there; a failure to write.
pub fn fill(dir: &Path, content: &Whole<'_>, overwrite: bool) -> Result<OutputDir> {
    check(dir, content)?;
    files::create_dir(dir)?;
    let lock = lock(dir, "writing")?;
    if !overwrite && dir.join(content.last).exists() {
        return Ok(OutputDir { dir: dir.to_path_buf(), complete: true, _lock: Some(lock) });
    }
    Ok(OutputDir { _lock: Some(lock), ..refill(dir, content, &[])? })
}

/// As [`fill`] with `overwrite`, of a directory that the caller has locked. The files `beside` stay as they are.
pub fn refill(dir: &Path, content: &Whole<'_>, beside: &[&str]) -> Result<OutputDir> {
    check_beside(dir, content, beside)?;
    mark_unfinished(dir)?;
    // First: from here on the directory is not complete.
    files::remove_if_exists(&dir.join(content.last))?;
    let mut names = visible(dir)?;
    names.retain(|name| (content.own)(name) && !beside.contains(&name.as_str()));
    names.iter().try_for_each(|name| files::remove_if_exists(&dir.join(name)))?;
    Ok(OutputDir { dir: dir.to_path_buf(), complete: false, _lock: None })
}

/// Mark a directory that is filled as a whole as one that is not complete, before anything of it is removed.
pub fn mark_unfinished(dir: &Path) -> Result<()> {
    let marker = dir.join(UNFINISHED);
    let opened = fs::OpenOptions::new().create(true).append(true).open(&marker).map(drop);
    opened.map_err(|e| Error::failed(format!("cannot write {}: {e}", marker.display())))
}

/// Directories that an unfinished output directory says are part of it.
pub fn declared(dir: &Path) -> Vec<String> {
    let text = fs::read_to_string(dir.join(UNFINISHED)).unwrap_or_default();
    text.lines().map(String::from).collect()
}

/// Names in a directory that are not hidden; none if it is missing.
fn visible(dir: &Path) -> Result<Vec<String>> {
    let here = dir.display();
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(_) if dir.is_file() => return Err(Error::input(format!("{here}: that is a file; a directory is needed"))),
        Err(e) => return Err(Error::input(format!("cannot use {here} as an output directory: {e}"))),
    };
    let names = entries.map(|entry| entry.map(|e| e.file_name().to_string_lossy().into_owned()));
    let names = names.collect::<std::io::Result<Vec<String>>>();
    let mut names = names.map_err(|e| Error::input(format!("cannot read {here}: {e}")))?;
    names.retain(|name| !name.starts_with('.'));
    Ok(names)
}

impl OutputDir {
    /// Whether it is complete: nothing is to be written, but what would be written is to be compared with what is there.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Note that the directory `name` is part of the content.
    ///
    /// # Errors
    /// A failure to write.
    pub fn declare(&self, name: &str) -> Result<()> {
        let marker = self.dir.join(UNFINISHED);
        let written = fs::OpenOptions::new().append(true).open(&marker).and_then(|mut file| writeln!(file, "{name}"));
        written.map_err(|e| Error::failed(format!("cannot write {}: {e}", marker.display())))
    }

    /// The content is complete, or was found to be what would be written.
    ///
    /// # Errors
    /// A failure to write.
    pub fn finish(self) -> Result<()> {
        files::remove_if_exists(&self.dir.join(UNFINISHED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::names;

    #[test]
    fn a_second_process_is_refused_until_the_first_has_finished() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock(dir.path(), "sampling").unwrap();
        let error = lock(dir.path(), "sampling").unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let said = format!("another process is sampling in {}; wait for it", dir.path().display());
        assert!(error.to_string().starts_with(&said), "{error}");
        drop(held);
        fs::write(dir.path().join(".a.json.1.tmp"), "").unwrap();
        drop(lock(dir.path(), "sampling").unwrap());
        assert!(names(dir.path()).is_empty());
        let file = dir.path().join("below/scores.jsonl");
        let held = lock_file(&file).unwrap();
        fs::write(dir.path().join("below/.other.1.tmp"), "").unwrap();
        assert!(lock_file(&file).unwrap_err().to_string().contains("another process is writing"));
        drop(held);
        fs::write(dir.path().join("below/.scores.jsonl.1.tmp"), "").unwrap();
        drop(lock_file(&file).unwrap());
        assert_eq!(names(&dir.path().join("below")), [".other.1.tmp"], "files of others stay");
    }

    #[test]
    fn a_directory_is_filled_as_a_whole_and_what_was_cut_short_is_begun_again() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().join("out");
        let own = |name: &str| ["last", "part", "below"].contains(&name);
        let content = Whole { what: "model", last: "last", own: &own };
        let filling = fill(&dir, &content, false).unwrap();
        assert!(!filling.is_complete() && fill(&dir, &content, false).unwrap_err().exit_code() == 2);
        fs::write(dir.join("part"), "half").unwrap();
        fs::create_dir(dir.join("below")).unwrap();
        filling.declare("below").unwrap();
        assert_eq!(declared(&dir), ["below"]);
        fs::write(dir.join(".last.7.tmp"), "").unwrap();
        drop(filling);
        // The same again: nothing of the first is left.
        let filling = fill(&dir, &content, false).unwrap();
        assert_eq!(names(&dir), [UNFINISHED, LOCK]);
        fs::write(dir.join("last"), "").unwrap();
        filling.finish().unwrap();
        assert_eq!(names(&dir), ["last"]);
        let complete = fill(&dir, &content, false).unwrap();
        assert!(complete.is_complete());
        complete.finish().unwrap();
        assert!(!fill(&dir, &content, true).unwrap().is_complete() && !dir.join("last").exists());
        fs::write(dir.join("thesis"), "").unwrap();
        for overwrite in [false, true] {
            assert!(fill(&dir, &content, overwrite).unwrap_err().to_string().contains("the file thesis"));
        }
        let foreign = temporary.path().join("foreign");
        fs::create_dir(&foreign).unwrap();
        fs::write(foreign.join("part"), "").unwrap();
        assert!(fill(&foreign, &content, true).unwrap_err().to_string().contains("is not empty and holds no model"));
        assert_eq!(names(&foreign), ["part"]);
    }

    #[test]
    fn results_without_their_key_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.json");
        assert_eq!(read_key::<u32>(&path, "evaluation", false).unwrap(), None);
        let error = read_key::<u32>(&path, "evaluation", true).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("no key.json"), "{error}");
        fs::write(&path, "7").unwrap();
        assert_eq!(read_key::<u32>(&path, "evaluation", true).unwrap(), Some(7));
    }
}
