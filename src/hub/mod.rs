//! Models by their name on the Hugging Face Hub: `owner/name`, or `owner/name@revision`.
//!
//! What is a path on this machine is used as it is. A name is looked up on the Hub; the files that a checkpoint needs are brought to the
//! Hub's standard cache, and the snapshot directory there is the model directory. Small files come first, so that a model that cannot be
//! used is refused before its weights are on their way. A file appears in the cache under its name when all of it is there and its
//! checksum is right; `refs/REVISION`, by which the snapshot is found again, is written last.

mod cache;
mod client;
mod git;
mod settings;
#[cfg(test)]
mod tests;
mod wanted;

pub use git::blob_name;
pub use settings::{Offline, Settings};

use crate::model::read_architecture;
use crate::{Error, Result};
use cache::Snapshots;
use client::{Client, Trouble};
use std::path::{Path, PathBuf};

/// Who is told how a download goes on.
pub trait Progress {
    /// Something a person should read.
    fn note(&mut self, text: &str);
    /// So many bytes of a file are there; `total` is 0 where it is not known.
    fn file(&mut self, name: &str, done: u64, total: u64);
}

/// A model on the Hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// `owner/name`.
    pub id: String,
    /// Branch, tag or commit; `main` when none is given.
    pub revision: String,
}

impl Name {
    /// The name that `text` is; `None` if it has another form than `owner/name` or `owner/name@revision`.
    pub fn parse(text: &str) -> Option<Name> {
        let (id, revision) = text.split_once('@').unwrap_or((text, "main"));
        let word = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let part = |part: &str| {
            part.len() <= 96
                && part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
                && part.chars().all(word)
        };
        let (owner, name) = id.split_once('/')?;
        let plain = part(owner) && part(name) && !id.contains("..") && !id.contains("--");
        let pinned = !revision.is_empty()
            && revision.chars().all(|c| word(c) || c == '/')
            && revision.split('/').all(|part| !part.is_empty() && !part.starts_with('.'))
            && !revision.contains("..");
        (plain && pinned).then(|| Name { id: id.to_string(), revision: revision.to_string() })
    }

    /// Whether the revision is a whole commit hash, which never comes to mean anything else.
    pub fn is_commit(&self) -> bool {
        self.revision.len() == 40 && self.revision.chars().all(|c| c.is_ascii_hexdigit())
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.revision.as_str() {
            "main" => f.write_str(&self.id),
            revision => write!(f, "{}@{revision}", self.id),
        }
    }
}

/// Where a model is: a path that is there, or a name on the Hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A path on this machine, whatever it is.
    Here(PathBuf),
    /// A name on the Hub.
    Hub(Name),
}

/// Tell a path that is there from a name on the Hub.
///
/// # Errors
/// An input error for what is neither.
pub fn place(model: &Path) -> Result<Place> {
    if model.exists() {
        return Ok(Place::Here(model.to_path_buf()));
    }
    model.to_str().and_then(Name::parse).map(Place::Hub).ok_or_else(|| {
        Error::input(format!(
            "no model at {}: there is no such directory; a name on the Hub has the form owner/name, such as \
             Qwen/Qwen2.5-VL-3B-Instruct",
            model.display()
        ))
    })
}

/// The directory of a model that is given by path or by name; what is missing of a named one is downloaded.
///
/// # Errors
/// An input error if it is neither a path nor a name, if the Hub has no such model or does not give it to us, if it is not in the cache
/// and `settings` allow no network, or if it is no model that this program can use. A failure if the Hub cannot be reached, a download
/// breaks off, or there is no room for it; what was downloaded stays, and the next call goes on from there.
pub fn resolve(model: &Path, settings: &Settings, progress: &mut dyn Progress) -> Result<PathBuf> {
    match place(model)? {
        Place::Here(path) => Ok(path),
        Place::Hub(name) => match settings.offline {
            Some(why) => offline(&name, settings, why),
            None => fetch(&name, settings, progress),
        },
    }
}

/// As [`resolve`], without the network: `None` if the model is not here, wholly.
pub fn cached(model: &Path, settings: &Settings) -> Option<PathBuf> {
    match place(model).ok()? {
        Place::Here(path) => Some(path),
        Place::Hub(name) => offline(&name, settings, Offline::Asked).ok(),
    }
}

/// The name of a model, with its commit as the revision, by which the cache gives this directory; `None` of any other directory.
pub fn name_of(dir: &Path, settings: &Settings) -> Option<Name> {
    let dir = dir.canonicalize().ok()?;
    let folder = dir.parent()?.parent()?.file_name()?.to_str()?;
    let id = folder.strip_prefix("models--")?.replacen("--", "/", 1);
    let name = Name::parse(&format!("{id}@{}", dir.file_name()?.to_str()?)).filter(Name::is_commit)?;
    let found = offline(&name, settings, Offline::Asked).ok()?;
    (found.canonicalize().ok()? == dir).then_some(name)
}

fn offline(name: &Name, settings: &Settings, why: Offline) -> Result<PathBuf> {
    let (because, what_to_do) = match why {
        Offline::Asked => ("because HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE to download it".to_string()),
        Offline::Study => (
            "by the tasks of a study",
            format!("download it with `jigsaw model inspect {name}`, then run the study again"),
        ),
    };
    let snapshots = Snapshots::of(name, settings);
    let Some(dir) = snapshots.known() else {
        return Err(Error::input(format!(
            "no model at {name}: there is no such directory, and none of this name in the cache {}, which alone is used {because}; \
             {what_to_do}",
            settings.cache.display()
        )));
    };
    match wanted::missing(&dir)?.as_slice() {
        [] => Ok(dir),
        missing => Err(Error::input(format!(
            "the cache holds only a part of {name}: {} lacks {}; {what_to_do}",
            dir.display(),
            missing.join(", ")
        ))),
    }
}

fn fetch(name: &Name, settings: &Settings, progress: &mut dyn Progress) -> Result<PathBuf> {
    let snapshots = Snapshots::of(name, settings);
    let whole = || Ok::<_, Error>(snapshots.known().filter(|dir| wanted::missing(dir).is_ok_and(|m| m.is_empty())));
    if name.is_commit()
        && let Some(dir) = whole()?
    {
        return Ok(dir);
    }
    let client = Client::new(settings)?;
    // Where there is something to go on with, nobody is kept waiting.
    let listing = match client.listing(name, whole()?.is_none()) {
        Ok(listing) => listing,
        Err(Trouble::Passing(why)) => {
            let Some(dir) = whole()? else {
                return Err(Error::failed(format!(
                    "no model at {name}: there is no such directory, and the Hub cannot be asked for it: {why}"
                )));
            };
            progress.note(&format!("{why}; {name} is taken as it is in the cache"));
            return Ok(dir);
        }
        Err(Trouble::Final(error)) => return Err(error),
    };
    let _lock = snapshots.lock(progress)?;
    let weights = listing.weights().map_err(|e| e.context(format!("{name} at {}", settings.endpoint)))?;
    let dir = snapshots.dir(&listing.commit);
    let mut get = |names: &[String]| snapshots.get(&client, name, &listing, names, progress);
    get(&listing.small())?;
    if dir.join("config.json").is_file() {
        // Before gigabytes come that nobody can use.
        read_architecture(&dir)?;
    }
    get(&weights.given)?;
    if let Some(index) = &weights.index {
        get(std::slice::from_ref(index))?;
        get(&listing.shards(&dir.join(index))?)?;
    }
    snapshots.point(&listing.commit)?;
    Ok(dir)
}
