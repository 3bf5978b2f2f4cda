//! TLS. Its cryptography (graviola) is Rust with inline assembly, so that the build needs no C compiler.

use crate::io::files;
use crate::{Error, Result};
use std::path::Path;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use ureq::tls::TlsProvider;
use ureq::tls::{PemItem, RootCerts, TlsConfig, TlsConfigBuilder, parse_pem};

/// The TLS settings, which trust Mozilla's certificates or those in a file; `None` on a processor that graviola does not support.
///
/// # Errors
/// An input error if `SSL_CERT_FILE` names a file without certificates.
pub(crate) fn config(certificates: Option<&Path>) -> Result<Option<TlsConfig>> {
    let Some(builder) = builder() else { return Ok(None) };
    let roots = match certificates {
        None => RootCerts::WebPki,
        Some(path) => {
            let pem = files::read(path).map_err(|e| e.context("SSL_CERT_FILE"))?;
            let certificates = parse_pem(&pem).filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            });
            let certificates: Vec<_> = certificates.collect();
            if certificates.is_empty() {
                return Err(Error::input(format!("SSL_CERT_FILE: {} holds no certificate (PEM)", path.display())));
            }
            RootCerts::from(certificates)
        }
    };
    Ok(Some(builder.root_certs(roots).build()))
}

/// Whether this processor is supported. graviola ends the process on one that is not.
#[cfg(target_arch = "x86_64")]
fn able() -> bool {
    is_x86_feature_detected!("aes")
        && is_x86_feature_detected!("pclmulqdq")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("adx")
        && is_x86_feature_detected!("avx")
        && is_x86_feature_detected!("avx2")
}

#[cfg(target_arch = "aarch64")]
fn able() -> bool {
    use std::arch::is_aarch64_feature_detected;
    is_aarch64_feature_detected!("neon")
        && is_aarch64_feature_detected!("aes")
        && is_aarch64_feature_detected!("pmull")
        && is_aarch64_feature_detected!("sha2")
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn builder() -> Option<TlsConfigBuilder> {
    let provider = able().then(|| std::sync::Arc::new(rustls_graviola::default_provider()))?;
    Some(TlsConfig::builder().provider(TlsProvider::Rustls).unversioned_rustls_crypto_provider(provider))
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn builder() -> Option<TlsConfigBuilder> {
    None
}
