//! Files and the network: atomic writes, locks, logs, HTTP.

pub mod files;
pub mod jsonl;
pub(crate) mod tls;
