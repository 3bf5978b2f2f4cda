//! Where the Hub and its cache are: the environment variables of Hugging Face's own tools, with the meaning they have there.

use crate::io::files;
use crate::io::text::hide_keys;
use crate::{Error, Result};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What the environment says. Not `Debug`: it holds the token.
#[derive(Clone)]
pub struct HubConfig {
    /// Address of the Hub, without a slash at its end (`HF_ENDPOINT`).
    pub endpoint: String,
    /// Directory of the cache (`HF_HUB_CACHE`, else `HF_HOME/hub`, else `~/.cache/huggingface/hub`).
    pub cache: PathBuf,
    /// Sent to the Hub only (`HF_TOKEN`, else the file that `hf auth login` writes).
    pub token: Option<String>,
    /// Why only the cache is used; `None` if the Hub is asked.
    pub offline: Option<OfflineReason>,
    /// Certificates trusted in place of Mozilla's (`SSL_CERT_FILE`).
    pub certificates: Option<PathBuf>,
}

/// Why only the cache is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfflineReason {
    /// `HF_HUB_OFFLINE` is set.
    Environment,
    /// A study's tasks use the model that the study downloaded, even if the name has come to mean another one since.
    Study,
}

impl HubConfig {
    /// From the environment of this process.
    ///
    /// # Errors
    /// An input error that names the variable: an address that is not valid, or no directory for the cache.
    pub fn from_env() -> Result<HubConfig> {
        HubConfig::read(&|name| std::env::var_os(name))
    }

    /// From variables that `get` gives; an empty one counts as not set.
    ///
    /// # Errors
    /// See [`HubConfig::from_env`].
    pub fn read(get: &dyn Fn(&str) -> Option<OsString>) -> Result<HubConfig> {
        let variable = |names: &[&str]| names.iter().find_map(|name| get(name).filter(|value| !value.is_empty()));
        let text = |names: &[&str]| variable(names).map(|value| value.to_string_lossy().trim().to_string());
        let path = |names: &[&str]| variable(names).map(PathBuf::from);
        let endpoint = text(&["HF_ENDPOINT"]).unwrap_or_else(|| "https://huggingface.co".into());
        let endpoint = endpoint.trim_end_matches('/').to_string();
        let host = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
        if !host.is_some_and(|host| !host.is_empty() && endpoint.chars().all(|c| c.is_ascii_graphic())) {
            return Err(Error::input(format!(
                "HF_ENDPOINT is {}; give an address that begins with https:// or http://",
                hide_keys(&endpoint)
            )));
        }
        if endpoint.contains(['@', '?', '#']) {
            return Err(Error::input(format!(
                "HF_ENDPOINT is {}; give the address of a Hub without user, key and parameters, and set HF_TOKEN to the token",
                hide_keys(&endpoint)
            )));
        }
        let home = path(&["HF_HOME"]).or_else(|| {
            let caches = path(&["XDG_CACHE_HOME"]).or_else(|| path(&["HOME", "USERPROFILE"]).map(|h| h.join(".cache")));
            caches.map(|dir| dir.join("huggingface"))
        });
        let cache = path(&["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"]).or_else(|| home.as_ref().map(|h| h.join("hub")));
        let cache = cache.ok_or_else(|| Error::input("there is no HOME to keep a cache of models in; set HF_HOME"))?;
        let cache = std::path::absolute(&cache).unwrap_or(cache);
        let token = text(&["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"])
            .or_else(|| stored(&path(&["HF_TOKEN_PATH"]).or_else(|| home.map(|h| h.join("token")))?));
        let yes = |value: String| ["1", "on", "yes", "true"].contains(&value.to_lowercase().as_str());
        Ok(HubConfig {
            endpoint,
            cache,
            token,
            offline: text(&["HF_HUB_OFFLINE"]).is_some_and(yes).then_some(OfflineReason::Environment),
            certificates: path(&["SSL_CERT_FILE"]),
        })
    }
}

/// The token in a file, if there is one.
fn stored(path: &Path) -> Option<String> {
    let token = files::read_text(path).ok()?.trim().to_string();
    (!token.is_empty()).then_some(token)
}
