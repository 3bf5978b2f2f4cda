//! Output directories of work that is refused: nothing is left of them.

use super::output_dir::{LOCK, UNFINISHED};
use crate::Result;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use walkdir::WalkDir;

/// Do `work`, which makes the directory `out` and writes into it. If it is refused (exit code 2) before it has recorded anything, the
/// directories that it made are removed again: a directory without work in it would be taken for some, and would be in the way. A directory
/// that was there before is left to the next call.
///
/// What counts as recorded is a line in a `.jsonl` log. That of a dataset, `metadata.jsonl`, is worth nothing before its manifest is there.
///
/// # Errors
/// Those of `work`.
pub fn undo_if_refused<T>(out: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let missing = |dir: &&Path| !dir.as_os_str().is_empty() && !dir.exists();
    let made: Vec<PathBuf> = out.ancestors().take_while(missing).map(Path::to_path_buf).collect();
    let result = work();
    if result.as_ref().is_err_and(|error| error.exit_code() == 2) && !made.is_empty() && !is_in_use(out) {
        // A failure leaves it there: the refusal is the error to report.
        let _ = fs::remove_dir_all(out);
        // The directories above it, unless something else has come there in the meantime.
        let _ = made[1..].iter().try_for_each(fs::remove_dir);
    }
    result
}

/// Whether work is recorded in the directory, or another process works in it.
fn is_in_use(out: &Path) -> bool {
    WalkDir::new(out).into_iter().flatten().filter(|entry| entry.file_type().is_file()).any(|entry| {
        let name = entry.file_name().to_string_lossy();
        if name == LOCK || name == UNFINISHED {
            let file = File::open(entry.path());
            return file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)));
        }
        name.ends_with(".jsonl") && name != "metadata.jsonl" && entry.metadata().is_ok_and(|file| file.len() > 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use crate::io::{files, output_dir};

    /// Work that writes these files and is then refused, or fails.
    fn refused(out: &Path, written: &[(&str, &str)], error: Error) {
        let work = || -> Result<()> {
            for (name, text) in written {
                let path = out.join(name);
                files::create_dir(path.parent().unwrap_or(out))?;
                files::write_atomic(&path, text.as_bytes())?;
            }
            Err(error)
        };
        assert!(undo_if_refused(out, work).is_err());
    }

    #[test]
    fn what_refused_work_made_is_gone_with_the_directories_above_it() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("runs/a/b");
        let begun =
            [("config.toml", "x"), ("checkpoints/.keep", ""), ("metrics.jsonl", ""), ("train/metadata.jsonl", "{}\n")];
        refused(&out, &begun, Error::input("no"));
        assert!(!dir.path().join("runs").exists());
        // What was there before stays, and so does what others have put beside it.
        fs::create_dir_all(&out).unwrap();
        refused(&dir.path().join("runs/c/d"), &begun, Error::input("no"));
        assert!(out.exists() && !dir.path().join("runs/c").exists());
        fs::write(out.join("mine"), "").unwrap();
        refused(&out, &begun, Error::input("no"));
        assert!(out.join("mine").exists());
    }

    #[test]
    fn recorded_work_and_the_directory_of_another_process_stay() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        refused(&at("paid"), &[("x/api-cache.jsonl", "{}\n")], Error::input("the server refuses"));
        assert!(at("paid/x/api-cache.jsonl").exists());
        refused(&at("failed"), &[("config.toml", "")], Error::failed("the disk is full"));
        assert!(at("failed/config.toml").exists());
        let mut other = None;
        let late = undo_if_refused(&at("shared"), || -> Result<()> {
            files::create_dir(&at("shared"))?;
            other = Some(output_dir::lock(&at("shared"), "training")?);
            output_dir::lock(&at("shared"), "training").map(drop)
        });
        assert!(late.is_err() && other.is_some() && at("shared").exists());
        assert!(undo_if_refused(&at("fine"), || files::create_dir(&at("fine"))).is_ok() && at("fine").exists());
    }
}
