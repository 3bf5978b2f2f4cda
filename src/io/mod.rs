//! Files and the network: atomic writes, locks, logs, an HTTP client, a page on this machine; commands of the user's; text of others in messages.

pub mod files;
pub mod http;
pub mod json;
pub mod jsonl;
pub mod lock;
pub mod loopback;
pub mod output_dir;
pub mod plain;
pub mod refused;
pub mod running_time;
pub mod schema;
pub mod shell;
pub mod text;
pub(crate) mod tls;
pub mod toml;

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The names in a directory, sorted, hidden ones too.
#[cfg(test)]
pub(crate) fn names(dir: &std::path::Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
