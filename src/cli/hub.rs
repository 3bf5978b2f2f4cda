//! Models given by path or by their name on the Hub, for every command that takes one.

use super::output::say;
use crate::hub::{self, Settings};
use crate::study::OF_A_STUDY;
use crate::{Result, files, model};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// The directory of a model, downloaded if it is a name on the Hub. What is there is not looked at.
pub(super) fn directory(model: &Path) -> Result<PathBuf> {
    if model.exists() {
        return Ok(model.to_path_buf());
    }
    let mut bars = Bars::default();
    let found = hub::resolve(model, &settings()?, &mut bars);
    bars.clear();
    found
}

/// As [`directory`], of a model that can be loaded, as far as that can be told without reading its weights.
pub(super) fn model(model: &Path) -> Result<PathBuf> {
    let dir = directory(model)?;
    model::check(&dir)?;
    Ok(dir)
}

/// [`model`] of each.
pub(super) fn models(models: &[PathBuf]) -> Result<Vec<PathBuf>> {
    models.iter().map(|path| model(path)).collect()
}

/// Download what is a name on the Hub, for the tasks of a study. Anything else is left to them.
pub(super) fn prepare(model: &Path) -> Result<()> {
    match hub::place(model) {
        Ok(hub::Place::Hub(_)) => directory(model).map(drop),
        _ => Ok(()),
    }
}

/// The directory of a model that is there, without the network.
pub(super) fn cached(model: &Path) -> Result<Option<PathBuf>> {
    Ok(hub::cached(model, &settings()?))
}

/// A task of a study takes the model that the study has downloaded, not one that came to stand for the name since.
fn settings() -> Result<Settings> {
    let mut settings = Settings::from_env()?;
    settings.offline |= std::env::var_os(OF_A_STUDY).is_some();
    Ok(settings)
}

/// A bar for the file that is under way, or a line where no terminal is.
#[derive(Default)]
struct Bars {
    current: Option<(String, ProgressBar)>,
}

impl Bars {
    fn clear(&mut self) {
        if let Some((_, bar)) = self.current.take() {
            bar.finish_and_clear();
        }
    }
}

impl hub::Progress for Bars {
    fn note(&mut self, text: &str) {
        self.clear();
        say(&format!("note: {text}"));
    }

    fn file(&mut self, name: &str, done: u64, total: u64) {
        if self.current.as_ref().is_none_or(|(current, _)| current != name) {
            self.clear();
            if !std::io::stderr().is_terminal() {
                say(&format!("downloading {name} ({})", files::megabytes(total as usize)));
            }
            let bar = ProgressBar::new(total).with_prefix(name.to_string()).with_position(done);
            let template = "{prefix} {wide_bar} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            // What came in an earlier run took none of this one's time.
            bar.reset_eta();
            self.current = Some((name.to_string(), bar));
        }
        if let Some((_, bar)) = &self.current {
            bar.set_position(done);
        }
    }
}
