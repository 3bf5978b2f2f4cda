//! Training, evaluation and learning dynamics in several processes, started by a real `mpirun`: the same bytes for any number of them, and what becomes of the
//! work when one of them is killed, hangs, fails, or differs from the others.

use crate::command::{Line, done, jigsaw};
use crate::run_files::contents;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_jigsaw");
const COMMON: &str = "train --model model --data data --set train.learning_rate=1e-3 --set train.save_steps=1 --set train.save_total_limit=99";
const SFT: &str = "--method sft --set train.steps=4 --set train.batch_size=14 --set eval.steps=2 --set eval.limit=3 --set eval.max_new_tokens=4";
const LORA: &str = "--method sft --set train.steps=3 --set train.batch_size=6 --set lora.rank=4 --set lora.alpha=8 --set lora.dropout=0.1";
const RFT: &str = "--method rft --set train.steps=4 --set train.batch_size=5 --set rollout.num_generations=3 --set rollout.max_new_tokens=6 \
                   --set grpo.beta=0.1 --set eval.steps=0";
/// So long that something can happen on the way.
const LONG: &str = "--method sft --set train.steps=16 --set train.batch_size=14 --set eval.steps=0";
const LONG_EVAL: &str = "eval --model model --data data --split train --temperature 1 --num-generations 30 --batch-size 1 --max-new-tokens 64";
/// Pairs of training samples with puzzles and with questions that the base answers.
const DYNAMICS: &str = "dynamics --model tuned --base model --train sft=data --prior own=data seen=seen.tsv \
                        --prior-split train --pairs 9 --max-new-tokens 4";

fn prepare(dir: &Path) {
    done(dir, "model init --preset tiny --out model");
    done(dir, "gen --images scenes --grid 1x2 --count 14 --out data");
}

/// Also what `DYNAMICS` needs.
fn prepare_dynamics(dir: &Path) {
    prepare(dir);
    done(dir, "model init --preset tiny --seed 5 --out tuned");
    let rows: String = (0..3).map(|i| format!("{i}\tIs there a {i}?\tyes\tyes-no\n")).collect();
    std::fs::write(dir.join("seen.tsv"), format!("index\tquestion\tanswer\tscorer\n{rows}")).unwrap();
}

/// `mpirun` with words for it, for several programs with `:` between them.
fn mpirun(dir: &Path, line: impl Line) -> Command {
    let mut command = Command::new("mpirun");
    command.args(["--allow-run-as-root", "--oversubscribe"]).args(line.words()).current_dir(dir);
    command.env("RAYON_NUM_THREADS", "1").stdin(Stdio::null());
    command
}

/// The command on so many ranks, or alone.
fn on_ranks(dir: &Path, ranks: usize, line: &str) -> Output {
    match ranks {
        1 => jigsaw(dir, line),
        _ => mpirun(dir, &format!("-n {ranks} {PROGRAM} {line}")).output().unwrap(),
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn succeeds(output: &Output) {
    assert!(output.status.success(), "{:?}: {}", output.status, said(output));
}

/// How often `text` has `part` in it.
fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

/// Names of the files in which two runs differ.
fn differing(dir: &Path, one: &str, other: &str) -> Vec<String> {
    let (one, other) = (contents(&dir.join(one)), contents(&dir.join(other)));
    one.keys().chain(other.keys()).filter(|name| one.get(*name) != other.get(*name)).cloned().collect()
}

#[test]
fn runs_on_1_2_and_4_ranks_end_with_the_same_bytes() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    prepare(dir);
    for (name, settings) in [("sft", SFT), ("lora", LORA), ("rft", RFT)] {
        for ranks in [1, 2, 4] {
            let output = on_ranks(dir, ranks, &format!("{COMMON} {settings} --out {name}-{ranks}"));
            succeeds(&output);
            // Rank 0 alone prints.
            assert_eq!(count(&String::from_utf8_lossy(&output.stdout), "/model\n"), 1, "{name}, {ranks} ranks");
            assert_eq!(differing(dir, &format!("{name}-1"), &format!("{name}-{ranks}")), Vec::<String>::new());
        }
        let lines = |ranks: usize| std::fs::read_to_string(dir.join(format!("{name}-{ranks}/metrics.jsonl"))).unwrap();
        assert!(!lines(1).contains("communication") && lines(2).contains("\"communication_bytes\":"));
        // Rank 0 is told to stop after its second step.
        let stop = "--metrics-command 'read a; read b; kill -USR1 $PPID; cat >/dev/null'";
        let settings = settings.replace("eval.steps=2", "eval.steps=0");
        let line = format!("{COMMON} {settings} --out {name}-stopped");
        let stopped = on_ranks(dir, 4, &format!("{line} {stop}"));
        assert_eq!(stopped.status.code(), Some(143), "{name}: {}", said(&stopped));
        assert!(!dir.join(format!("{name}-stopped/finished.json")).exists());
        succeeds(&on_ranks(dir, 1, &line));
        succeeds(&on_ranks(dir, 1, &format!("{COMMON} {settings} --out {name}-whole")));
        assert_eq!(differing(dir, &format!("{name}-whole"), &format!("{name}-stopped")), Vec::<String>::new());
    }
}

#[test]
fn a_larger_model_goes_in_pairs_of_ranks_or_in_sets_to_the_same_bytes() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    done(dir, "model init --preset small --out model");
    done(dir, "gen --images scenes --grid 1x2 --count 14 --out data");
    // More than 32 MiB of adapters, and rows for two shards or more.
    let line = format!(
        "{COMMON} --method sft --set train.steps=1 --set train.batch_size=10 --set eval.steps=0 --set lora.rank=128"
    );
    let model = |name: &str| std::fs::read(dir.join(name).join("model/adapter_model.safetensors")).unwrap();
    // Three sets of a batch are other shards than a pair.
    for (name, buffers) in [("pairs", 1), ("sets", 3)] {
        for ranks in [1, 2, 3] {
            let more = format!("--set train.gradient_buffers={buffers} --out {name}-{ranks}");
            succeeds(&on_ranks(dir, ranks, &format!("{line} {more}")));
            assert_eq!(differing(dir, &format!("{name}-1"), &format!("{name}-{ranks}")), Vec::<String>::new());
        }
    }
    assert!(model("pairs-1").len() > 32 << 20 && model("pairs-1") != model("sets-1"));
}

#[test]
fn gradients_sent_as_bf16_are_half_the_bytes() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    prepare(dir);
    let line = format!("{COMMON} {SFT} --set eval.steps=0 --set train.save_steps=0");
    let sent = |ranks: usize, dtype: &str| -> f64 {
        let out = format!("{dtype}-{ranks}");
        succeeds(&on_ranks(dir, ranks, &format!("{line} --set train.comm_dtype={dtype} --out {out}")));
        let text = std::fs::read_to_string(dir.join(out).join("metrics.jsonl")).unwrap();
        let steps = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        steps.filter_map(|step| step["communication_bytes"].as_f64()).sum()
    };
    let (whole, half) = (sent(2, "f32"), sent(2, "bf16"));
    sent(1, "bf16");
    // Two sets of gradients, and the new weights, which are sent as f32 in both: 2/3.
    assert!(half > 0.5 * whole && half < 0.75 * whole, "{half} of {whole} bytes");
    let model = |name: &str| std::fs::read(dir.join(name).join("model/model.safetensors")).unwrap();
    assert!(model("bf16-1") == model("f32-2"), "one process rounds nothing");
    assert!(model("bf16-2") != model("f32-2"), "two do");
}

/// A job that is in the middle of its work, as the lines of `log` show, and the process of one of its ranks.
fn begun(dir: &Path, timeout: &str, rank: usize, line: &str, log: &str) -> (Child, Pid) {
    let mut command = mpirun(dir, &format!("-n 2 {PROGRAM} {line}"));
    let child =
        command.env("JIGSAW_COMM_TIMEOUT", timeout).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while line_count(&dir.join(log)) < 2 {
        assert!(begun.elapsed() < Duration::from_secs(120), "nothing is done");
        std::thread::sleep(Duration::from_millis(5));
    }
    let of_rank = |process: &std::fs::DirEntry| {
        let environment = std::fs::read(process.path().join("environ")).unwrap_or_default();
        let has = |variable: &str| environment.split(|byte| *byte == 0).any(|found| found == variable.as_bytes());
        let program = std::fs::read_link(process.path().join("exe")).is_ok_and(|program| program == Path::new(PROGRAM));
        let directory = std::fs::read_link(process.path().join("cwd"));
        program && directory.is_ok_and(|found| found == dir) && has(&format!("OMPI_COMM_WORLD_RANK={rank}"))
    };
    let process = std::fs::read_dir("/proc").unwrap().flatten().find(of_rank).expect("the rank's process");
    (child, Pid::from_raw(process.file_name().to_str().unwrap().parse().unwrap()).unwrap())
}

fn line_count(file: &Path) -> usize {
    std::fs::read_to_string(file).map_or(0, |text| text.lines().count())
}

/// Begin on two ranks and kill one of them: the other ends soon.
fn kill_one(dir: &Path, rank: usize, line: &str, log: &str) {
    let _ = std::fs::remove_dir_all(dir.join("run"));
    let (child, process) = begun(dir, "600", rank, line, log);
    let killed = Instant::now();
    kill_process(process, Signal::KILL).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(killed.elapsed() < Duration::from_secs(30) && !output.status.success(), "{:?}", output.status);
    let said = said(&output);
    // A surviving rank says it, or mpirun, or both.
    let process = process.as_raw_nonzero();
    assert!(
        said.contains(&format!("(process {process}): its process has ended"))
            || said.contains(&format!("process rank {rank} with PID")),
        "{said}"
    );
}

#[test]
fn a_killed_rank_ends_the_others_and_the_same_command_resumes() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().canonicalize().unwrap();
    prepare(&dir);
    let line = format!("{COMMON} {LONG} --out run");
    for rank in [1, 0] {
        kill_one(&dir, rank, &line, "run/metrics.jsonl");
        assert!(!dir.join("run/finished.json").exists());
    }
    succeeds(&on_ranks(&dir, 2, &line));
    succeeds(&on_ranks(&dir, 1, &line.replace("--out run", "--out whole")));
    assert_eq!(differing(&dir, "whole", "run"), Vec::<String>::new());
}

#[test]
fn a_rank_that_hangs_is_given_up_after_the_stated_time() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().canonicalize().unwrap();
    prepare(&dir);
    for rank in [1, 0] {
        let _ = std::fs::remove_dir_all(dir.join("run"));
        let (child, process) = begun(&dir, "8", rank, &format!("{COMMON} {LONG} --out run"), "run/metrics.jsonl");
        let stopped = Instant::now();
        kill_process(process, Signal::STOP).unwrap();
        let output = child.wait_with_output().unwrap();
        let (seconds, said) = (stopped.elapsed().as_secs_f64(), said(&output));
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(seconds > 7.0 && seconds < 30.0, "{seconds} s");
        assert_eq!(count(&said, &format!("error: rank {rank} on ")), 1, "{said}");
        assert!(said.contains("no answer for 8 s (JIGSAW_COMM_TIMEOUT)"), "{said}");
    }
}

/// Another model and dataset under the same names in `elsewhere`, and `other-program`, which differs by a byte at its end.
fn prepare_others(dir: &Path) {
    std::fs::create_dir(dir.join("elsewhere")).unwrap();
    done(dir, "model init --preset tiny --seed 5 --out elsewhere/model");
    done(dir, "gen --images scenes --grid 1x2 --count 14 --out elsewhere/data");
    let mut program = std::fs::read(PROGRAM).unwrap();
    program.push(0);
    std::fs::copy(PROGRAM, dir.join("other-program")).unwrap();
    std::fs::write(dir.join("other-program"), program).unwrap();
}

/// Rank 0 does `line` and rank 1 what each of `others` (program, line, what the message names) gives it: both end before any work.
fn refuses_other_ranks(dir: &Path, line: &str, others: &[(&str, String, &str)]) {
    for (program, other, expected) in others {
        let program = program.replace("PROGRAM", PROGRAM);
        let output = mpirun(dir, &format!("-n 1 {PROGRAM} {line} : -n 1 {program} {other}")).output().unwrap();
        let said = said(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(count(&said, "error: rank 1 on ") == 1 && said.contains(expected), "{expected}: {said}");
        assert!(!dir.join("run").exists() && !dir.join("out").exists(), "{expected}: something was left");
    }
}

#[test]
fn ranks_that_differ_are_refused_before_the_first_step() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    prepare(dir);
    prepare_others(dir);
    done(dir, "gen --images scenes --grid 1x2 --count 15 --out other-data");
    let line = format!("{COMMON} {SFT} --out run");
    let others = [
        (PROGRAM, line.replace("train.steps=4", "train.steps=5"), "settings.train.steps: 4 -> 5"),
        (PROGRAM, line.replace("--data data", "--data other-data"), "; examples: 11 -> 12"),
        ("-wdir elsewhere PROGRAM", line.clone(), "weights at the start: "),
        ("./other-program", line.clone(), "checksum of the program: "),
        (PROGRAM, line.replace("--data data", "--data none"), "has failed: no dataset at none"),
    ];
    refuses_other_ranks(dir, &line, &others);
}

#[test]
fn what_cannot_run_is_said_once() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    prepare(dir);
    for (line, expected) in [
        ("report data --out report.html", "error: an MPI launcher has started 2 processes"),
        (
            "eval --model m --api http://localhost:1/v1 --data data --out out",
            "error: eval --api does not divide its work",
        ),
        ("rollout --teacher scripted --data data --out out", "error: rollout --teacher does not divide its work"),
        ("eval --model none --data data --out out", "error: "),
        ("train --model model --data data --out run --set train.stops=4", "unknown key train.stops"),
        ("train --model none --data data --out run", "error: "),
        ("train --modle model", "error: "),
    ] {
        let output = on_ranks(dir, 2, line);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(2), "{line}: {said}");
        assert_eq!(count(&said, expected), 1, "{line}: {said}");
    }
    // One rank alone is mistaken.
    let line = "train --model model --data data --out run";
    let output = mpirun(dir, &format!("-n 1 {PROGRAM} {line} : -n 1 {PROGRAM} {line} --modle x")).output().unwrap();
    assert!(output.status.code() == Some(2) && said(&output).contains("--modle"), "{}", said(&output));
    assert!(["run", "out", "report.html"].iter().all(|name| !dir.join(name).exists()));
    let output = mpirun(dir, &format!("-n 2 {PROGRAM} train --method sft --print-config")).output().unwrap();
    succeeds(&output);
    assert_eq!(count(&String::from_utf8_lossy(&output.stdout), "[train]"), 1);
}

/// Every file of an evaluation or rollout, without the lines that tell how long it took.
fn results(path: &Path) -> BTreeMap<String, String> {
    let files = walkdir::WalkDir::new(path).into_iter().map(|entry| entry.unwrap());
    let without_times = |file: &Path| {
        let text = String::from_utf8_lossy(&std::fs::read(file).unwrap()).into_owned();
        let timed = |line: &&str| line.contains("\"seconds\":") || line.contains("tokens_per_second");
        text.lines().filter(|line| !timed(line)).map(|line| format!("{line}\n")).collect::<String>()
    };
    files
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| (entry.path().strip_prefix(path).unwrap().display().to_string(), without_times(entry.path())))
        .collect()
}

fn assert_same_results(dir: &Path, one: &str, other: &str) {
    let (one_found, other_found) = (results(&dir.join(one)), results(&dir.join(other)));
    let names = one_found.keys().chain(other_found.keys());
    let differing: Vec<&String> = names.filter(|name| one_found.get(*name) != other_found.get(*name)).collect();
    assert!(differing.is_empty() && !one_found.is_empty(), "{other} differs from {one} in {differing:?}");
}

#[test]
fn evaluations_rollouts_scores_and_dynamics_on_1_to_4_ranks_are_the_same_bytes() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    prepare_dynamics(dir);
    for (name, line) in [
        ("greedy", "eval --model model --data data --split train --batch-size 2 --max-new-tokens 8"),
        (
            "sampled",
            "eval --model model --data data --split train --batch-size 2 --max-new-tokens 8 --temperature 1 --num-generations 2",
        ),
        ("bench", "eval --model model --bench puzzles=data --split train --batch-size 4 --max-new-tokens 8"),
        ("compared", "eval --model tuned --baseline model --data data --split train --batch-size 3 --max-new-tokens 8"),
        (
            "rollout",
            "rollout --model model --data data --batch-size 2 --num-generations 3 --max-new-tokens 80 --keep all",
        ),
        ("score", "score --model model --data data --split train --batch-size 2"),
        ("dynamics", &format!("{DYNAMICS} --on-policy sft")),
    ] {
        for ranks in 1..=4 {
            let output = on_ranks(dir, ranks, &format!("{line} --out {name}-{ranks}"));
            succeeds(&output);
            // Rank 0 alone prints.
            let printed = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(printed.lines().last().map(|last| count(&printed, last)), Some(1), "{printed}");
            assert_same_results(dir, &format!("{name}-1"), &format!("{name}-{ranks}"));
        }
    }
}

#[test]
fn a_killed_rank_ends_an_evaluation_or_dynamics_which_other_numbers_of_ranks_resume() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().canonicalize().unwrap();
    prepare_dynamics(&dir);
    for (line, log, result) in
        [(LONG_EVAL, "responses.jsonl", "result.json"), (DYNAMICS, "pairs.jsonl", "dynamics.json")]
    {
        let whole = format!("whole-{log}");
        succeeds(&on_ranks(&dir, 1, &format!("{line} --out {whole}")));
        let line = format!("{line} --out run");
        for (rank, then) in [(1, 4), (0, 1)] {
            kill_one(&dir, rank, &line, &format!("run/{log}"));
            assert!(!dir.join("run").join(result).exists());
            let before = line_count(&dir.join("run").join(log));
            assert!(before >= 2 && before < line_count(&dir.join(&whole).join(log)), "{before}");
            succeeds(&on_ranks(&dir, then, &line));
            assert_same_results(&dir, &whole, "run");
        }
    }
}

#[test]
fn ranks_that_differ_evaluate_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    prepare_dynamics(dir);
    prepare_others(dir);
    done(dir, "gen --images scenes --grid 1x2 --count 14 --seed 9 --out other-data");
    for (line, data) in [
        ("eval --model model --data data --batch-size 2 --out out", "data: "),
        ("rollout --model model --data data --split test --batch-size 2 --out out", "data: "),
        ("score --model model --data data --batch-size 2 --out out", "prompts: "),
    ] {
        let others = [
            ("-wdir elsewhere PROGRAM", line.to_string(), "model: "),
            ("./other-program", line.to_string(), "checksum of the program: "),
            (PROGRAM, line.replace("data data", "data other-data"), data),
            (PROGRAM, line.replace("size 2", "size 3"), "batch size: 2 -> 3"),
            (PROGRAM, line.replace("data data", "data none"), "has failed: no "),
        ];
        refuses_other_ranks(dir, line, &others);
    }
    for name in ["tuned", "seen.tsv"] {
        std::os::unix::fs::symlink(dir.join(name), dir.join("elsewhere").join(name)).unwrap();
    }
    std::fs::create_dir(dir.join("other-tuned")).unwrap();
    for name in ["model", "data", "seen.tsv"] {
        std::os::unix::fs::symlink(dir.join(name), dir.join("other-tuned").join(name)).unwrap();
    }
    done(dir, "model init --preset tiny --seed 6 --out other-tuned/tuned");
    let line = format!("{DYNAMICS} --out out");
    let others = [
        ("-wdir elsewhere PROGRAM", line.clone(), "measurement.base: "),
        (PROGRAM, line.replace("sft=data", "sft=other-data"), "measurement.train.sft.data: "),
        (PROGRAM, line.replace("pairs 9", "pairs 8"), "measurement.config.pairs: 9 -> 8"),
        ("-wdir other-tuned PROGRAM", line.clone(), "checkpoints.0: "),
    ];
    refuses_other_ranks(dir, &line, &others);
}

#[test]
fn the_training_runs_of_a_study_are_several_processes() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    prepare(dir);
    let study = "[study]\nbase = 'model'\n[puzzles.p]\nimages = 'scenes'\ngrid = '1x2'\ncount = 16\nsplit = '0.5,0,0.5'\n[prior]\nsuite = 'pope'\n\
                 count = 8\n[regimes.sft]\nmethod = 'sft'\ndata = 'p'\nlearning_rate = 1e-3\ntrain = { steps = 4, batch_size = 8 }\n";
    std::fs::write(dir.join("study.toml"), study).unwrap();
    let run = |out: &str, more: &str| {
        let only = "--only puzzles.p --only train.sft.lr-1e-3.seed-1";
        jigsaw(dir, &format!("study --config study.toml --out {out} {only} {more}"))
    };
    succeeds(&run("one", ""));
    succeeds(&run("two", "--ntasks 2 --launcher 'mpirun --allow-run-as-root --oversubscribe'"));
    let read =
        |out: &str, file: &str| std::fs::read(dir.join(format!("{out}/runs/sft.lr-1e-3.seed-1/{file}"))).unwrap();
    assert!(read("one", "model/model.safetensors") == read("two", "model/model.safetensors"));
    let metrics = String::from_utf8(read("two", "metrics.jsonl")).unwrap();
    assert!(metrics.contains("communication_bytes"), "{metrics}");
    let missing = run("three", "--ntasks 2 --launcher mpirun-of-nobody");
    assert!(
        missing.status.code() == Some(2) && said(&missing).contains("mpirun-of-nobody is not on the PATH"),
        "{}",
        said(&missing)
    );
}
