//! Models given by path or by their name on the Hub, for every command that takes one.

use super::output::{self, status};
use super::progress::{NamedProgress, style};
use crate::hub::{self, HubConfig, OfflineReason};
use crate::io::files;
use crate::model::{CheckpointSelector, missing_files};
use crate::study::CHILD_OF_STUDY;
use crate::{Result, model};
use indicatif::ProgressBar;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// The directory of a model, downloaded if it is a name on the Hub. What is there is not looked at.
pub(super) fn directory(model: &Path) -> Result<PathBuf> {
    if model.exists() {
        return Ok(model.to_path_buf());
    }
    let mut bars = DownloadProgress::default();
    let found = hub::resolve(model, &hub_config()?, &CheckpointSelector, &mut bars);
    bars.current.clear();
    found
}

/// As [`directory`], of a model that can be loaded, as far as that can be told without reading its weights.
pub(super) fn model(model: &Path) -> Result<PathBuf> {
    let dir = directory(model)?;
    if let Some(note) = model::check(&dir)? {
        output::note(&note);
    }
    Ok(dir)
}

/// [`model`] of each.
pub(super) fn models(models: &[PathBuf]) -> Result<Vec<PathBuf>> {
    models.iter().map(|path| model(path)).collect()
}

/// Download what is a name on the Hub, for the tasks of a study. Anything else is left to them.
pub(super) fn prepare(model: &Path) -> Result<()> {
    match hub::locate(model) {
        Ok(hub::ModelLocation::Hub(_)) => directory(model).map(drop),
        _ => Ok(()),
    }
}

/// The directory of a model that is there, without the network.
pub(super) fn cached(model: &Path) -> Result<Option<PathBuf>> {
    Ok(hub::cached(model, &hub_config()?, &missing_files))
}

fn hub_config() -> Result<HubConfig> {
    let config = HubConfig::from_env()?;
    let offline = config.offline.or_else(|| std::env::var_os(CHILD_OF_STUDY).map(|_| OfflineReason::Study));
    Ok(HubConfig { offline, ..config })
}

/// A bar for the file that is under way, or a line where no terminal is.
#[derive(Default)]
struct DownloadProgress {
    named: Option<String>,
    current: NamedProgress,
}

impl hub::DownloadProgress for DownloadProgress {
    fn note(&mut self, text: &str) {
        self.current.clear();
        output::note(text);
    }

    fn file(&mut self, name: &str, done: u64, total: u64) {
        if self.named.as_deref() != Some(name) {
            self.current.clear();
            if !std::io::stderr().is_terminal() {
                status(&format!("downloading {name} ({})", files::format_bytes(total as usize)));
            }
            self.named = Some(name.to_string());
        }
        self.current.show(name, done, || {
            let template = "{prefix} {wide_bar} {bytes}/{total_bytes}, {bytes_per_sec}, {times}";
            ProgressBar::new(total).with_style(style(template))
        });
    }
}
