//! The commands of README.md and docs/*.md, typed from top to bottom: a fresh directory for each page, with the repository's `configs`, `data` and
//! `scripts` in it. Every command must end with exit code 0.
//!
//! A block of commands is indented by four spaces and has a line that begins with a program ([`PROGRAMS`]). The commands do less work than
//! printed ([`LESS`]): fewer examples, steps and pairs; a study other than `study-quick` is only planned. Comments in the page, invisible
//! to readers, say what a block needs that is not here. Each stands alone on its line, before the block:
//!
//! - `<!-- test: skip: REASON -->`: the block is not run, because it needs a network, a GPU, a cluster or hours.
//! - `<!-- test: setup: COMMANDS -->`: these are run first; they make what a reader has already, such as a folder of photos.
//! - `<!-- test: file: NAME -->`: the block is written to this file.
//!
//! Left out are logs and results of their day: [`DATED`] and the folders of `docs`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const PROGRAMS: [&str; 9] =
    ["jigsaw", "cargo", "export", "python3", "scripts/", "source", "target/", "tensorboard", "vllm"];
const DATED: [&str; 1] = ["experiments.md"];

/// `jigsaw` on the path: the program with less to do.
const LESS: &str = r#"#!/usr/bin/env bash
set -eu
words=("$@")
# Lower the value of a flag, or give it: FLAG MOST.
most() {
    local i
    for i in "${!words[@]}"; do
        if [[ ${words[i]} == "$1" ]]; then
            if (( words[i + 1] > $2 )); then words[i + 1]=$2; fi
            return
        fi
    done
    words+=("$1" "$2")
}
lower() { if [[ " ${words[*]} " == *" $1 "* ]]; then most "$1" "$2"; fi; }
set_values() { local value; for value in "$@"; do words+=(--set "$value"); done; }
case ${1:-} in
gen)
    most --count 40
    lower --stream 40
    ;;
train)
    steps=4
    if [[ " ${words[*]} " == *" --resume "* ]]; then
        steps=6
    elif [[ " ${words[*]} " == *" train.epochs="* ]]; then
        steps=
    fi
    if [[ " ${words[*]} " != *" --print-config "* && " ${words[*]} " != *" --resume "* ]]; then
        set_values train.batch_size=4 train.warmup_steps=0 train.save_steps=2 eval.limit=4
        # A model of four steps is hardly ever right.
        if [[ " ${words[*]} " == *resample_every* && " ${words[*]} " != *sft.keep* ]]; then set_values sft.keep=well-formed; fi
        if [[ " ${words[*]} " == *" rft "* ]]; then
            set_values rollout.num_generations=4 rollout.max_new_tokens=16
        fi
    fi
    if [[ -n $steps ]]; then set_values train.steps=$steps; fi
    ;;
eval)
    if [[ " ${words[*]} " != *" --rescore "* ]]; then most --limit 8; fi
    if [[ " ${words[*]} " == *" --baseline"* ]]; then most --kl-prompts 4; fi
    lower --max-new-tokens 32
    ;;
rollout)
    most --limit 12
    lower --num-generations 4
    if [[ " ${words[*]} " != *" --teacher "* ]]; then most --max-new-tokens 32; fi
    if [[ " ${words[*]} " != *" --keep "* && " ${words[*]} " != *" --answer "* ]]; then words+=(--keep well-formed); fi
    ;;
dynamics)
    most --pairs 2
    most --max-new-tokens 16
    ;;
study)
    if [[ " ${words[*]} " != *"study-quick"* ]]; then
        words=("${words[@]/--dry-run/--list}")
        if [[ " ${words[*]} " != *" --list "* ]]; then words+=(--list); fi
    else
        set_values puzzles.bare.count=400 puzzles.thought.count=400 'prior.suite="vqa,pope"' prior.count=40 rollouts.grpo.keep=well-formed rollouts.grpo.limit=20 \
            eval.checkpoints=0 eval.kl_prompts=2 eval.max_new_tokens=32
        for regime in rft sft-non-rea sft-rea-grpo-rollout; do
            set_values regimes.$regime.train.{steps=2,warmup_steps=0,batch_size=4}
        done
    fi
    ;;
esac
exec "$JIGSAW_BINARY" "${words[@]}"
"#;

/// `cargo` on the path: what it would build is there.
const CARGO: &str = r#"#!/usr/bin/env bash
while [[ $# -gt 0 && $1 != -- ]]; do shift; done
if [[ $# -gt 1 ]]; then shift; exec jigsaw "$@"; fi
"#;

/// What is done with a page: shell commands in order.
#[derive(Default)]
struct Page {
    script: String,
    commands: usize,
}

/// The commands of a page as a shell script.
///
/// # Errors
/// A comment `test:` that says something else than those above, or that no block follows.
fn read(text: &str) -> Result<Page, String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut page = Page::default();
    let mut marks: Vec<(&str, &str)> = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        if let Some(mark) = lines[at].strip_prefix("<!-- test: ") {
            let mark =
                mark.strip_suffix(" -->").ok_or(format!("line {}: the comment does not end on its line", at + 1))?;
            marks.push(mark.split_once(": ").ok_or(format!("line {}: no kind and text: {mark}", at + 1))?);
        }
        // A block follows an empty line; an item of a list is no block.
        let begins = lines[at].starts_with("    ") && (at == 0 || lines[at - 1].trim().is_empty());
        if !begins {
            at += 1;
            continue;
        }
        let end = (at..lines.len()).find(|&i| !lines[i].starts_with("    ")).unwrap_or(lines.len());
        let block: Vec<&str> = lines[at..end].iter().map(|line| &line[4..]).collect();
        let is_command = |line: &&str| {
            let mut words = line
                .split(' ')
                .skip_while(|word| word.split('=').next().is_some_and(is_variable) && word.contains('='));
            words
                .next()
                .is_some_and(|word| PROGRAMS.iter().any(|p| word == *p || p.ends_with('/') && word.starts_with(p)))
        };
        let (mut skipped, mut file) = (false, None);
        for (kind, said) in std::mem::take(&mut marks) {
            match kind {
                "skip" if !said.is_empty() => skipped = true,
                "setup" => page.script += &format!("{said}\n"),
                "file" => file = Some(said),
                _ => return Err(format!("line {}: unknown comment `test: {kind}`", at + 1)),
            }
        }
        if let Some(file) = file {
            page.script += &format!("cat > {file} <<'END_OF_FILE'\n{}\nEND_OF_FILE\n", block.join("\n"));
        } else if !skipped && block.iter().any(is_command) {
            page.commands += 1;
            page.script += &format!("# line {}\n{}\n", at + 1, block.join("\n"));
        }
        at = end;
    }
    match marks.first() {
        Some((kind, said)) => Err(format!("no block follows the comment `test: {kind}: {said}`")),
        None => Ok(page),
    }
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_')
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Run a page in a directory of its own.
fn typed(page: &str) {
    let script = read(&fs::read_to_string(root().join(page)).unwrap()).unwrap_or_else(|e| panic!("{page}: {e}"));
    assert!(script.commands > 0, "{page} has no commands; take it out of this test");
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("doc-commands").join(page.replace('/', "-"));
    let _ = fs::remove_dir_all(&dir);
    let (bin, work) = (dir.join("bin"), dir.join("work"));
    [&bin, &work].iter().for_each(|dir| fs::create_dir_all(dir).unwrap());
    for (name, text) in [("jigsaw", LESS), ("cargo", CARGO)] {
        fs::write(bin.join(name), text).unwrap();
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    for shared in ["configs", "data", "scripts"] {
        std::os::unix::fs::symlink(root().join(shared), work.join(shared)).unwrap();
    }
    let log = dir.join("log");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    // A trap tells which command it was.
    let text = format!("set -euo pipefail\ntrap 'echo \"failed: $BASH_COMMAND\" >&2' ERR\n{}", script.script);
    let file = fs::File::create(&log).unwrap();
    let status = Command::new("bash")
        .args(["-c", &text])
        .current_dir(&work)
        .env("PATH", path)
        .env("HOME", &work)
        .env("JIGSAW_BINARY", env!("CARGO_BIN_EXE_jigsaw"))
        .stdin(Stdio::null())
        .stdout(file.try_clone().unwrap())
        .stderr(file)
        .status()
        .unwrap();
    let said = fs::read_to_string(&log).unwrap();
    let tail: Vec<&str> = said.lines().rev().take(25).collect();
    let tail: Vec<&str> = tail.into_iter().rev().collect();
    assert!(status.success(), "{page}: {status}; the end of {}:\n{}", log.display(), tail.join("\n"));
    fs::remove_dir_all(&dir).unwrap();
}

macro_rules! pages {
    ($($name:ident: $page:literal,)*) => {
        $(#[test]
        fn $name() {
            typed($page);
        })*
        const PAGES: &[&str] = &[$($page),*];
    };
}

pages! {
    readme: "README.md",
    benchmarks: "docs/benchmarks.md",
    countdown: "docs/countdown.md",
    dynamics: "docs/dynamics.md",
    forgetting: "docs/forgetting.md",
    lora: "docs/lora.md",
    maths: "docs/maths.md",
    other_tools: "docs/other-tools.md",
    own_benchmark: "docs/own-benchmark.md",
    own_checkpoint: "docs/own-checkpoint.md",
    own_images: "docs/own-images.md",
    paper_map: "docs/paper-map.md",
    reading_the_report: "docs/reading-the-report.md",
    results: "docs/results.md",
    rewards: "docs/rewards.md",
    rollouts: "docs/rollouts.md",
    sequence: "docs/sequence.md",
    slurm: "docs/slurm.md",
    stopping: "docs/stopping.md",
    study: "docs/study.md",
    suites: "docs/suites.md",
    tutorial: "docs/tutorial.md",
}

/// README.md and the pages of docs, without the dated ones.
fn pages() -> Vec<String> {
    let names =
        fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names = names.filter(|name| name.ends_with(".md") && !DATED.contains(&name.as_str()));
    names.map(|name| format!("docs/{name}")).chain(["README.md".to_string()]).collect()
}

#[test]
fn every_link_to_a_file_leads_somewhere() {
    for page in pages() {
        let text = fs::read_to_string(root().join(&page)).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap();
            let there = file.is_empty() || file.contains("://") || root().join(&page).with_file_name(file).exists();
            assert!(there, "{page}: no {file}");
        }
    }
}

#[test]
fn every_page_with_commands_is_tried() {
    for page in pages() {
        let text = fs::read_to_string(root().join(&page)).unwrap();
        let commands = read(&text).unwrap_or_else(|e| panic!("{page}: {e}")).commands;
        assert_eq!(commands > 0, PAGES.contains(&page.as_str()), "{page} has {commands} blocks of commands");
        assert!(!text.lines().any(|line| line.starts_with("```")), "{page}: indent commands by four spaces");
    }
}

#[test]
fn blocks_and_comments_are_told_apart() {
    let page = "Text\n\n    jigsaw gen \\\n        --out o\n\n    A = b\n\n1. Item\n    jigsaw no\n\n<!-- test: skip: needs a GPU -->\n\n    jigsaw gpu\n\n\
                <!-- test: file: t.tsv -->\n\n    a\tb\n\n<!-- test: setup: mkdir x -->\n\n    KEY=v jigsaw eval\n";
    let read = |text: &str| read(text).map(|page| page.script);
    let expected = "# line 3\njigsaw gen \\\n    --out o\ncat > t.tsv <<'END_OF_FILE'\na\tb\nEND_OF_FILE\nmkdir x\n# line 21\nKEY=v jigsaw eval\n";
    assert_eq!(read(page).unwrap(), expected);
    assert!(read("<!-- test: maybe: x -->\n\n    jigsaw\n").unwrap_err().contains("unknown comment"));
    assert!(read("<!-- test: skip: x -->\n").unwrap_err().contains("no block follows"));
    assert!(Path::new(env!("CARGO_BIN_EXE_jigsaw")).is_file());
}
