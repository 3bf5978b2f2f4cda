//! `jigsaw eval --baseline` as a user runs it: what it prints, leaves behind, resumes and refuses.

use crate::command::{done, jigsaw, refused};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::fs;
use std::path::Path;

fn picture(shade: u8) -> String {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let image = image::RgbImage::from_fn(56, 28, |x, y| image::Rgb([4 * x as u8, 8 * y as u8, shade]));
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    STANDARD.encode(bytes.into_inner())
}

const QUESTIONS: usize = 12;

/// Two questions about each of six pictures.
fn questions(answers: &[String]) -> String {
    let mut text = "index\timage\tquestion\tanswer\tcategory\n".to_string();
    for (i, answer) in answers.iter().enumerate() {
        let image = if i % 2 == 0 { picture(40 * (i / 2) as u8) } else { (i - 1).to_string() };
        let category = if i < 4 { "first" } else { "second" };
        text += &format!("{i}\t{image}\tWhat is number {}?\t{answer}\t{category}\n", i * i);
    }
    text
}

fn rows(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Two models with random weights, puzzles, and questions to which the first model's own answers are the right ones.
fn prepare(dir: &Path) {
    let photos = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/photos");
    done(dir, &["model", "init", "--preset", "tiny", "--out", "base", "--seed", "1"]);
    done(dir, &["model", "init", "--preset", "tiny", "--out", "other", "--seed", "2"]);
    let photos = photos.to_str().unwrap();
    done(dir, &["gen", "--images", photos, "--grid", "1x2", "--count", "18", "--split", "1,1,1", "--out", "puzzles"]);
    fs::write(dir.join("questions.tsv"), questions(&vec!["nothing".to_string(); QUESTIONS])).unwrap();
    let first =
        ["eval", "--model", "base", "--bench", "asked=questions.tsv:exact", "--max-new-tokens", "4", "--out", "first"];
    done(dir, &first);
    let plain = |text: &str| text.chars().filter(|c| c.is_ascii_alphanumeric()).collect::<String>();
    let own = |row: &Value| {
        let response = row["response"].as_str().unwrap().trim();
        if !response.is_empty() && plain(response) == response { response.to_string() } else { "nothing".into() }
    };
    let answers: Vec<String> = rows(&dir.join("first/asked/responses.jsonl")).iter().map(own).collect();
    fs::write(dir.join("questions.tsv"), questions(&answers)).unwrap();
}

const COMMON: [&str; 10] = [
    "--data",
    "puzzles",
    "--bench",
    "asked=questions.tsv:exact",
    "--max-new-tokens",
    "4",
    "--kl-prompts",
    "5",
    "--batch-size",
    "5",
];

fn compare<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["eval"][..], more, &COMMON].concat()
}

fn forgetting(dir: &Path, out: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(dir.join(out).join("forgetting.json")).unwrap()).unwrap()
}

#[test]
fn a_loss_is_found_written_drawn_and_resumed() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    prepare(dir);
    let command = compare(&["--model", "other", "--baseline", "base", "--out", "out"]);
    let printed = done(dir, &command);
    for expected in
        ["new task", "asked", "95 % interval", "KL(base || tuned)", "largest loss: asked", "out/forgetting.json"]
    {
        assert!(printed.contains(expected), "{expected:?} is missing in:\n{printed}");
    }
    let found = forgetting(dir, "out");
    let asked = &found["tuned"][0]["benchmarks"][0];
    assert_eq!((asked["name"].as_str(), asked["all"]["n"].as_u64()), (Some("asked"), Some(QUESTIONS as u64)));
    assert_eq!(asked["all"]["clusters"], 6, "two questions an image");
    assert!(asked["all"]["base"]["value"]["value"].as_f64().unwrap() > 0.5);
    assert!(asked["all"]["change"]["value"].as_f64().unwrap() < -0.5);
    assert_eq!(asked["categories"].as_array().unwrap().len(), 2);
    assert_eq!(found["tuned"][0]["new_task"]["name"], "new-task");
    let divergence = &found["tuned"][0]["divergence"];
    assert_eq!(
        (divergence[0]["prompts_of"].as_str(), divergence[1]["prompts_of"].as_str()),
        (Some("new-task"), Some("asked"))
    );
    for set in divergence.as_array().unwrap() {
        for number in [&set["forward"]["per_token"], &set["reverse"]["per_response"]] {
            assert!(number["value"].as_f64().unwrap() > 0.001 && number["low"].as_f64().unwrap() > 0.0, "{set}");
        }
        assert!(set["own"]["tokens"].as_u64().unwrap() >= 5 && set["own"]["base"] != set["own"]["tuned"], "{set}");
    }
    let lines = rows(&dir.join("out/divergence/other/asked.jsonl"));
    assert_eq!(lines.iter().map(|l| l["index"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 2, 4, 7, 9]);

    // Stopped in the middle of everything, the same command ends the same.
    let whole = fs::read(dir.join("out/forgetting.json")).unwrap();
    fs::remove_file(dir.join("out/forgetting.json")).unwrap();
    fs::remove_file(dir.join("out/tuned/asked/result.json")).unwrap();
    for torn in ["out/tuned/asked/responses.jsonl", "out/divergence/other/asked.jsonl"] {
        let text = fs::read(dir.join(torn)).unwrap();
        fs::write(dir.join(torn), &text[..text.len() / 2]).unwrap();
    }
    done(dir, &command);
    assert_eq!(fs::read(dir.join("out/forgetting.json")).unwrap(), whole);

    // The report finds it, and writes its tables beside the page.
    done(dir, &["report", "out", "--out", "report.html"]);
    let html = fs::read_to_string(dir.join("report.html")).unwrap();
    assert!(html.contains("Prior knowledge</h2>") && html.contains("asked") && html.contains("Change by family"));
    assert!(dir.join("report.csv").exists() && dir.join("report.md").exists());
    // The other forms hold the same numbers.
    assert_eq!(done(dir, "report out --format csv --out numbers.csv").trim(), "numbers.csv");
    assert_eq!(done(dir, "report out --format md --out tables.md").trim(), "tables.md");
    assert_eq!(done(dir, "report out --format json --figures figures").trim(), "report.json");
    for [one, other] in [["numbers.csv", "report.csv"], ["tables.md", "report.md"]] {
        assert_eq!(fs::read(dir.join(one)).unwrap(), fs::read(dir.join(other)).unwrap(), "{one}");
    }
    let json: Value = serde_json::from_str(&fs::read_to_string(dir.join("report.json")).unwrap()).unwrap();
    assert_eq!((&json["comparisons"][0]["dir"], &json["comparisons"][0]["result"]), (&"out".into(), &found));
    let figure = fs::read_to_string(dir.join("figures/change-by-family.svg")).unwrap();
    assert!(figure.starts_with("<svg xmlns=") && figure.contains("<style>") && !figure.contains("var("), "{figure}");
    // They replace what a report has written, and nothing else.
    done(dir, "report out --format json --figures figures");
    for (file, line) in [("report.json", "--format json"), ("figures/change-by-family.svg", "--figures figures")] {
        fs::write(dir.join(file), "mine").unwrap();
        let said = refused(dir, &format!("report out {line}"));
        assert!(said.contains(file) && said.contains("not written by an earlier report"), "{said}");
        assert_eq!(fs::read_to_string(dir.join(file)).unwrap(), "mine");
    }

    // The base's results serve another comparison; neither its weights nor another seed's divergence are needed.
    let reuse = ["--model", "other", "--baseline-results", "out/base", "--out", "again"];
    done(dir, &compare(&reuse));
    assert!(!dir.join("again/base").exists());
    assert_eq!(forgetting(dir, "again")["tuned"], found["tuned"]);

    let said = refused(dir, &compare(&["--model", "base", "--baseline", "base", "--out", "out"]));
    assert!(said.contains("holds another evaluation") && said.contains("model:"), "{said}");
    let said = refused(dir, &compare(&["--model", "other", "--baseline", "base", "--limit", "3", "--out", "out"]));
    assert!(said.contains("--fresh"), "{said}");
    let said = refused(
        dir,
        &compare(&["--model", "other", "--baseline", "other", "--baseline-results", "out/base", "--out", "x"]),
    );
    assert!(said.contains("is not the model whose results"), "{said}");
    let stored = ["--model", "other", "--baseline-results", "out/base", "--limit", "3", "--out", "y"];
    let said = refused(dir, &compare(&stored));
    assert!(said.contains("cannot be compared") && said.contains("examples: 6 -> 3"), "{said}");
    assert!(!dir.join("y/tuned").exists(), "seen before anything is evaluated");
    fs::create_dir(dir.join("mine")).unwrap();
    fs::write(dir.join("mine/thesis.txt"), "dear").unwrap();
    let said = refused(dir, &compare(&["--model", "other", "--baseline", "base", "--out", "mine"]));
    assert!(said.contains("holds something else than a comparison"), "{said}");
}

#[test]
fn a_model_compared_with_itself_in_other_batches_is_zero_everywhere() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    prepare(dir);
    done(dir, &compare(&["--model", "base", "--baseline", "base", "--out", "first-half"]));
    let args = ["--model", "base", "--baseline-results", "first-half/base", "--out", "out"];
    let other_batch: Vec<&str> = compare(&args).into_iter().map(|a| if a == "5" { "3" } else { a }).collect();
    let printed = done(dir, &other_batch);
    assert!(printed.contains("no benchmark lost points"), "{printed}");
    let found = forgetting(dir, "out");
    let zero = serde_json::json!({"value": 0.0, "low": 0.0, "high": 0.0});
    let one = serde_json::json!({"value": 1.0, "low": 1.0, "high": 1.0});
    let tuned = &found["tuned"][0];
    let asked = &tuned["benchmarks"][0]["all"];
    assert_eq!((&asked["change"], &asked["lenient_change"], &asked["retention"]), (&zero, &zero, &one));
    assert_eq!((&tuned["all"]["change"], &tuned["new_task"]["all"]["change"]), (&zero, &zero));
    for set in tuned["divergence"].as_array().unwrap() {
        for number in [&set["forward"]["per_token"], &set["reverse"]["per_response"], &set["own"]["change"]] {
            assert_eq!(*number, zero, "{set}");
        }
        assert_eq!(set["own"]["base"], set["own"]["tuned"]);
    }
}

#[test]
fn several_models_go_side_by_side_and_models_that_read_otherwise_are_refused() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    prepare(dir);
    done(dir, &["model", "init", "--preset", "tiny", "--out", "run/checkpoints/step-00000010", "--seed", "3"]);
    fs::write(dir.join("run/run.json"), r#"{"seed": 7, "data_hash": "3fa91c02ffff", "model_hash": ""}"#).unwrap();
    let arguments = [
        "--model",
        "run/checkpoints/step-00000010",
        "other",
        "--baseline",
        "base",
        "--kl-prompts",
        "0",
        "--out",
        "way",
    ];
    let arguments = [&["eval"][..], &arguments, &COMMON[..6]].concat();
    done(dir, &arguments);
    let found = forgetting(dir, "way");
    let names: Vec<&str> =
        found["tuned"].as_array().unwrap().iter().map(|t| t["model"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["run/step-00000010", "other"]);
    assert!(dir.join("way/tuned/step-00000010/asked/result.json").exists());
    assert!(dir.join("way/tuned/other/new-task/result.json").exists());
    let csv = fs::read_to_string(dir.join("way/forgetting.csv")).unwrap();
    assert!(csv.contains("base,run/step-00000010,run,10,7,3fa91c02ffff,benchmark,"), "{csv}");
    assert!(!csv.contains(",prompts,"), "no divergence was asked for");

    let template = dir.join("other/chat_template.jinja");
    let template = if template.exists() { template } else { dir.join("other/tokenizer_config.json") };
    fs::write(&template, fs::read_to_string(&template).unwrap() + "\n").unwrap();
    let said = refused(dir, &[&arguments[..], &["--fresh"]].concat());
    assert!(said.contains("do not read prompts alike") && said.contains("other"), "{said}");
}

#[test]
fn held_out_prior_prompts_have_a_divergence_and_gold_answers_and_no_score() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    prepare(dir);
    let suite = ["gen", "--suite", "grounding,ocr", "--count", "12", "--split", "1,1,1", "--out", "prior"];
    done(dir, &suite);
    let command = |more: &[&'static str]| {
        let common = ["eval", "--model", "other", "--baseline", "base", "--bench", "ocr=prior/bench/ocr-direct.tsv"];
        [&common[..], &["--max-new-tokens", "4", "--kl-prompts", "9", "--prior", "held=prior"], more].concat()
    };
    let printed = done(dir, &command(&["--out", "out"]));
    for expected in ["held-out prior: held", "gold answers to 9 prior questions", "weights: moved by"] {
        assert!(printed.contains(expected), "{expected:?} is missing in:\n{printed}");
    }
    let found = forgetting(dir, "out");
    let tuned = &found["tuned"][0];
    let divergence = tuned["divergence"].as_array().unwrap();
    assert_eq!(divergence.len(), 1, "those of the benchmark are left out");
    assert_eq!(
        (divergence[0]["role"].as_str(), divergence[0]["prompts_of"].as_str()),
        (Some("held-out"), Some("held"))
    );
    assert!(divergence[0]["forward"]["per_token"]["value"].as_f64().unwrap() > 0.0);
    assert_eq!(tuned["benchmarks"].as_array().unwrap().len(), 1);
    let names: Vec<&str> =
        tuned["gold"].as_array().unwrap().iter().map(|gold| gold["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["all", "grounding", "ocr"]);
    // Each question by itself, for whoever resamples seeds and questions together.
    let items = rows(&dir.join("out").join(tuned["gold_file"].as_str().unwrap()));
    let mean = |of: &str| items.iter().map(|item| item[of].as_f64().unwrap()).sum::<f64>() / items.len() as f64;
    let per_answer = &tuned["gold"][0]["per_answer"];
    assert_eq!(items.len(), 9);
    assert!((mean("base") - per_answer["base"].as_f64().unwrap()).abs() < 1e-9);
    assert!((mean("tuned") - mean("base") - per_answer["change"]["value"].as_f64().unwrap()).abs() < 1e-9);
    let answer = |item: &Value| item["answer_tokens"].as_u64() < item["tokens"].as_u64();
    assert!(items.iter().all(|item| answer(item) && item["answer_base"].as_f64() > item["base"].as_f64()), "{items:?}");
    let all = tuned["weights"].as_array().unwrap().last().unwrap();
    assert!(all["part"] == "all" && all["changed"].as_f64().unwrap() > 0.9, "{all}");

    // A version before this one had no gold answers in these lines: they are measured again, and end the same.
    let lines = dir.join("out/divergence/other/held.jsonl");
    let whole = fs::read_to_string(&lines).unwrap();
    let without = rows(&lines).into_iter().map(|mut line| {
        line.as_object_mut().unwrap().remove("gold");
        line.to_string() + "\n"
    });
    fs::write(&lines, without.collect::<String>()).unwrap();
    done(dir, &command(&["--out", "out"]));
    assert_eq!(fs::read_to_string(&lines).unwrap(), whole);

    let said = refused(dir, &command(&["--prior-split", "test", "--out", "overlap"]));
    assert!(said.contains("--prior held: example ") && said.contains("of ocr, which is scored"), "{said}");
    let said = refused(dir, &command(&["--prior-split", "dev", "--out", "none"]));
    assert!(said.contains("has no split `dev`"), "{said}");
    assert!(!dir.join("none").exists() && !dir.join("overlap").exists(), "seen before any work");
}

#[test]
fn the_change_of_weights_is_printed_by_part() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    for (name, seed) in [("a", "1"), ("b", "2")] {
        done(dir, &["model", "init", "--preset", "tiny", "--out", name, "--seed", seed]);
    }
    let printed = done(dir, &["model", "diff", "a", "b"]);
    for part in ["vision tower", "merger", "embeddings", "decoder", "all", "effective rank", "changed in bf16"] {
        assert!(printed.contains(part), "{part:?} is missing in:\n{printed}");
    }
    let found: Value = serde_json::from_str(&done(dir, &["model", "diff", "a", "b", "--json"])).unwrap();
    let tensors = found["tensors"].as_array().unwrap();
    assert!(
        tensors.iter().any(|tensor| tensor["name"] == "model.embed_tokens.weight" && tensor["effective_rank"].is_f64())
    );
    let said = refused(dir, &["model", "diff", "a", "nowhere"]);
    assert!(said.contains("nowhere"), "{said}");
}

#[test]
fn a_gate_fails_when_a_loss_is_shown_and_only_then() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    prepare(dir);
    let run = |model: &str, rules: &[&str]| {
        let mut command = vec!["eval", "--model", model, "--baseline", "base", "--bench", "asked=questions.tsv:exact"];
        command.extend(["--max-new-tokens", "4", "--kl-prompts", "0", "--out", "gate"]);
        rules.iter().for_each(|rule| command.extend(["--fail-if", rule]));
        let output = jigsaw(dir, &command[..]);
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code(), text)
    };
    // The other model answers none of the questions that the base answers: a loss of more than 50 points, whatever the interval.
    let (code, text) = run("other", &["mean < -1", "asked < -100"]);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("1 of 2 rules of --fail-if broken"), "{text}");
    let table = fs::read_to_string(dir.join("gate/gate.md")).unwrap();
    assert!(text.contains(&table), "the table is printed as it is written");
    assert_eq!(table.lines().count(), 4, "{table}");
    assert!(
        table.contains("| other | mean >= -1 |") && table.contains("**lost**") && table.contains("| not lost |"),
        "{table}"
    );
    let (code, text) = run("other", &["asked < -100"]);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = run("other", &["pope < -1"]);
    assert!(
        code == Some(2) && text.contains("nothing is called pope; there are mean, ") && text.contains("asked"),
        "{text}"
    );
    assert!(
        refused(dir, &["eval", "--model", "base", "--data", "puzzles", "--fail-if", "mean < -1", "--out", "x"])
            .contains("--baseline")
    );
}
