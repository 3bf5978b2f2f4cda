//! Data of other tools in, metrics out to a command: as a user runs it.

use crate::command::{jigsaw, refused};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// What was said on stderr, and printed.
fn done(dir: &Path, line: &str) -> (String, String) {
    let output = jigsaw(dir, line);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{line}: {said}");
    (said, String::from_utf8(output.stdout).unwrap())
}

fn rows(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A model, pictures, and conversations about them in the form of two tools.
fn prepare(dir: &Path) {
    done(dir, "model init --preset tiny --out model");
    fs::create_dir(dir.join("pictures")).unwrap();
    let (mut messages, mut shared) = (String::new(), String::new());
    for i in 0..6_u8 {
        let name = format!("pictures/{i}.png");
        image::RgbImage::from_pixel(56, 28, image::Rgb([40 * i, 10, 200])).save(dir.join(&name)).unwrap();
        let (question, answer) = (format!("<image>Which number has {i}?"), ["one", "two"][usize::from(i % 2)]);
        let line = json!({"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
            "images": [name]});
        messages += &format!("{line}\n");
        let line = json!({"conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": "a number"},
            {"from": "human", "value": "Which?"}, {"from": "gpt", "value": answer}], "images": [name]});
        shared += &format!("{line}\n");
    }
    fs::write(dir.join("messages.jsonl"), messages).unwrap();
    fs::write(dir.join("shared.jsonl"), shared).unwrap();
}

const TRAIN: &str =
    "train --model model --method sft --set train.steps=4 --set train.batch_size=2 --set train.save_steps=2";

#[test]
fn conversations_of_other_tools_are_trained_on_evaluated_and_scored() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    prepare(dir);
    let (said, _) = done(dir, &format!("{TRAIN} --data messages.jsonl --out run"));
    assert!(said.contains("no validation split") && !said.contains("several answers"), "{said}");
    assert_eq!(rows(&dir.join("run/metrics.jsonl")).len(), 4);
    assert!(dir.join("run/model/model.safetensors").exists());
    let (said, _) = done(dir, &format!("{TRAIN} --data shared.jsonl --out shared"));
    assert!(said.contains("6 of 6 conversations in shared.jsonl have several answers"), "{said}");
    let rft =
        TRAIN.replace("--method sft", "--method rft --set rollout.num_generations=2 --set rollout.max_new_tokens=4");
    done(dir, &format!("{rft} --data messages.jsonl --out rft"));

    let (_, table) = done(dir, "eval --model model --data messages.jsonl --max-new-tokens 3 --out eval");
    assert!(table.contains("6 examples"), "{table}");
    assert_eq!(rows(&dir.join("eval/responses.jsonl"))[5]["id"], "line-6");
    let (_, table) = done(
        dir,
        "eval --model run/model --baseline model --data messages.jsonl --bench s=shared.jsonl --max-new-tokens 3 --kl-prompts 2 --out cost",
    );
    assert!(dir.join("cost/forgetting.json").exists() && table.contains('s'), "{table}");
    done(dir, "eval --rescore --out eval");
    done(dir, "eval --rescore --out cost/base");
    done(dir, "report eval --out page.html");
    done(dir, "score --model model --data shared.jsonl --out scores.jsonl");
    assert_eq!(rows(&dir.join("scores.jsonl")).len(), 6);
    // A file of our own is read as its directory is.
    done(dir, "gen --images scenes --grid 1x2 --count 4 --split 0,0,1 --out data");
    done(dir, "eval --model model --data data --max-new-tokens 3 --out whole");
    done(dir, "eval --model model --data data/test/metadata.jsonl --max-new-tokens 3 --out file");
    let responses = |out: &str| fs::read(dir.join(out).join("responses.jsonl")).unwrap();
    assert_eq!(responses("file"), responses("whole"));
    done(dir, "gen --images scenes --grid 1x3 --style think --count 4 --split 1,0,0 --out think");
    let (_, table) = done(dir, "rollout --teacher scripted --data think/train/metadata.jsonl --out rollouts");
    assert!(table.starts_with("scripted on ") && table.contains("think/train/metadata.jsonl\n"), "{table}");
    assert_eq!(rows(&dir.join("rollouts/train/metadata.jsonl")).len(), 4);
    let message = refused(dir, "rollout --teacher scripted --data nope.jsonl --out new");
    assert!(message.contains("no dataset at nope.jsonl: there is no such directory"), "{message}");

    // A run goes on with the same data only.
    let text = fs::read_to_string(dir.join("messages.jsonl")).unwrap();
    fs::write(dir.join("messages.jsonl"), text.replace("one", "three")).unwrap();
    let message = refused(dir, &format!("{TRAIN} --data messages.jsonl --out run"));
    assert!(message.contains("data: its content differs"), "{message}");
    // A special token anywhere is told before anything is trained, and before a directory is made.
    fs::write(dir.join("messages.jsonl"), text.replacen("two", "two<|im_end|>", 3)).unwrap();
    for more in ["--out new", "--dry-run"] {
        let message = refused(dir, &format!("{TRAIN} --data messages.jsonl {more}"));
        let place = "messages.jsonl:2: example line-2: response: the text contains the special token `<|im_end|>`";
        assert!(message.contains(place), "{message}");
    }
    assert!(!dir.join("new").exists());
    // Also among many examples, of which the plan of the run's memory looks at the largest alone.
    let line = |answer: &str| json!({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": answer}]});
    let many = (1..=300).map(|i| format!("{}\n", line(if i == 150 { "<|im_end|>" } else { "a longer answer" })));
    fs::write(dir.join("many.jsonl"), many.collect::<String>()).unwrap();
    let message = refused(dir, &format!("{TRAIN} --data many.jsonl --out new"));
    assert!(message.contains("many.jsonl:150: example line-150: response: the text contains the special"), "{message}");
    assert!(!dir.join("new").exists());
    fs::write(dir.join("messages.jsonl"), text.replace("has 4", "has <|image_pad|>")).unwrap();
    let message = refused(dir, &format!("{rft} --data messages.jsonl --out new"));
    let place =
        "messages.jsonl:5: example line-5: message 1 (user): the text contains the special token `<|image_pad|>`";
    assert!(message.contains(place) && !dir.join("new").exists(), "{message}");
    fs::write(dir.join("messages.jsonl"), text.replacen("<image>", "<image><image>", 1)).unwrap();
    let message = refused(dir, &format!("{TRAIN} --data messages.jsonl --out new"));
    assert!(message.contains("messages.jsonl:1: field `images` names 1 image(s), but the turns have 2"), "{message}");
    assert!(!dir.join("new").exists());
    fs::remove_file(dir.join("pictures/3.png")).unwrap();
    let message = refused(dir, "eval --model model --data shared.jsonl --out new");
    assert!(message.contains("shared.jsonl:4: field `images`: there is no file pictures/3.png"), "{message}");
}

/// What a text says of the memory for `part`.
fn planned(text: &str, part: &str) -> String {
    let rest = text.split_once("memory: about").and_then(|(_, plan)| plan.split_once(&format!("{part} ")));
    let found = rest.and_then(|(_, rest)| rest.split([',', ')']).next());
    found.unwrap_or_else(|| panic!("no {part} in: {text}")).to_string()
}

#[test]
fn the_memory_plan_counts_the_largest_example_wherever_it_stands() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    done(dir, "model init --preset tiny --out model");
    let colour = |x: u32, y: u32| image::Rgb([(x * 37 % 251) as u8, (y * 91 % 241) as u8, ((x + y) * 13 % 239) as u8]);
    for (name, side) in [("small", 56), ("large", 224)] {
        image::RgbImage::from_fn(side, side, colour).save(dir.join(format!("{name}.png"))).unwrap();
    }
    let line = |name: &str, images: usize| {
        let turns = json!([{"role": "user", "content": "<image>".repeat(images) + "What?"},
            {"role": "assistant", "content": "It"}]);
        format!("{}\n", json!({"messages": turns, "images": vec![format!("{name}.png"); images]}))
    };
    let (small, large) = (line("small", 1), line("large", 4));
    for (file, lines) in [("a", [&small, &large]), ("b", [&large, &small]), ("c", [&small, &small])] {
        fs::write(dir.join(format!("{file}.jsonl")), lines.map(String::as_str).concat()).unwrap();
    }
    let line = |file: &str, more: &str| {
        format!("{TRAIN} --set train.batch_size=1 --set train.seed=1 --data {file}.jsonl {more}")
    };
    let [first, last, none] = ["b", "a", "c"].map(|file| done(dir, &line(file, "--dry-run")).1);
    for part in ["activations", "examples"] {
        assert_eq!(planned(&first, part), planned(&last, part), "{part}");
        assert_ne!(planned(&first, part), planned(&none, part), "{part}");
    }
    // So does the plan of the run itself.
    for file in ["a", "b"] {
        let (said, _) = done(dir, &line(file, &format!("--out run-{file}")));
        assert_eq!(planned(&said, "activations"), planned(&first, "activations"));
    }
}

#[test]
fn what_the_model_answers_itself_needs_no_reference_response() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    prepare(dir);
    let turns = json!([{"role": "user", "content": "<image>What is it?"}]);
    let line = json!({"messages": turns, "images": ["pictures/0.png"], "answer": "a zebra crossing"});
    fs::write(dir.join("asked.jsonl"), format!("{line}\n").repeat(4)).unwrap();
    let refresh = "--set sft.resample_every=2 --set rollout.num_generations=2 --set rollout.max_new_tokens=2";
    let (_, plan) = done(dir, &format!("{TRAIN} {refresh} --data asked.jsonl --dry-run"));
    assert!(plan.contains("memory: about"), "{plan}");
    // It gets as far as its own responses, of which none is right.
    let output = jigsaw(dir, &format!("{TRAIN} {refresh} --data asked.jsonl --out own"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.code() == Some(1) && said.contains("responses that the model sampled to 4 prompts"),
        "{said}"
    );
    // Where reference responses are learnt, their want is told.
    let message = refused(dir, &format!("{TRAIN} --data asked.jsonl --out none"));
    assert!(message.contains("asked.jsonl") && message.contains("no response to learn from"), "{message}");
}

#[cfg(unix)]
#[test]
fn a_command_is_told_of_every_step_and_stops_no_run() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    prepare(dir);
    let (said, printed) = done(
        dir,
        &format!("{TRAIN} --data messages.jsonl --metrics-command 'tee lines; echo over >> lines' --out runs/mine"),
    );
    assert!(!said.contains("warning") && said.contains("\"run\":\"mine\""), "{said}");
    assert!(printed.contains("runs/mine/model") && !printed.contains("\"run\""), "{printed}");
    let text = fs::read_to_string(dir.join("lines")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines.len(), lines[4]), (5, "over"));
    let metrics = fs::read_to_string(dir.join("runs/mine/metrics.jsonl")).unwrap();
    let told: Vec<String> = metrics.lines().map(|line| line.replacen('{', "{\"run\":\"mine\",", 1)).collect();
    assert_eq!(lines[..4], told, "the lines of metrics.jsonl, with the run's name");

    let (said, _) = done(dir, &format!("{TRAIN} --data messages.jsonl --metrics-command 'exit 3' --out failing"));
    assert_eq!(said.matches("warning: --metrics-command ended with exit status: 3").count(), 1, "{said}");
    let began = Instant::now();
    let (said, _) = done(dir, &format!("{TRAIN} --data messages.jsonl --metrics-command 'sleep 600' --out hanging"));
    assert!(said.contains("was ended") && began.elapsed() < Duration::from_secs(120), "{said}");
    for run in ["failing", "hanging"] {
        assert!(dir.join(run).join("finished.json").exists(), "{run}");
    }
    // As the runs of a study get it.
    let mut command = Command::new(env!("CARGO_BIN_EXE_jigsaw"));
    command.args(format!("{TRAIN} --data messages.jsonl --out by-variable").split(' ')).current_dir(dir);
    assert!(command.env("JIGSAW_METRICS_COMMAND", "cat > told").output().unwrap().status.success());
    assert_eq!(fs::read_to_string(dir.join("told")).unwrap().lines().count(), 4);
    let message = refused(dir, &format!("{TRAIN} --data messages.jsonl --metrics-command ' ' --out new"));
    assert!(message.contains("--metrics-command is blank"), "{message}");
}
