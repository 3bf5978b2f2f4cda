//! Why a server gives no answer at all, as the client's errors tell it.

use std::io::ErrorKind;

/// Nobody is there, and asking again will not change it: the connection is refusal_text, the name is not known, or the address is none.
pub(super) fn is_unreachable(e: &ureq::Error) -> bool {
    match e {
        // What the standard library says of a name that it cannot resolve, for which it has no kind.
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

/// What is wrong with TLS, and what to do about it, if it is TLS that failed on the way to an https address.
pub(super) fn tls_problem(e: &ureq::Error) -> Option<&'static str> {
    let said = match e {
        ureq::Error::Rustls(e) => e.to_string(),
        ureq::Error::Tls(e) => (*e).to_string(),
        // What the handshake finds wrong comes wrapped in this; a broken connection does not.
        ureq::Error::Io(e) if e.kind() == ErrorKind::InvalidData => e.to_string(),
        _ => return None,
    };
    let has = |word: &str| said.contains(word);
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
        "no TLS connection comes about"
    })
}
