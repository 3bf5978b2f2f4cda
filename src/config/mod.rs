//! Configuration: TOML as written, plus `--set a.b=value`, to settings that have been checked before any work.
//!
//! The settings and their defaults are [`crate::train::settings`]; here they are read, filled in and checked. A default depends on the
//! method only, so the resolved settings hold every key that matters and can be written beside the run. A key that does not exist is refused with the nearest one that does; settings that
//! contradict each other, or that the method would ignore, are refused too.

mod check_keys;
mod check_values;
mod layers;
pub mod reference;

use crate::io::files;
use crate::train::settings::{Method, RolloutSettings, TrainConfig};
use crate::{Error, Result};
use std::path::Path;

impl TrainConfig {
    /// Read `file` (optional), apply `sets` (`section.key=value`, in order) and `method` (the `--method` flag), fill in
    /// the method's defaults, and refuse whatever does not fit together.
    ///
    /// # Errors
    /// Input errors that name the file and line (or the `--set` argument) and the key.
    pub fn resolve(method: Option<Method>, file: Option<&Path>, sets: &[String]) -> Result<TrainConfig> {
        let text = file.map(files::read_text).transpose()?;
        let name = file.map(|f| f.display().to_string()).unwrap_or_default();
        TrainConfig::from_text(method, text.as_deref().map(|t| (name.as_str(), t)), sets)
    }

    /// As [`TrainConfig::resolve`], for a text with the name to use for it in messages.
    pub fn from_text(method: Option<Method>, text: Option<(&str, &str)>, sets: &[String]) -> Result<TrainConfig> {
        let written = layers::read(text, sets, &TrainConfig::every_key())?;
        let place = text.map(|(name, _)| if sets.is_empty() { name.to_string() } else { format!("{name} and --set") });
        TrainConfig::from_table(method, &written).map_err(|e| place.into_iter().fold(e, Error::context))
    }

    /// From settings already read, all of whose keys are known.
    pub(crate) fn from_table(method: Option<Method>, written: &toml::Table) -> Result<TrainConfig> {
        let method = check_values::method(method, written)?;
        check_values::unused_sections(method, written)?;
        let mut defaults = TrainConfig::defaults(method);
        if method == Method::Sft && check_values::resamples(written) {
            defaults.rollout = Some(RolloutSettings::default());
        }
        if written.contains_key("lora") {
            defaults.lora = Some(Default::default());
        }
        if written.contains_key("prior_kl") {
            defaults.prior_kl = Some(Default::default());
        }
        let mut config: TrainConfig = layers::apply(&defaults, written)?;
        config.complete();
        check_values::values(&config)?;
        Ok(config)
    }
}

#[cfg(test)]
mod settings_page;
#[cfg(test)]
mod tests;
