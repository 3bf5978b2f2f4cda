//! What a newcomer mistypes: each mistake is refused before any work, by name, and destroys nothing.

use crate::command::jigsaw;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

fn prepare(dir: &Path) {
    let photos = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/photos");
    for line in [
        "model init --out model".to_string(),
        format!("gen --images {} --grid 2x2 --count 12 --limit 6 --split 1,1,1 --out data", photos.display()),
    ] {
        let output = jigsaw(dir, &line);
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }
    fs::write(dir.join("file"), "something of somebody's").unwrap();
    fs::create_dir(dir.join("empty")).unwrap();
    // A dataset whose making was finished but whose records are gone.
    fs::create_dir_all(dir.join("hollow/test")).unwrap();
    fs::copy(dir.join("data/manifest.json"), dir.join("hollow/manifest.json")).unwrap();
    fs::write(dir.join("hollow/test/metadata.jsonl"), "").unwrap();
}

/// Every file below a directory with its content.
fn contents(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.push((path.clone(), Vec::new()));
            files.extend(contents(&path));
        } else {
            files.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    files.sort();
    files
}

#[test]
fn every_mistake_is_named_refused_with_code_2_and_changes_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    prepare(dir);
    let before = contents(dir);
    for (line, said) in [
        ("train --method sft --model nope --data data --out out", "no model at nope: there is no such directory"),
        ("train --method sft --model file --data data --out out", "no model at file: that is a file"),
        ("train --method sft --model empty --data data --out out", "empty/config.json not found"),
        ("train --method sft --model model --data nope --out out", "no dataset at nope: there is no such directory"),
        ("train --method sft --model model --data file --out out", "no dataset at file: that is a file"),
        ("train --method sft --model model --data empty --out out", "no dataset at empty"),
        ("train --method sft --model data --data model --out out", "are model and data swapped?"),
        ("train --method sft --model model --data data --out model", "model is not empty and holds no run"),
        ("train --method sft --model model --data data --out data", "data is not empty and holds no run"),
        ("train --method sft --model model --data data --out file", "file: that is a file"),
        ("train --model model --data data --out out", "no method"),
        ("train --method sft --model model --data data --config nope.toml --out out", "nope.toml"),
        // Seen late, when the directory is there already.
        (
            "train --method sft --model model --data data --set train.freeze=[\"nope\"] --out new/out",
            "names no parameter",
        ),
        ("eval --model model --baseline-results empty --kl-prompts 0 --data data --out new/out", "empty/new-task"),
        ("eval --model nope --data data --out out", "no model at nope: there is no such directory"),
        ("eval --model file --data data --out out", "no model at file: that is a file"),
        ("eval --model data --data data --out out", "are model and data swapped?"),
        ("eval --model data --data model --out out", "are model and data swapped?"),
        ("eval --model model --data data --split tset --out out", "no split `tset`; it has: test, train, validation"),
        ("eval --model model --data hollow --out out", "holds no records"),
        ("eval --model model --data data --out model", "model is not empty and holds no evaluation"),
        ("eval --model model --data data --out data --fresh", "data is not empty and holds no evaluation"),
        ("eval --model model --data data --out file", "file: that is a file"),
        ("score --model nope --data data --out s.jsonl", "no model at nope"),
        ("score --model data --data model --out s.jsonl", "are model and data swapped?"),
        ("score --model model --data data --out data/manifest.json", "lies in the directory of --data"),
        ("score --model model --data data --out model/config.json", "lies in the directory of --model"),
        ("score --model model --data data --out empty", "--out empty is a directory"),
        ("report nope", "no run at nope: there is no such directory"),
        ("report file", "no run at file: that is a file"),
        ("report empty", "no run in empty"),
        ("report empty --out file", "--out file exists and is not a .html file"),
        ("study --config nope.toml", "nope.toml"),
        ("model inspect nope", "no model at nope: there is no such directory"),
        ("model inspect file", "no model at file: that is a file"),
        ("model inspect data", "are model and data swapped?"),
        ("model init --out file", "file: that is a file"),
        ("model init --seed 9 --out model", "already holds a checkpoint that differs"),
        ("model init --out data", "data is not empty and holds no checkpoint"),
        ("gen --images nope --out out", "no images folder at nope"),
        ("gen --images file --out out", "no images folder at file"),
        ("gen --images empty --out out", "no JPEG, PNG or WebP file in empty"),
        ("gen --images data --out data --overwrite", "would lie inside the images folder"),
        ("gen --images data --out model --overwrite", "model is not empty"),
        ("gen --images data --out file", "file"),
    ] {
        let output = jigsaw(dir, line);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line}: {message}");
        assert!(message.contains(said), "{line}: {message}");
        assert!(output.stdout.is_empty(), "{line}");
    }
    assert!(contents(dir) == before, "something was written or changed");
}

#[cfg(unix)]
#[test]
fn an_argument_that_is_not_utf_8_is_refused_before_any_work() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    let odd = OsStr::from_bytes(b"caf\xe9");
    for words in [
        vec!["train", "--method", "sft", "--model", "model", "--data", "data", "--out"],
        vec!["train", "--method", "rft", "--print-config", "--config"],
        vec!["eval", "--model", "model", "--data", "data", "--out"],
        vec!["gen", "--grid", "1x2", "--out", "out", "--images"],
        vec!["model", "init", "--out"],
        vec!["report"],
        vec!["nonsense"],
    ] {
        let output =
            Command::new(env!("CARGO_BIN_EXE_jigsaw")).args(&words).arg(odd).current_dir(dir).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {message}");
        assert!(message.contains("the argument `caf\u{fffd}` is not UTF-8; paths"), "{words:?}: {message}");
        assert!(output.stdout.is_empty() && contents(dir).is_empty(), "{words:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn an_output_that_cannot_be_written_is_a_failure_that_names_it() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    prepare(dir);
    for line in [
        "train --method sft --model model --data data --out /proc/out",
        "eval --model model --data data --out /proc/out",
        "score --model model --data data --out /proc/out/s.jsonl",
        "model init --out /proc/out",
        "gen --images data --out /proc/out",
    ] {
        let output = jigsaw(dir, line);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{line}: {message}");
        assert!(message.contains("/proc/out"), "{line}: {message}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_nobodys_error() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    prepare(dir);
    for line in [
        "model inspect model",
        "train --method rft --print-config",
        "eval --model model --data data --max-new-tokens 2 --out out",
        "score --model model --data data --out s.jsonl",
        "gen --images data/train --grid 1x2 --count 2 --split 1,0,0 --out again",
        "completions bash",
        "--help",
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jigsaw"));
        command.args(line.split(' ')).current_dir(dir).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !message.contains("panicked"), "{line}: {message}");
    }
    assert!(dir.join("out/result.json").is_file());
}

#[test]
fn two_tiles_are_worth_a_warning() {
    let temporary = tempfile::tempdir().unwrap();
    prepare(temporary.path());
    let gen_with = |grid: &str| {
        let line = format!("gen --images data/train --grid {grid} --count 2 --split 1,0,0 --out {grid}");
        let output = jigsaw(temporary.path(), &line);
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(gen_with("1x2").contains("warning: a grid of 1x2"));
    assert!(!gen_with("2x2").contains("warning"));
}

/// Otherwise each process of `mpirun` would train the whole run, all of them in one directory.
#[cfg(not(feature = "mpi"))]
#[test]
fn a_program_without_mpi_refuses_to_be_one_of_several_processes() {
    let dir = tempfile::tempdir().unwrap();
    for names in [["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"], ["PMI_RANK", "PMI_SIZE"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jigsaw"));
        command.args(["train", "--model", "m", "--data", "d", "--out", "run"]).current_dir(dir.path());
        let output = command.envs(names.into_iter().zip(["0", "4"])).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && said.contains("built without MPI"), "{said}");
    }
}
