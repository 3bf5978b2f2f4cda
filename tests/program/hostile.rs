//! Files and names that somebody made to do harm: the program refuses them soon, with exit code 2, and says which file it is.

use crate::command::{done, jigsaw, refused};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

const EVAL: &str = "eval --model m --data data.jsonl --max-new-tokens 2 --out";

/// A model in `m` and two conversations in `data.jsonl`.
fn prepare(dir: &Path) {
    done(dir, "model init --preset tiny --out m");
    write_questions(dir, &["1+1?", "2+2?"]);
}

fn write_questions(dir: &Path, questions: &[&str]) {
    let line = |(i, question): (usize, &&str)| {
        let messages = [json!({"role": "user", "content": question}), json!({"role": "assistant", "content": "4"})];
        format!("{}\n", json!({"messages": messages, "id": format!("q-{i}")}))
    };
    let text: String = questions.iter().enumerate().map(line).collect();
    fs::write(dir.join("data.jsonl"), text).unwrap();
}

#[test]
fn a_template_that_overflows_hangs_or_takes_all_memory_is_refused_by_its_file() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    prepare(dir);
    fs::remove_file(dir.join("m/chat_template.json")).unwrap();
    let put = |template: &str| fs::write(dir.join("m/chat_template.jinja"), template).unwrap();
    put(&format!("{{{{ 1{} }}}}", "+1".repeat(20_000)));
    let said = refused(dir, "model inspect m");
    assert!(said.contains("m/chat_template.jinja: the chat template has a tag of"), "{said}");
    let loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
    let doubling =
        "{% set ns = namespace(s='xxxx') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}";
    let shared = "{% set ns = namespace(s=[1]) %}{% for i in range(60) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}";
    // Written, it has 2^60 items: stopped by the clock.
    let joined = format!("{shared}{{{{ ns.s|join }}}}");
    for (i, template) in [loops, doubling, &joined, "{# nothing #}"].into_iter().enumerate() {
        put(template);
        let began = Instant::now();
        let output = jigsaw(dir, &format!("{EVAL} out-{i}"));
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{template}: {said}");
        assert!(said.contains("m/chat_template.jinja: the chat template "), "{template}: {said}");
        assert!(began.elapsed() < Duration::from_secs(600), "{template}: {:?}", began.elapsed());
    }
}

#[test]
fn a_tokenizer_that_the_library_panics_on_is_refused_by_its_file() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    prepare(dir);
    let file = dir.join("m/tokenizer.json");
    let good: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let empty = json!({"type": "Replace", "pattern": {"String": ""}, "content": "x"});
    let padding = json!({"strategy": {"Fixed": 1_000_000_000_000u64}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
        "pad_type_id": 0, "pad_token": "x"});
    let double = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
    let bomb = json!({"type": "Sequence", "normalizers": vec![double; 50]});
    for (part, value, said) in [
        ("normalizer", empty, "Replace has an empty pattern"),
        ("normalizer", bomb, "bytes of one"),
        ("pre_tokenizer", json!({"type": "FixedLength", "length": 0}), "fails on a short text"),
    ] {
        let mut bad = good.clone();
        bad[part] = value;
        fs::write(&file, bad.to_string()).unwrap();
        let text = refused(dir, "model inspect m");
        assert!(text.contains("m/tokenizer.json: not a tokenizer: ") && text.contains(said), "{text}");
        assert!(!text.contains("panicked"), "{text}");
    }
    let mut padded = good;
    padded["padding"] = padding;
    fs::write(&file, padded.to_string()).unwrap();
    done(dir, &format!("{EVAL} out"));
}

#[test]
fn a_text_that_cannot_fit_is_refused_before_it_is_tokenised() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    prepare(dir);
    write_questions(dir, &["1+1?", &"word ".repeat(1_000_000)]);
    let train = "train --method sft --model m --data data.jsonl --set train.steps=1 --set train.batch_size=1 --set train.freeze=[\"vision\"]";
    let began = Instant::now();
    let said = refused(dir, &format!("{train} --set train.max_length=512 --out run"));
    assert!(said.contains("data.jsonl:2: example q-1: 50000") && said.contains("train.max_length = 512"), "{said}");
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    let said = refused(dir, &format!("{EVAL} out"));
    assert!(said.contains("data.jsonl:2: example q-1: ") && said.contains("max_position_embeddings"), "{said}");
}

#[test]
fn a_terminal_obeys_no_name_and_no_message() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    let name = "x\u{1b}[31m\nerror: all is well";
    for line in [
        &["model", "inspect", name][..],
        &["report", name, "--out", "r.html"],
        &["gen", "--images", name, "--out", "o"],
        &["train", "--method", name],
        &["eval", "--model", "m", "--bench", name, "--out", "o"],
    ] {
        let output = jigsaw(dir, line);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{line:?}: {said}");
        // The library that reads the command line leaves escapes out by itself.
        assert!(!said.contains('\u{1b}') && (line[0] == "train" || said.contains("\\u{1b}[31m")), "{line:?}: {said}");
        assert!(!said.contains("\nerror: all"), "{line:?}: {said}");
    }
    // In a file, too.
    let header = "index\tquestion\tanswer\timage\tx\u{1b}[31m\tx\u{1b}[31m\n";
    fs::write(dir.join("b.tsv"), header).unwrap();
    fs::create_dir(dir.join("m")).unwrap();
    let said = refused(dir, "eval --api http://localhost:1/v1 --model m --bench mine=b.tsv:exact --out o");
    assert!(said.contains("two columns `x\\u{1b}[31m`") && !said.contains('\u{1b}'), "{said}");
}

#[test]
fn keys_are_neither_shown_nor_stored() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    prepare(dir);
    for (address, shown) in [
        ("http://me:sk-1@localhost:1/v1", "http://***@localhost:1/v1"),
        ("http://sk-1@localhost:1/v1", "http://***@localhost:1/v1"),
        ("http://localhost:1/v1?api_key=sk-1", "http://localhost:1/v1?api_key=***"),
    ] {
        for line in [
            format!("eval --api {address} --model m --data data.jsonl --out out"),
            format!("rollout --teacher {address} --teacher-model m --data data.jsonl --out out"),
        ] {
            let said = refused(dir, &line);
            assert!(said.contains(shown) && said.contains("OPENAI_API_KEY") && !said.contains("sk-1"), "{said}");
        }
        assert!(!dir.join("out").exists());
    }
    let train = "train --method sft --model m --data data.jsonl --set train.steps=1 --set train.batch_size=1 --set train.freeze=[\"vision\"] --out run";
    let output = jigsaw(dir, &format!("{train} --metrics-command 'WANDB_API_KEY=sk-1 false'"));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("--metrics-command ended"), "{said}");
    assert!(!said.contains("sk-1"), "{said}");
    let stored = fs::read_to_string(dir.join("run/run.json")).unwrap();
    assert!(stored.contains("(not recorded)") && !stored.contains("sk-1"), "{stored}");
}

#[test]
fn a_header_of_a_hundred_thousand_columns_is_read_at_once() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    let columns: Vec<String> = (0..100_000).map(|i| format!("column-{i}")).collect();
    let file = |more: &str| fs::write(dir.join("b.tsv"), format!("{}{more}\n", columns.join("\t"))).unwrap();
    let began = Instant::now();
    let line = "eval --api http://localhost:1/v1 --model m --bench mine=b.tsv:exact --out o";
    file("");
    let said = refused(dir, line);
    assert!(said.contains("b.tsv:1: there is no column `index`") && said.contains("and 99960 more"), "{said}");
    assert!(said.len() < 2_000, "{}", said.len());
    file("\tcolumn-7");
    assert!(refused(dir, line).contains("b.tsv:1: the header has two columns `column-7`"));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}
