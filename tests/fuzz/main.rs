//! The parsers of what comes from others, on inputs that nobody would write: whatever the bytes, a parser ends soon, in little memory, without
//! a panic or an overflow of the stack, and its error is one of the input (exit code 2) that names the file.
//!
//! Each target runs in processes of its own, which are this test binary again. A process notes the number of the input before it tries it, so
//! that one which ends it is known, and the next process goes on after it. `scripts/fuzz.sh` makes the published table.

mod mutate;
mod targets;

use jigsaw::io::text::{MAX_MESSAGE, message};
use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::io::{Seek, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use targets::{TARGETS, Target, Verdict};

/// What a worker is to do: `target seed from to seconds directory`.
const JOB: &str = "JIGSAW_FUZZ_JOB";
/// Longest time at work for one input.
const MAX_TIME: Duration = Duration::from_secs(20);
/// A worker that stands still for so long is ended. A machine with other work on it is slower than the parser.
const MAX_SILENCE: Duration = Duration::from_secs(300);
/// Bytes beyond which a worker ends itself, before the machine is out of memory.
const MAX_HELD: usize = 4 << 30;

/// Counts the bytes that are held, and the most since it was last asked.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

fn take(bytes: usize) {
    let held = HELD.fetch_add(bytes, Ordering::Relaxed) + bytes;
    MOST.fetch_max(held, Ordering::Relaxed);
    if held > MAX_HELD {
        std::process::abort();
    }
}

// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What went wrong with an input.
#[derive(Debug)]
struct Find {
    target: String,
    number: u64,
    what: String,
}

/// What the inputs to a target came to.
#[derive(Debug, Default)]
struct Tally {
    inputs: u64,
    accepted: u64,
    seconds: f64,
    most_bytes: usize,
    finds: Vec<Find>,
}

static LAST_PANIC: Mutex<String> = Mutex::new(String::new());

/// Time that all threads of this process were at work; where the system does not say it, time that went by.
fn at_work(since: Instant) -> Duration {
    // Hundredths of seconds; the name of the program, in brackets, may hold blanks.
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|field| field.parse::<u64>().ok());
    match (ticks(11), ticks(12)) {
        (Some(user), Some(system)) => Duration::from_millis(10 * (user + system)),
        _ => since.elapsed(),
    }
}

/// Whether a template that took too long is still at work (see `template_limits.rs`). It would count for the next input.
fn is_busy() -> bool {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    threads
        .filter_map(|thread| fs::read_to_string(thread.path().join("comm")).ok())
        .any(|name| name.trim() == "chat template")
}

/// Try one input; whether it was accepted, or what went wrong.
fn attempt(target: &Target, place: &Path, bytes: &[u8]) -> (Result<bool, String>, usize) {
    let before = HELD.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let began = Instant::now();
    let work_before = at_work(began);
    let verdict = catch_unwind(AssertUnwindSafe(|| (target.run)(place, bytes)));
    let (took, most) =
        (at_work(began).saturating_sub(work_before), MOST.load(Ordering::Relaxed).saturating_sub(before));
    let found = match verdict {
        Err(_) => Err(format!("panic: {}", LAST_PANIC.lock().unwrap())),
        Ok(_) if took > MAX_TIME => Err(format!("slow: {:.1} s", took.as_secs_f64())),
        Ok(_) if most > target.max_bytes => Err(format!("memory: {} MiB", most >> 20)),
        Ok(Verdict::Accepted) => Ok(true),
        Ok(Verdict::Unnamed(_)) => Ok(false),
        Ok(Verdict::Refused(e)) => match e.to_string() {
            text if e.exit_code() != 2 => Err(format!("exit code {}: {text}", e.exit_code())),
            text if !text.contains(target.file) => Err(format!("names no file: {text}")),
            text if message(&text).len() > 2 * MAX_MESSAGE => Err(format!("a message of {} bytes", text.len())),
            _ => Ok(false),
        },
    };
    (found, most)
}

/// The work of a process: does nothing in a test run.
#[test]
#[ignore = "run by the other tests"]
fn worker() {
    let Ok(job) = std::env::var(JOB) else { return };
    let words: Vec<&str> = job.splitn(6, ' ').collect();
    let number = |i: usize| words[i].parse::<u64>().unwrap();
    let target = TARGETS.iter().find(|target| target.name == words[0]).unwrap();
    let (seed, from, to, seconds) = (number(1), number(2), number(3), number(4));
    let dir = Path::new(words[5]);
    std::panic::set_hook(Box::new(|info| *LAST_PANIC.lock().unwrap() = info.to_string().replace('\n', " ")));
    let seeds = (target.seeds)();
    let place = dir.join("place");
    fs::create_dir_all(&place).unwrap();
    (target.prepare)(&place);
    let mut at = fs::File::create(dir.join("at")).unwrap();
    let mut lines = fs::File::options().create(true).append(true).open(dir.join("finds")).unwrap();
    let began = Instant::now();
    let (mut accepted, mut done, mut most_bytes) = (0, 0, 0);
    for i in from..to {
        if seconds > 0 && began.elapsed().as_secs() >= seconds {
            break;
        }
        at.rewind().unwrap();
        write!(at, "{i:>20} {accepted:>20} {most_bytes:>20}").unwrap();
        let bytes = mutate::input(target.name, seed, i, &seeds, target.dictionary);
        let (found, most) = attempt(target, &place, &bytes);
        most_bytes = most_bytes.max(most);
        done += 1;
        match found {
            Ok(yes) => accepted += u64::from(yes),
            Err(what) => writeln!(lines, "{i}\t{}", what.replace(['\n', '\t'], " ")).unwrap(),
        }
        // A thread that has just answered needs a moment to end.
        if is_busy() {
            std::thread::sleep(Duration::from_millis(50));
            if is_busy() {
                break;
            }
        }
    }
    fs::write(dir.join("done"), format!("{done} {accepted} {most_bytes}")).unwrap();
}

/// Try `count` inputs to a target, from `seed`, for `seconds` at most (0: as long as it takes).
fn fuzz(target: &Target, seed: u64, count: u64, seconds: u64) -> Tally {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (began, mut from, mut tally) = (Instant::now(), 0, Tally::default());
    let numbers = |name: &str| -> Vec<u64> {
        let text = fs::read_to_string(path(name)).unwrap_or_default();
        text.split_whitespace().map(|word| word.parse().unwrap()).collect()
    };
    while from < count {
        let left = seconds.saturating_sub(began.elapsed().as_secs());
        if seconds > 0 && left == 0 {
            break;
        }
        let _ = (fs::remove_file(path("at")), fs::remove_file(path("done")));
        let job = format!("{} {seed} {from} {count} {left} {}", target.name, dir.path().display());
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["worker", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
            .env(JOB, job)
            .env("RAYON_NUM_THREADS", "2")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (mut moved, mut at) = (Instant::now(), Vec::new());
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            let now = numbers("at");
            if now != at {
                (moved, at) = (Instant::now(), now);
            } else if moved.elapsed() > MAX_SILENCE {
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        match (status, numbers("done").as_slice()) {
            (Some(status), &[done, accepted, most]) if status.success() => {
                tally.inputs += done;
                tally.accepted += accepted;
                tally.most_bytes = tally.most_bytes.max(most as usize);
                from += done;
            }
            (status, _) => {
                let &[number, accepted, most] = numbers("at").as_slice() else {
                    panic!("{}: the worker ended at its start ({status:?})", target.name);
                };
                tally.inputs += number + 1 - from;
                tally.accepted += accepted;
                tally.most_bytes = tally.most_bytes.max(most as usize);
                let what = status.map_or("stood still".to_string(), |status| format!("ended the process: {status}"));
                tally.finds.push(Find { target: target.name.into(), number, what });
                from = number + 1;
            }
        }
    }
    let finds = fs::read_to_string(path("finds")).unwrap_or_default();
    for (number, what) in finds.lines().filter_map(|line| line.split_once('\t')) {
        let find = Find { target: target.name.into(), number: number.parse().unwrap(), what: what.into() };
        tally.finds.push(find);
    }
    tally.seconds = began.elapsed().as_secs_f64();
    tally
}

fn assert_no_finds(tallies: &[Tally]) {
    let lines = |find: &Find| format!("{} input {}: {}", find.target, find.number, find.what);
    let finds: Vec<String> = tallies.iter().flat_map(|tally| &tally.finds).map(lines).collect();
    assert!(finds.is_empty(), "{} finds:\n{}", finds.len(), finds.join("\n"));
}

#[test]
fn every_parser_reads_or_refuses_what_nobody_would_write() {
    let tallies: Vec<Tally> = TARGETS.iter().map(|target| fuzz(target, 1, target.few, 0)).collect();
    assert_no_finds(&tallies);
    for (target, tally) in TARGETS.iter().zip(&tallies) {
        assert_eq!(tally.inputs, target.few, "{}", target.name);
    }
}

/// A minute for each target, or as `JIGSAW_FUZZ_SECONDS` and `JIGSAW_FUZZ_INPUTS` (of each target) say, from `JIGSAW_FUZZ_SEED`; the targets
/// in `JIGSAW_FUZZ_TARGETS`. Prints a table.
#[test]
#[ignore = "a minute for each of its targets"]
fn a_minute_for_each_parser() {
    let setting = |name: &str| std::env::var(name).ok();
    let number = |name: &str, default: u64| setting(name).map_or(default, |text| text.parse().unwrap());
    let (seconds, inputs) = (number("JIGSAW_FUZZ_SECONDS", 60), number("JIGSAW_FUZZ_INPUTS", u64::MAX));
    let (seed, only) = (number("JIGSAW_FUZZ_SEED", 2), setting("JIGSAW_FUZZ_TARGETS"));
    let wanted = |target: &&Target| only.as_ref().is_none_or(|names| names.split(' ').any(|name| name == target.name));
    println!("target\tinputs\taccepted\tfinds\tseconds\tpeak MiB");
    let mut tallies = Vec::new();
    for target in TARGETS.iter().filter(wanted) {
        let tally = fuzz(target, seed, inputs, seconds);
        let Tally { inputs, accepted, finds, seconds, most_bytes } = &tally;
        println!("{}\t{inputs}\t{accepted}\t{}\t{seconds:.0}\t{}", target.name, finds.len(), most_bytes >> 20);
        for find in finds {
            println!("# {} input {}: {}", find.target, find.number, find.what);
        }
        tallies.push(tally);
    }
    println!("total\t{}", tallies.iter().map(|tally| tally.inputs).sum::<u64>());
    assert_no_finds(&tallies);
}

/// Try one input again: `JIGSAW_FUZZ_ONE="TARGET SEED NUMBER"`. Prints what the parser says.
#[test]
#[ignore = "to look into a find"]
fn one() {
    let Ok(which) = std::env::var("JIGSAW_FUZZ_ONE") else { return };
    let words: Vec<&str> = which.split(' ').collect();
    let target = TARGETS.iter().find(|target| target.name == words[0]).unwrap();
    let bytes = mutate::input(
        target.name,
        words[1].parse().unwrap(),
        words[2].parse().unwrap(),
        &(target.seeds)(),
        target.dictionary,
    );
    let dir = tempfile::tempdir().unwrap();
    (target.prepare)(dir.path());
    println!("{}", String::from_utf8_lossy(&bytes[..bytes.len().min(4000)]));
    println!("{:?}", (target.run)(dir.path(), &bytes));
    println!("{:?}", attempt(target, dir.path(), &bytes));
}
