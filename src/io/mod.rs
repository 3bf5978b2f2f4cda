//! Files and the network: atomic writes, locks, logs, HTTP.

pub mod files;
pub mod hex;
pub mod jsonl;
pub(crate) mod tls;
