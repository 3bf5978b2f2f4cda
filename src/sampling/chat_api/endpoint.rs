//! Where a chat server is, and how it may be asked.

use crate::io::text::hide_keys;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The first pause before a failed request is repeated.
pub const INITIAL_BACKOFF: Duration = Duration::from_secs(1);
/// Longest time to wait for a response, unless the user says otherwise.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(600);

/// The addresses of one serving engine, or of several with the same model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(untagged, expecting = "must be an address in quotes or a list of addresses")]
pub enum ServerUrls {
    /// One server.
    One(String),
    /// Several servers: each answers its share of the prompts, and every one loads every adapter.
    Several(Vec<String>),
}

impl ServerUrls {
    /// All of them.
    pub fn all(&self) -> &[String] {
        match self {
            ServerUrls::One(url) => std::slice::from_ref(url),
            ServerUrls::Several(urls) => urls,
        }
    }
}

/// A model behind an address.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Endpoint {
    /// Address up to and with `/v1`.
    pub url: String,
    /// The model's name there.
    pub model: String,
    /// Requests under way at once.
    pub concurrency: usize,
    /// Most requests begun in a minute; `None` for no limit.
    pub per_minute: Option<u32>,
    /// Times a failed request is repeated.
    pub retries: usize,
    /// The first pause before a request is repeated.
    pub backoff: Duration,
    /// Longest time to wait for a response.
    pub timeout: Duration,
}

impl Endpoint {
    /// Refuse an address that cannot be used; `flag` is the one that it was given by. It is stored with what the server answers, so none
    /// with a key in it passes.
    ///
    /// # Errors
    /// An input error for an address that is not valid, that has a user, a password or parameters in it, or an impossible port.
    pub fn check(&self, flag: &str) -> Result<()> {
        let bad = |why: String| Err(Error::input(format!("{flag} {}: {why}", hide_keys(&self.url))));
        const KEY: &str = "an address is stored with the results, and must hold no key; put it into OPENAI_API_KEY";
        const FORM: &str = "write http://HOST:PORT/v1 or https://HOST/v1";
        let Some(rest) = self.url.strip_prefix("https://").or_else(|| self.url.strip_prefix("http://")) else {
            return bad(format!("no address of a chat API; {FORM}"));
        };
        let server = rest.split(['/', '?', '#']).next().unwrap_or_default();
        // An IPv6 address is full of colons itself and stands in brackets.
        let (host, port) = match server.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (server, None),
        };
        let colons = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
        if rest.contains('@') {
            return bad(format!("{KEY}; {FORM}"));
        }
        if rest.contains(['?', '#']) {
            return bad(format!("nothing may follow the path, since `/chat/completions` is appended to it; {KEY}"));
        }
        if host.is_empty() || colons || rest.contains(char::is_whitespace) {
            return bad(FORM.into());
        }
        match port {
            Some(port) if !port.parse::<u16>().is_ok_and(|port| port > 0) => {
                bad(format!("`{port}` is no port, which is a number from 1 to 65535; {FORM}"))
            }
            _ => Ok(()),
        }
    }

    /// The model and its address, for keys and for people.
    pub fn name(&self) -> String {
        format!("{} at {}", self.model, self.url)
    }

    /// The address that requests go to.
    pub(super) fn completions_url(&self) -> String {
        format!("{}/chat/completions", self.url.trim_end_matches('/'))
    }
}
