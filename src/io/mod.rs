//! Files and the network: atomic writes, locks, TLS.

pub mod files;
pub(crate) mod tls;
