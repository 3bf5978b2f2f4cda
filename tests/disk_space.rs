//! A disk that fills up: a run is refused where no checkpoint fits, and pauses where the next one does not, losing nothing.
#![cfg(target_os = "linux")]

mod hub_server;

use hub_server::SmallDisk;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

fn command(dir: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jigsaw"));
    command.args(line.split(' ')).current_dir(dir);
    command
}

fn run(dir: &Path, line: &str) -> Output {
    let output = command(dir, line).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// A training run of which a test reads what it says.
struct Training {
    child: Child,
    lines: Receiver<String>,
}

impl Training {
    fn start(dir: &Path, line: &str) -> Training {
        let mut child = command(dir, line).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let (send, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        Training { child, lines }
    }

    /// Wait for a line with `text`.
    fn says(&self, text: &str) -> String {
        let mut all = Vec::new();
        loop {
            match self.lines.recv_timeout(Duration::from_secs(120)) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => all.push(line),
                Err(e) => panic!("{text:?} was not said ({e}): {all:#?}"),
            }
        }
    }
}

/// Names in `checkpoints`, hidden ones too.
fn checkpoints(run: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(run.join("checkpoints")).unwrap().flatten();
    let mut names: Vec<String> = entries.map(|e| e.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Take up `bytes` of a disk.
fn fill(file: PathBuf, bytes: usize) {
    std::fs::write(file, vec![1; bytes]).unwrap();
}

#[test]
fn a_run_pauses_until_a_checkpoint_fits() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/base-tiny");
    run(dir, "gen --images scenes --grid 1x2 --count 8 --split 0.5,0,0.5 --out data");
    let disk = dir.join("disk");
    let Some(_mounted) = SmallDisk::mount(&disk, "64m") else { return };
    let line = |out: &str| {
        format!(
            "train --method sft --model {} --data data --set train.steps=2 --set train.batch_size=2 --set train.save_steps=1 --set \
             train.save_total_limit=1 --out {out}",
            base.display()
        )
    };
    run(dir, &line("whole"));

    // Not even one checkpoint, of about 20 MB, fits: nothing is trained.
    fill(disk.join("filler"), 50_000_000);
    let output = command(dir, &line("disk/none")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("no disk space for a single checkpoint") && said.contains("are free in disk/none"), "{said}");
    assert!(!disk.join("none").exists(), "a refused run leaves nothing");

    // The first fits, the second does not.
    fill(disk.join("filler"), 36_000_000);
    let mut training = Training::start(dir, &line("disk/run"));
    training.says("the run will write up to");
    let said = training.says("paused: a checkpoint takes ");
    assert!(said.contains("MB are free in disk/run") && said.contains("continues when there is space"), "{said}");
    assert_eq!(checkpoints(&disk.join("run")), ["step-00000001"], "nothing of the one that does not fit");
    std::thread::sleep(Duration::from_secs(4));
    assert!(training.child.try_wait().unwrap().is_none(), "it waits");
    std::fs::remove_file(disk.join("filler")).unwrap();
    training.says("there is disk space again");
    assert!(training.child.wait().unwrap().success());
    let weights = |run: PathBuf| std::fs::read(run.join("model/model.safetensors")).unwrap();
    assert!(weights(disk.join("run")) == weights(dir.join("whole")));
    std::fs::remove_dir_all(disk.join("run")).unwrap();

    // Asked to stop while it waits, it stops, and resumes later from the checkpoint that is there.
    fill(disk.join("filler"), 36_000_000);
    let mut training = Training::start(dir, &line("disk/run"));
    training.says("paused: ");
    let pid = rustix::process::Pid::from_child(&training.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    training.says("the steps after 1, up to 2, are not saved");
    training.says("stopped after step 1, saved");
    assert_eq!(training.child.wait().unwrap().code(), Some(143));
    assert_eq!(checkpoints(&disk.join("run")), ["step-00000001"]);
    std::fs::remove_file(disk.join("filler")).unwrap();
    run(dir, &line("disk/run"));
    assert!(weights(disk.join("run")) == weights(dir.join("whole")));
}

#[test]
fn on_a_full_disk_no_temporary_file_stays_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/base-tiny");
    let base = base.display();
    run(dir, "gen --images scenes --grid 1x2 --count 8 --split 0.5,0,0.5 --style think --out data");
    let disk = dir.join("disk");
    let Some(_mounted) = SmallDisk::mount(&disk, "1m") else { return };
    fill(disk.join("filler"), 1_000_000);
    for line in [
        "model init --preset tiny --out disk/out".to_string(),
        format!("model convert {base} --dtype f32 --out disk/out"),
        "gen --images scenes --grid 3x3 --count 40 --out disk/out".to_string(),
        "gen --suite pope --count 40 --out disk/out".to_string(),
        "rollout --teacher scripted --data data --out disk/out".to_string(),
        format!("score --model {base} --data data --out disk/out/scores.jsonl"),
        format!("eval --model {base} --data data --max-new-tokens 2 --out disk/out"),
    ] {
        let _ = std::fs::remove_dir_all(disk.join("out"));
        let output = command(dir, &line).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("panicked"), "{line}: {said}");
        let entries = walkdir::WalkDir::new(&disk).into_iter().flatten();
        let names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        let left = names.iter().filter(|name| name.ends_with(".tmp") || name.ends_with(".lock"));
        assert_eq!(left.collect::<Vec<_>>(), Vec::<&String>::new(), "{line}: {said}");
        assert!(output.status.success() || said.contains("disk/out"), "{line}: {said}");
    }
}
