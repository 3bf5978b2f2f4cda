//! What two runs must have alike.

use std::collections::BTreeMap;
use std::path::Path;

/// Every file of a run that does not depend on the clock, and its metrics without those that do or that count communication.
pub fn contents(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut contents = BTreeMap::new();
    for entry in walkdir::WalkDir::new(run).into_iter().map(|entry| entry.unwrap()) {
        let name = entry.path().strip_prefix(run).unwrap().to_string_lossy().into_owned();
        // The size of the logs depends on how the clock's numbers are written; and so does the manifest, which has the checksum of it.
        let skipped = ["tfevents", "run.json", "state.json", "manifest.json", ".lock"];
        if !entry.file_type().is_file() || skipped.iter().any(|part| name.contains(part)) {
            continue;
        }
        let mut bytes = std::fs::read(entry.path()).unwrap();
        if name == "metrics.jsonl" {
            let line = |line: &str| {
                let mut line: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).unwrap();
                for timing in [
                    "tokens_per_second",
                    "samples_per_second",
                    "step_seconds",
                    "communication_seconds",
                    "communication_bytes",
                ] {
                    line.shift_remove(timing);
                }
                serde_json::to_string(&line).unwrap() + "\n"
            };
            bytes = String::from_utf8(bytes).unwrap().lines().map(line).collect::<String>().into_bytes();
        }
        contents.insert(name, bytes);
    }
    assert!(contents.keys().any(|name| name.ends_with("optimizer.safetensors")), "{:?}", contents.keys());
    assert!(
        contents.contains_key("model/model.safetensors") || contents.contains_key("model/adapter_model.safetensors")
    );
    contents
}
