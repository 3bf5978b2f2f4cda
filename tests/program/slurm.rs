//! `jigsaw study --executor slurm` and `--status`, with commands of a Slurm that is a few shell scripts on the PATH: it runs jobs as processes,
//! and a test can have it refuse, lose, cancel or preempt one. `scripts/slurm/try.sh` does the same on a real Slurm.

use crate::command::{Line, program};
use rustix::process::{Pid, Signal, kill_process};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const STUDY: &str = r#"
[study]
title = "A study on a cluster"
base = "data/base-tiny"
seeds = [1, 2]

[puzzles.bare]
images = "scenes"
grid = "1x2"
count = 16
split = "0.5,0,0.5"

[prior]
suite = "pope"
count = 8
split = "0.5,0,0.5"

[regimes.sft]
method = "sft"
data = "bare"
learning_rate = 1e-4
train = { steps = 60, batch_size = 2, save_steps = 25 }

[eval]
limit = 2
kl_prompts = 2
max_new_tokens = 4
"#;

/// Submits a job: runs it as soon as the jobs that it waits for are over, one element after the other, unless the file `hold` is there.
const SBATCH: &str = r#"#!/bin/sh
cd "$FAKE" || exit 1
if [ -s refuse ]; then cat refuse >&2; exit 1; fi
echo "$@" >>calls
number=$(($(cat number) + 1))
echo "$number" >number
needs=
for word; do
    case $word in
        --array=*) last=${word#--array=0-} ;;
        --output=*) log=${word#--output=} ;;
        --dependency=afterany:*) needs=$(echo "${word#--dependency=afterany:}" | tr : ' ') ;;
    esac
    script=$word
done
# As Slurm does: from here on another file may take its place.
cd "$OLDPWD" || exit 1
cp "$script" "$FAKE/$number.sh"
for i in $(seq 0 "$last"); do echo 'PENDING|Dependency|' >"$FAKE/states/${number}_$i"; done
echo "$number"
[ -e "$FAKE/hold" ] && exit
(
    for need in $needs; do
        while grep -qsE '^(PENDING|RUNNING)' "$FAKE"/states/"${need}"_*; do sleep 0.05; done
    done
    for i in $(seq 0 "$last"); do
        element=${number}_$i
        again=yes
        while [ "$again" ]; do
            again=
            echo 'RUNNING|None|node1' >"$FAKE/states/$element"
            SLURM_ARRAY_JOB_ID=$number SLURM_ARRAY_TASK_ID=$i SLURM_CPUS_PER_TASK=1 \
                sh "$FAKE/$number.sh" >>"$(echo "$log" | sed "s/%A_%a/$element/")" 2>&1 && state=COMPLETED || state=FAILED
            echo "$element $state" >>"$FAKE/ended"
            [ -e "$FAKE/requeue-$element" ] && rm "$FAKE/requeue-$element" && again=yes
        done
        echo "$state||node1" >"$FAKE/states/$element"
    done
) >/dev/null 2>&1 </dev/null &
"#;

const SQUEUE: &str = r#"#!/bin/sh
cd "$FAKE" || exit 1
if [ -s down ]; then cat down >&2; exit 1; fi
for word; do case $word in --jobs=*) jobs=,${word#--jobs=}, ;; esac; done
found=
for state in states/*; do
    element=${state#states/}
    case $jobs in *,${element%_*},*) found=yes; echo "$element|$(cat "$state")" ;; esac
done
[ "$found" ] || { echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1; }
"#;

const SACCT: &str = r#"#!/bin/sh
cat "$FAKE/accounts" 2>/dev/null || { echo 'Slurm accounting storage is disabled' >&2; exit 1; }
"#;

const SCONTROL: &str = r#"#!/bin/sh
touch "$FAKE/requeue-$2"
"#;

const SCANCEL: &str = r#"#!/bin/sh
for element; do
    echo "$element" >>"$FAKE/cancelled"
    echo 'CANCELLED||' >"$FAKE/states/$element"
done
"#;

/// A directory with a study's file and a Slurm.
struct Cluster {
    dir: tempfile::TempDir,
}

impl Cluster {
    fn new(study: &str) -> Cluster {
        let cluster = Cluster { dir: tempfile::tempdir().unwrap() };
        for dir in ["bin", "fake/states"] {
            std::fs::create_dir_all(cluster.at(dir)).unwrap();
        }
        std::fs::write(cluster.at("study.toml"), study).unwrap();
        std::fs::write(cluster.at("fake/number"), "100").unwrap();
        let scripts =
            [("sbatch", SBATCH), ("squeue", SQUEUE), ("sacct", SACCT), ("scontrol", SCONTROL), ("scancel", SCANCEL)];
        for (name, script) in scripts {
            use std::os::unix::fs::PermissionsExt;
            let path = cluster.at("bin").join(name);
            std::fs::write(&path, script).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        cluster
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.at(name)).unwrap_or_default()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.at(name), text).unwrap();
    }

    /// The study in `out`, with more words.
    fn study(&self, out: &str, more: impl Line) -> Command {
        let mut command = Command::new(program());
        command.current_dir(env!("CARGO_MANIFEST_DIR")).arg("study").arg("--config").arg(self.at("study.toml"));
        command.arg("--out").arg(self.at(out)).args(more.words()).stdin(Stdio::null());
        let path = format!("{}:{}", self.at("bin").display(), std::env::var("PATH").unwrap());
        command.env("PATH", path).env("FAKE", self.at("fake")).env("RAYON_NUM_THREADS", "1");
        command
    }

    fn run(&self, more: impl Line) -> Output {
        self.study("out", more).output().unwrap()
    }

    fn succeeds(&self, more: &str) -> String {
        let output = self.run(more);
        assert!(output.status.success(), "{more}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What `--status` prints of the tasks of a kind.
    fn status(&self, title: &str) -> String {
        let text = self.succeeds("--status");
        let group = text.split("\n\n").find(|group| group.trim_start().starts_with(title));
        group.unwrap_or_else(|| panic!("nothing is {title}: {text}")).to_string()
    }

    /// How the elements of the jobs stand, without their numbers.
    fn states(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.at("fake/states")).unwrap();
        let state =
            |path: PathBuf| std::fs::read_to_string(path).unwrap().split('|').next().unwrap().trim().to_string();
        entries.map(|entry| state(entry.unwrap().path())).collect()
    }

    fn wait_until_over(&self) {
        wait_for("the jobs are over", || {
            self.states().iter().all(|state| !["PENDING", "RUNNING", ""].contains(&state.as_str()))
        });
    }

    /// The element of the job that a task was last submitted in.
    fn element(&self, task: &str) -> String {
        let records = std::fs::read_dir(self.at("out/slurm")).unwrap().map(|entry| entry.unwrap().path());
        let mut records: Vec<PathBuf> = records.filter(|path| path.extension().is_some_and(|e| e == "json")).collect();
        records.sort();
        let found = records.iter().rev().find_map(|path| {
            let record: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
            let at = record["tasks"].as_array().unwrap().iter().position(|name| name == task)?;
            Some(format!("{}_{at}", record["job"]))
        });
        found.unwrap_or_else(|| panic!("{task} was not submitted"))
    }

    fn set_state(&self, task: &str, state: &str) {
        self.write(&format!("fake/states/{}", self.element(task)), state);
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(240), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The processes of an element of a job, as Slurm finds them.
fn processes(element: &str) -> Vec<Pid> {
    let variable = format!("JIGSAW_STUDY_JOB={element}");
    let is_of_it = |process: &Path| {
        let environment = std::fs::read(process.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|found| found == variable.as_bytes())
    };
    let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let number = |path: PathBuf| path.file_name()?.to_str()?.parse().ok().and_then(Pid::from_raw);
    processes.filter(|path| is_of_it(path)).filter_map(number).collect()
}

/// The models that the study in `out` has trained.
fn models(cluster: &Cluster, out: &str) -> Vec<Vec<u8>> {
    let model = |seed: u32| cluster.at(out).join(format!("runs/sft.lr-1e-4.seed-{seed}/model/model.safetensors"));
    [1, 2].map(|seed| std::fs::read(model(seed)).unwrap()).to_vec()
}

#[test]
fn jobs_run_a_study_to_its_end_and_preempted_ones_end_with_the_same_bytes() {
    let cluster = Cluster::new(STUDY);
    let printed = cluster.succeeds("--executor slurm --retries 1 -- --partition=cpu --time=01:00:00");
    assert!(
        printed.starts_with("10 tasks submitted, 0 queued before, 0 done; jigsaw study --status --out"),
        "{printed}"
    );
    let calls = cluster.read("fake/calls");
    let call = |name: &str| calls.lines().find(|line| line.contains(&format!("--job-name=jigsaw.{name} "))).unwrap();
    assert!(call("train.regimes.sft").contains("--array=0-1 "), "both seeds are one array: {calls}");
    assert!(
        calls.lines().all(|line| line.contains("--requeue ") && line.contains(" --partition=cpu --time=01:00:00 "))
    );
    // Puzzles and prior are 101 and 102; training needs the puzzles alone.
    assert!(call("train.regimes.sft").contains("--dependency=afterany:101 "), "{calls}");
    // The same again submits nothing twice.
    let again = cluster.succeeds("--executor slurm");
    assert!(again.starts_with("0 tasks submitted, ") && !again.contains(" 0 queued before"), "{again}");

    // The first run is preempted after some steps: Slurm signals all its processes and queues the job again. The second reaches its limit.
    let (first, second) = (cluster.element("train.sft.lr-1e-4.seed-1"), cluster.element("train.sft.lr-1e-4.seed-2"));
    let steps = |seed: u32| cluster.read(&format!("out/runs/sft.lr-1e-4.seed-{seed}/metrics.jsonl")).lines().count();
    wait_for("the first run begins", || steps(1) > 2);
    let running = cluster.status("running");
    assert!(running.contains(&format!("train.sft.lr-1e-4.seed-1  [node1, job {first} RUNNING]")), "{running}");
    assert!(cluster.status("queued").contains("report  [job"), "{running}");
    cluster.write(&format!("fake/requeue-{first}"), "");
    for process in processes(&first) {
        // One may have ended on its own.
        let _ = kill_process(process, Signal::TERM);
    }
    wait_for("the second run begins", || steps(2) > 2);
    let batch = processes(&second).into_iter().min_by_key(|process| process.as_raw_nonzero()).unwrap();
    kill_process(batch, Signal::USR1).unwrap();
    cluster.wait_until_over();
    assert!(cluster.states().iter().all(|state| state == "COMPLETED"), "{}", cluster.read("fake/ended"));
    let ended = cluster.read("fake/ended");
    for element in [&first, &second] {
        let times = |state: &str| ended.lines().filter(|line| *line == format!("{element} {state}")).count();
        assert_eq!([times("FAILED"), times("COMPLETED")], [1, 1], "stopped, and then done: {ended}");
    }
    assert!(cluster.read(&format!("out/slurm/{second}.log")).contains("the job is queued again"));
    assert!(cluster.at("out/report.html").exists());
    assert!(cluster.succeeds("--status").contains("10 of 10 tasks done\n"));

    // As the local executor does it without a break.
    let tasks = "--only puzzles.bare --only train.sft.lr-1e-4.seed-1 --only train.sft.lr-1e-4.seed-2";
    let output = cluster.study("local", tasks).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(models(&cluster, "out") == models(&cluster, "local"));
}

#[test]
fn what_becomes_of_jobs_is_said_and_the_same_command_goes_on() {
    let cluster = Cluster::new(STUDY);
    cluster.write("fake/hold", "");
    // The third call of sbatch is refused.
    let limit = "sbatch: error: QOSMaxSubmitJobPerUserLimit";
    let sbatch = cluster.read("bin/sbatch");
    cluster.write(
        "bin/sbatch",
        &sbatch.replace(
            "if [ -s refuse ]",
            "[ \"$(cat number)\" -ge 102 ] && [ ! -e grown ] && cp limit refuse\nif [ -s refuse ]",
        ),
    );
    cluster.write("fake/limit", limit);
    let refused = cluster.run("--executor slurm");
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    for part in [limit, "2 tasks were submitted and stay queued", "the same command submits the rest"] {
        assert!(said(&refused).contains(part), "{part}: {}", said(&refused));
    }
    std::fs::remove_file(cluster.at("fake/refuse")).unwrap();
    cluster.write("fake/grown", "");
    assert!(cluster.succeeds("--executor slurm").starts_with("8 tasks submitted, 2 queued before, 0 done"));

    // One of each kind.
    let [puzzles, prior, base] = ["puzzles.bare", "prior", "base.bare"];
    let [one, two] = ["train.sft.lr-1e-4.seed-1", "train.sft.lr-1e-4.seed-2"];
    cluster.set_state(puzzles, "CANCELLED||");
    cluster.set_state(prior, "NODE_FAIL|NodeDown|node2");
    std::fs::remove_file(cluster.at(&format!("fake/states/{}", cluster.element(base)))).unwrap();
    cluster.set_state(one, "OUT_OF_MEMORY||node1");
    cluster.set_state(two, "PENDING|Resources|");
    let stopped = cluster.status("stopped");
    for part in [
        format!(
            "puzzles.bare  [job {} CANCELLED]  the job was cancelled; the same command goes on",
            cluster.element(puzzles)
        ),
        format!("prior  [node2, job {} NODE_FAIL]  the node died", cluster.element(prior)),
        format!("job {} (eval.", cluster.element(base)),
        "is gone: Slurm does not know it".into(),
    ] {
        assert!(stopped.contains(&part), "{part}: {stopped}");
    }
    assert!(
        cluster.status("failed").contains("seed-1  [node1, job ") && cluster.status("failed").contains("more memory")
    );
    assert!(cluster.status("queued").contains(&format!("{two}  [job {} PENDING]  Resources", cluster.element(two))));
    let waiting = cluster.element(two);
    // Accounts remember what the queue has forgotten.
    cluster.write("fake/accounts", &format!("{}|CANCELLED by 1000|None assigned\n", cluster.element(base)));
    assert!(!cluster.status("stopped").contains("is gone"));
    // What waits for one that is submitted again must wait for the new job.
    assert!(cluster.succeeds("--executor slurm").starts_with("10 tasks submitted, 0 queued before, 0 done"));
    assert!(cluster.read("fake/cancelled").contains(&format!("{waiting}\n")), "{}", cluster.read("fake/cancelled"));

    // Nothing is submitted where nobody knows what is queued.
    cluster.write("fake/down", "slurm_load_jobs error: Unable to contact slurm controller");
    let calls = cluster.read("fake/calls");
    let down = cluster.run("--executor slurm");
    assert_eq!(down.status.code(), Some(1), "{}", said(&down));
    assert!(
        said(&down).contains("nothing was submitted") && said(&down).contains("Unable to contact"),
        "{}",
        said(&down)
    );
    assert_eq!(cluster.read("fake/calls"), calls);
    assert!(
        cluster.succeeds("--status").contains("note: what is queued is not known: squeue refuses: slurm_load_jobs")
    );
}

#[test]
fn a_task_that_fails_says_why_is_tried_again_and_keeps_what_needs_it() {
    let cluster = Cluster::new(&STUDY.replace("seeds = [1, 2]", "").replace("steps = 60", "steps = 6"));
    // The first two attempts are killed after a step.
    let kill = format!(
        "f={}; [ $(cat $f 2>/dev/null | wc -l) -ge 2 ] || {{ read a; echo >>$f; kill -KILL $PPID; }}; cat >/dev/null",
        cluster.at("kills").display()
    );
    let run = |more: &str| cluster.study("out", more).env("JIGSAW_METRICS_COMMAND", &kill).output().unwrap();
    assert!(run("--executor slurm").status.success());
    cluster.wait_until_over();
    let failed = cluster.status("failed");
    let element = cluster.element("train.sft.lr-1e-4.seed-1");
    assert!(
        failed.contains(&format!("train.sft.lr-1e-4.seed-1  [node1, job {element} FAILED]  killed by signal 9")),
        "{failed}"
    );
    let text = cluster.succeeds("--status");
    assert!(
        text.contains("not begun: 1 task, 1 of which need a task that failed") && text.contains("6 of 8"),
        "{text}"
    );
    assert!(cluster.at("out/report.html").exists(), "a report of what there is");

    // The second is the last kill.
    assert!(run("--executor slurm --retries 1").status.success());
    cluster.wait_until_over();
    let text = cluster.succeeds("--status");
    assert!(text.contains("8 of 8 tasks done"), "{text}");
    let log = cluster.read(&format!("out/slurm/{}.log", cluster.element("train.sft.lr-1e-4.seed-1")));
    assert!(log.contains("killed by signal 9") && log.contains("; it is tried again"), "{log}");

    // The same without Slurm.
    let _ = std::fs::remove_file(cluster.at("kills"));
    let local = |more: &str| cluster.study("local", more).env("JIGSAW_METRICS_COMMAND", &kill).output().unwrap();
    let once = local("");
    assert_eq!(once.status.code(), Some(1), "{}", said(&once));
    let status = cluster.study("local", "--status").output().unwrap();
    let status = String::from_utf8(status.stdout).unwrap();
    assert!(status.contains("train.sft.lr-1e-4.seed-1  [") && status.contains("]  killed by signal 9"), "{status}");
    let again = local("--retries 1");
    assert!(again.status.success() && said(&again).contains("; it is tried again"), "{}", said(&again));
}

#[test]
fn what_cannot_be_is_refused() {
    let cluster = Cluster::new(STUDY);
    for (more, part) in [
        ("-- --partition=cpu", "options for sbatch need --executor slurm"),
        ("--executor slurm --jobs 2", "Slurm decides how many tasks run at once"),
        ("--executor slurm -- --array=1-3", "--array=1-3 among the options of sbatch"),
        ("--executor slurm -- -n4", "give --ntasks before the --"),
        ("--executor condor", "invalid value 'condor'"),
        ("--status", "no study in"),
        ("--status --dry-run", "cannot be used with"),
        ("--launcher ' '", "--launcher: give what starts processes"),
        #[cfg(not(feature = "mpi"))]
        ("--ntasks 2", "built without MPI"),
    ] {
        let output = cluster.run(more);
        assert!(output.status.code() == Some(2) && said(&output).contains(part), "{more}: {}", said(&output));
    }
    let output = cluster.study("out", "--executor slurm").env("PATH", cluster.at("fake")).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("sbatch is not on the PATH"), "{}", said(&output));
}
