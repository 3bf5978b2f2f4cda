//! Killed at any time, a command that is given again ends with the bytes of one that was never killed, and nothing else stays behind.
//! `scripts/crash_campaign.sh` does the same with all commands, many more times.

use crate::command::{Line, done};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What writes to `out`, and what is there before.
const COMMANDS: [(&str, Option<&str>); 6] = [
    ("gen --images scenes --grid 1x2 --count 8 --split 0.5,0.25,0.25 --preview 2 --out out/data", None),
    (
        "gen --suite pope --count 4 --split 0.5,0,0.5 --overwrite --out out/data",
        Some("gen --suite pope --count 2 --split 0.5,0,0.5 --out out/data"),
    ),
    (
        "rollout --teacher scripted --data data --fresh --out out/data",
        Some("rollout --teacher scripted --data data --limit 2 --out out/data"),
    ),
    ("score --model model --data data --out out/scores.jsonl", None),
    ("model init --preset tiny-text --seed 4 --out out/model", None),
    ("model convert model --dtype bf16 --out out/model", None),
];

fn prepare(dir: &Path) {
    done(dir, "model init --preset tiny --out model");
    done(dir, "gen --images scenes --grid 1x2 --count 8 --split 0.5,0.25,0.25 --style think --out data");
}

/// Every file below `dir`, hidden ones too; directories end with a slash.
fn content(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in walkdir::WalkDir::new(dir).min_depth(1) {
        let entry = entry.unwrap();
        let name = entry.path().strip_prefix(dir).unwrap().display().to_string();
        match entry.file_type().is_dir() {
            true => found.insert(name + "/", Vec::new()),
            false => found.insert(name, std::fs::read(entry.path()).unwrap()),
        };
    }
    found
}

/// As before the command was ever given.
fn begin(dir: &Path, before: Option<&str>) {
    let _ = std::fs::remove_dir_all(dir.join("out"));
    before.iter().for_each(|line| drop(done(dir, *line)));
}

fn start(dir: &Path, wrapper: &[&str], line: &str) -> Child {
    let program = env!("CARGO_BIN_EXE_jigsaw").to_string();
    let words: Vec<String> = wrapper.iter().map(|word| word.to_string()).chain([program]).chain(line.words()).collect();
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// Give the command again; it must end as `whole`.
fn ends_as(dir: &Path, line: &str, whole: &BTreeMap<String, Vec<u8>>, killed: &str) {
    done(dir, line);
    let now = content(&dir.join("out"));
    let names = whole.keys().chain(now.keys()).filter(|name| whole.get(*name) != now.get(*name));
    assert_eq!(names.collect::<Vec<_>>(), Vec::<&String>::new(), "{line}, killed {killed}");
}

#[test]
fn a_command_that_is_killed_at_any_time_ends_with_the_same_bytes_when_it_is_given_again() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    prepare(dir);
    let mut kills = 0;
    for (line, before) in COMMANDS {
        begin(dir, before);
        let begun = Instant::now();
        done(dir, line);
        let (seconds, whole) = (begun.elapsed().as_secs_f64(), content(&dir.join("out")));
        for part in [0.3, 0.6, 0.8, 0.95] {
            begin(dir, before);
            let mut child = start(dir, &[], line);
            std::thread::sleep(Duration::from_secs_f64(part * seconds));
            kills += usize::from(child.try_wait().unwrap().is_none());
            child.kill().unwrap();
            child.wait().unwrap();
            ends_as(dir, line, &whole, &format!("after {part} of its time"));
        }
    }
    assert!(kills > 5, "only {kills} kills came in time");
}

/// The same before the Nth rename, removal, synchronisation or directory; where there is no strace, the test above is all.
#[cfg(target_os = "linux")]
#[test]
fn a_command_that_is_killed_between_two_steps_ends_with_the_same_bytes_when_it_is_given_again() {
    if Command::new("strace").arg("-V").output().is_err() {
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    prepare(dir);
    let mut kills = 0;
    for (line, before) in COMMANDS {
        begin(dir, before);
        done(dir, line);
        let whole = content(&dir.join("out"));
        for (calls, places) in [("rename", 1..4), ("unlink,unlinkat,rmdir", 1..3), ("fsync", 1..2), ("mkdir", 2..3)] {
            for at in places {
                begin(dir, before);
                let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:signal=KILL:when={at}"));
                let wrapper = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
                let killed = !start(dir, &wrapper, line).wait().unwrap().success();
                kills += usize::from(killed);
                ends_as(dir, line, &whole, &format!("before {calls} {at}"));
                if !killed {
                    break; // there are no more of these calls
                }
            }
        }
    }
    assert!(kills > 20, "only {kills} kills");
}
