//! One HTTP client, for the Hugging Face Hub and for chat servers: timeouts, proxies, TLS, the token, redirections, pauses between attempts,
//! and connection errors in words. What is asked for and what an answer means is the caller's.
//!
//! The token is sent to the address that the client was made for and never to where a redirection leads. It is replaced in whatever
//! a server says ([`HttpClient::sanitize`]). An address on this machine is asked without a proxy.

use crate::io::text::{hide_keys, is_bidi_control};
use crate::io::tls;
use crate::{Error, Result};
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;
use ureq::config::RedirectAuthHeaders;
use ureq::http::{Response, Uri};
use ureq::{Agent, Body};

/// Longest time to find a server and connect to it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest pause before a request is repeated, where the server asks for none.
pub const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// Longest pause that a server may ask for. If it asks for more, the request is repeated after this.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);
/// Characters of a server's text that are shown.
const MAX_SHOWN_CHARS: usize = 300;

/// Time limits of a request.
#[derive(Debug, Clone, Copy)]
pub enum Timeout {
    /// For the whole of a request and its answer.
    Request(Duration),
    /// For the beginning of an answer, and for each part of it.
    Read(Duration),
}

/// How a client connects.
#[derive(Debug, Clone, Copy)]
pub struct HttpOptions<'a> {
    /// Time limits of a request.
    pub timeout: Timeout,
    /// PEM file of the certificates that are trusted in place of Mozilla's.
    pub certificates: Option<&'a Path>,
    /// Redirections are followed.
    pub follow_redirects: bool,
    /// What a user can do where this processor cannot do TLS.
    pub without_tls: &'a str,
}

/// A client of one server.
pub struct HttpClient {
    agent: Agent,
    address: String,
    token: Option<String>,
}

impl HttpClient {
    /// A client of the server at `address`, which is shown `token` as a bearer.
    ///
    /// # Errors
    /// An input error if TLS is needed and cannot be had, or if the file of certificates cannot be read.
    pub fn new(address: &str, token: Option<String>, options: &HttpOptions<'_>) -> Result<HttpClient> {
        let https = address.starts_with("https://");
        // A redirection may lead from http to https.
        let tls = if https || options.follow_redirects { tls::config(options.certificates)? } else { None };
        if https && tls.is_none() {
            return Err(Error::input(format!(
                "{} cannot be asked: this processor lacks what the built-in TLS needs; {}",
                hide_keys(address),
                options.without_tls
            )));
        }
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(concat!("jigsaw/", env!("CARGO_PKG_VERSION")))
            .redirect_auth_headers(RedirectAuthHeaders::Never);
        config = match options.timeout {
            Timeout::Request(limit) => {
                config.timeout_global(Some(limit)).timeout_connect(Some(CONNECT_TIMEOUT.min(limit)))
            }
            Timeout::Read(limit) => config
                .timeout_resolve(Some(CONNECT_TIMEOUT))
                .timeout_connect(Some(CONNECT_TIMEOUT))
                .timeout_recv_response(Some(limit))
                .timeout_per_read(Some(limit)),
        };
        if !options.follow_redirects || tls.is_none() {
            config = config.max_redirects(0);
        }
        if let Some(tls) = tls {
            config = config.tls_config(tls);
        }
        let host = address.trim_start_matches("https://").trim_start_matches("http://");
        if ["localhost", "127.", "[::1]"].iter().any(|local| host.starts_with(local)) {
            config = config.proxy(None);
        }
        Ok(HttpClient { agent: config.build().into(), address: address.to_string(), token })
    }

    /// Whether a token is sent.
    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Ask for `url`, from the byte `from` on.
    ///
    /// # Errors
    /// There is no answer. Any status is an answer.
    pub fn get(&self, url: &str, from: Option<u64>) -> Result<Response<Body>, ureq::Error> {
        let mut request = self.agent.get(url);
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if let Some(from) = from {
            request = request.header("Range", format!("bytes={from}-"));
        }
        request.call()
    }

    /// Post JSON to `url`.
    ///
    /// # Errors
    /// As [`HttpClient::get`].
    pub fn post_json(&self, url: &str, body: &[u8]) -> Result<Response<Body>, ureq::Error> {
        let mut request = self.agent.post(url).header("Content-Type", "application/json");
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        request.send(body)
    }

    /// Whether an address is on this client's own server.
    pub fn is_own_server(&self, uri: &Uri) -> bool {
        let own = self.address.parse::<Uri>();
        own.is_ok_and(|own| own.scheme() == uri.scheme() && own.authority() == uri.authority())
    }

    /// A server's text for a message: short, on one line, without the token, which a server may repeat, and without control characters
    /// that a terminal would obey.
    pub fn sanitize(&self, text: &str) -> String {
        let text = match &self.token {
            Some(token) => text.replace(token.as_str(), "[key]"),
            None => text.to_string(),
        };
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let plain = |c: char| if c.is_control() || is_bidi_control(c) { char::REPLACEMENT_CHARACTER } else { c };
        let line: String = hide_keys(&line).chars().map(plain).collect();
        match line.char_indices().nth(MAX_SHOWN_CHARS) {
            Some((end, _)) => format!("{}...", &line[..end]),
            None => line,
        }
    }
}

/// Whether a header can hold this token.
pub fn is_valid_token(token: &str) -> bool {
    token.bytes().all(|b| b.is_ascii_graphic())
}

/// Whether a request with this answer may succeed when it is repeated.
pub fn is_transient_status(status: u16) -> bool {
    matches!(status, 408 | 429 | 500..)
}

/// The pause that a server asks for (`Retry-After`, in seconds), up to an hour.
pub fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let seconds = response.headers().get("retry-after")?.to_str().ok()?.trim().parse::<f64>().ok()?;
    let valid = seconds.is_finite() && seconds >= 0.0;
    valid.then(|| Duration::from_secs_f64(seconds.min(MAX_RETRY_AFTER.as_secs_f64())))
}

/// The pauses between the attempts at a request: each twice as long as the one before, up to a minute, or as long as the server asks for.
#[derive(Debug, Clone)]
pub struct Backoff {
    pause: Duration,
    retries: usize,
}

impl Backoff {
    /// `retries` pauses, the first of this length.
    pub fn new(first: Duration, retries: usize) -> Backoff {
        Backoff { pause: first, retries }
    }

    /// The next pause; `None` when the request is not to be repeated.
    pub fn next(&mut self, retry_after: Option<Duration>) -> Option<Duration> {
        self.retries = self.retries.checked_sub(1)?;
        let pause = self.pause.min(MAX_BACKOFF);
        self.pause = 2 * pause;
        Some(retry_after.map_or(pause, |asked| asked.min(MAX_RETRY_AFTER)))
    }
}

/// Why there is no answer at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionError {
    /// The answer took too long.
    Timeout,
    /// The connection is refused, the name is not known, or the address is not valid: repeating the request does not help.
    Unreachable,
    /// TLS failed: why, and what to do.
    Tls(&'static str),
    /// Anything else, such as a connection that breaks off.
    Other,
}

impl ConnectionError {
    /// What an error of the HTTP library means, on the way to an `https` address or not.
    pub fn of(e: &ureq::Error, https: bool) -> ConnectionError {
        if matches!(e, ureq::Error::Timeout(at) if *at != ureq::Timeout::Connect) {
            return ConnectionError::Timeout;
        }
        match tls_problem(e).filter(|_| https) {
            Some(why) => ConnectionError::Tls(why),
            None if is_unreachable(e) => ConnectionError::Unreachable,
            None => ConnectionError::Other,
        }
    }
}

fn is_unreachable(e: &ureq::Error) -> bool {
    match e {
        // The standard library has no kind for a name that cannot be resolved, only this text.
        ureq::Error::Io(e) => {
            e.kind() == ErrorKind::ConnectionRefused
                || (e.raw_os_error().is_none() && e.to_string().contains("lookup address"))
        }
        ureq::Error::HostNotFound
        | ureq::Error::Http(_)
        | ureq::Error::BadUri(_)
        | ureq::Error::InvalidProxyUrl
        | ureq::Error::TlsRequired => true,
        _ => false,
    }
}

/// What is wrong with TLS and what to do about it; `None` if another thing failed.
fn tls_problem(e: &ureq::Error) -> Option<&'static str> {
    let text = match e {
        ureq::Error::Rustls(e) => e.to_string(),
        ureq::Error::Tls(e) => (*e).to_string(),
        // A failed handshake comes wrapped in this; a broken connection does not.
        ureq::Error::Io(e) if e.kind() == ErrorKind::InvalidData => e.to_string(),
        _ => return None,
    };
    let has = |word: &str| text.contains(word);
    Some(if has("CaUsedAsEndEntity") {
        "its certificate is not trusted, because it is that of a CA, which no server may show; give the server one with \
         basicConstraints=CA:FALSE, and name a PEM file with it, or with that of the CA that signed it, in SSL_CERT_FILE"
    } else if ["xpired", "NotValidYet", "not valid", "NotValidForName", "Revoked"].iter().any(|word| has(word)) {
        "its certificate is not trusted, because it is not valid, or not for this address"
    } else if has("certificate") {
        "its certificate is not trusted; name a PEM file with it, or with that of the CA that signed it, in SSL_CERT_FILE"
    } else if has("InvalidContentType") {
        "it does not speak TLS; is its address one of http://?"
    } else {
        "the TLS handshake failed"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute_and_a_server_may_ask_for_up_to_an_hour() {
        let secs = Duration::from_secs;
        let mut backoff = Backoff::new(secs(8), 5);
        assert_eq!(backoff.next(None), Some(secs(8)));
        assert_eq!(backoff.next(Some(secs(0))), Some(secs(0)));
        assert_eq!(backoff.next(None), Some(secs(32)));
        assert_eq!(backoff.next(Some(secs(86_400))), Some(secs(3600)));
        assert_eq!((backoff.next(None), backoff.next(None)), (Some(secs(60)), None));
    }
}
