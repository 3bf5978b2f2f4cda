//! `jigsaw eval --bench` as a user runs it.

use crate::command::{done, jigsaw, refused};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fs;
use std::path::Path;

fn picture(shade: u8) -> String {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let image = image::RgbImage::from_fn(56, 28, |x, y| image::Rgb([shade, x as u8, y as u8]));
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    STANDARD.encode(bytes.into_inner())
}

/// A model, MME in small, and a file that says itself how it is scored.
fn prepare(dir: &Path) {
    done(dir, "model init --preset tiny --out model");
    let mut mme = "index\timage\tquestion\tanswer\tcategory\n".to_string();
    for i in 0..8 {
        let image = if i % 2 == 0 { picture(i * 20) } else { (i - 1).to_string() };
        let category = ["existence", "color"][usize::from(i / 4)];
        mme += &format!(
            "{i}\t{image}\tIs it {i}? Please answer yes or no.\t{}\t{category}\n",
            ["Yes", "No"][usize::from(i % 2)]
        );
    }
    fs::write(dir.join("MME.tsv"), mme).unwrap();
    let own = format!(
        "index\timage\tquestion\tA\tB\tanswer\tscorer\tstyle\n\
         1\t{}\tWhich? A. one B. two\tone\ttwo\tA\tchoice\t\n\
         2\t1\t\"Say \"\"here\"\",\nplease.\"\t\t\there\texact\tdirect\n",
        picture(200)
    );
    fs::write(dir.join("own.tsv"), own).unwrap();
}

fn rows(path: &Path) -> Vec<serde_json::Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

const COMMON: &str = "eval --model model --bench mme=MME.tsv --bench own=own.tsv --max-new-tokens 4";

#[test]
fn several_benchmarks_are_evaluated_resumed_printed_and_scored_again() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    prepare(dir);
    let table = done(dir, &format!("{COMMON} --batch-size 3 --out out"));
    for expected in [
        "bench",
        "95 % interval",
        "exact form",
        "lenient",
        "unparsed",
        "tokens/s",
        "mme",
        "own",
        "existence: 0.0",
        "out/results.csv",
    ] {
        assert!(table.contains(expected), "{expected:?} is missing in:\n{table}");
    }
    assert_eq!(rows(&dir.join("out/mme/responses.jsonl")).len(), 8);
    let key: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(dir.join("out/mme/key.json")).unwrap()).unwrap();
    assert_eq!(key["key"]["bench"]["benchmark"], "mme");
    assert_eq!(key["key"]["scorers"]["yes-no"], 2);
    let all: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(dir.join("out/results.json")).unwrap()).unwrap();
    assert_eq!((&all[0]["bench"], &all[1]["bench"], &all[1]["examples"]), (&"mme".into(), &"own".into(), &2.into()));

    // Cut off in the middle of a line and gone on with in batches of another size, it ends the same.
    let responses = fs::read(dir.join("out/mme/responses.jsonl")).unwrap();
    fs::write(dir.join("out/mme/responses.jsonl"), &responses[..responses.len() * 2 / 3]).unwrap();
    fs::remove_file(dir.join("out/mme/result.json")).unwrap();
    done(dir, &format!("{COMMON} --batch-size 5 --out out"));
    assert_eq!(fs::read(dir.join("out/mme/responses.jsonl")).unwrap(), responses);

    // A gold answer put right: refused as it is, scored again on request.
    let own = fs::read_to_string(dir.join("own.tsv")).unwrap().replace("\tA\tchoice", "\tB\tchoice");
    fs::write(dir.join("own.tsv"), own).unwrap();
    assert!(refused(dir, &format!("{COMMON} --out out")).contains("--rescore"));
    let table = done(dir, "eval --rescore --out out");
    assert!(table.contains("own") && table.contains("mme"), "{table}");
    assert_eq!(fs::read(dir.join("out/mme/responses.jsonl")).unwrap(), responses);
    done(dir, &format!("{COMMON} --out out"));

    // A dataset of puzzles beside a benchmark.
    let photos = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/photos");
    done(dir, &format!("gen --images {} --grid 1x2 --count 6 --split 1,1,1 --out data", photos.display()));
    let table = done(
        dir,
        "eval --model model --bench puzzles=data --bench own=own.tsv --limit 1 --max-new-tokens 2 --out both",
    );
    assert!(table.contains("puzzles") && dir.join("both/puzzles/result.json").exists(), "{table}");
}

#[test]
fn files_without_answers_or_images_are_asked_and_predictions_written() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    prepare(dir);
    let text = format!(
        "index\timage\tquestion\tA\tB\tsplit\n1\t{}\tWhich?\tone\ttwo\ttest\n2\t1\tAnd now?\tone\ttwo\ttest\n",
        picture(3)
    );
    fs::write(dir.join("test.tsv"), text).unwrap();
    fs::write(dir.join("text.tsv"), "index\tquestion\tanswer\n1\tIs it \"so\"?\tyes\n").unwrap();
    let line =
        "eval --model model --bench t=test.tsv:choice --bench words=text.tsv:yes-no --max-new-tokens 4 --out out";
    let output = jigsaw(dir, line);
    let (said, table) = (String::from_utf8(output.stderr).unwrap(), String::from_utf8(output.stdout).unwrap());
    assert!(output.status.success() && said.contains("t: test.tsv has no answers"), "{said}");
    assert!(table.contains("words") && table.contains("out/t/predictions.tsv") && !table.contains("\nt "), "{table}");
    let predictions = fs::read_to_string(dir.join("out/t/predictions.tsv")).unwrap();
    assert!(
        predictions.starts_with("index\tquestion\tA\tB\tsplit\tprediction\n1\tWhich?\tone\ttwo\ttest\t"),
        "{predictions}"
    );
    assert!(!dir.join("out/t/result.json").exists() && dir.join("out/words/result.json").exists());
    assert_eq!(done(dir, line), table);
    assert_eq!(rows(&dir.join("out/t/responses.jsonl")).len(), 2);
    let page = dir.join("page.html");
    done(dir, "report out --out page.html");
    assert!(!fs::read_to_string(page).unwrap().contains("not scored"));
    let alone = "eval --model model --bench t=test.tsv:choice --max-new-tokens 4 --out alone";
    assert!(!done(dir, alone).contains("results.csv") && !dir.join("alone/results.csv").exists());
    for (more, expected) in [
        ("--baseline model --model model --bench t=test.tsv:choice --out new", "has no answers"),
        (
            "--model model --bench t=test.tsv:choice --num-generations 2 --temperature 1 --out new",
            "--num-generations 2: test.tsv has",
        ),
    ] {
        let message = refused(dir, &format!("eval {more}"));
        assert!(message.contains(expected) && !dir.join("new").exists(), "{message}");
    }
}

#[test]
fn a_bad_file_is_refused_before_the_model_is_loaded() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    prepare(dir);
    // Weights that are no numbers, under a header that is right: whoever gets as far as answering says so.
    let weights = dir.join("model/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[8 + header..].fill(0xFF);
    fs::write(&weights, bytes).unwrap();
    let head = "index\timage\tquestion\tanswer\n";
    let good = picture(1);
    for (name, text, said) in [
        ("empty", String::new(), "empty.tsv is empty"),
        ("header", head.to_string(), "header.tsv holds a header and no rows"),
        (
            "column",
            "index\timage\tquestion\tlabel\n".into(),
            "column.tsv:1: there is no column `answer`, but `label`; rename it",
        ),
        (
            "twice",
            format!("{head}1\t{good}\tq\tyes\n1\t{good}\tq\tyes\n"),
            "twice.tsv:3: row 2, column `index`: `1` is already",
        ),
        (
            "base64",
            format!("{head}1\t{}\tq\tyes\n", good.replace('A', "?")),
            "base64.tsv:2: row 1, column `image`: is not base64",
        ),
        (
            "gold",
            format!("{head}1\t{good}\tq\tperhaps\n"),
            "gold.tsv:2: row 1: field `answer`: `perhaps` is neither yes nor no",
        ),
    ] {
        fs::write(dir.join(format!("{name}.tsv")), text).unwrap();
        let line = format!("eval --model model --bench good=MME.tsv:pope --bench pope={name}.tsv --out out");
        let message = refused(dir, &line);
        assert!(message.contains(said), "{said}\n{message}");
        assert!(!dir.join("out").exists(), "{name}");
    }
    for (line, said) in [
        ("eval --model model --bench mmstra=MME.tsv --out out", "did you mean `mmstar`?"),
        ("eval --model model --bench mme=MME.tsv:chioce --out out", "did you mean `choice`?"),
        ("eval --model model --bench mme=nope.tsv --out out", "cannot read nope.tsv"),
        ("eval --model model --bench mme --out out", "NAME=FILE.tsv"),
        ("eval --model model --bench mme=MME.tsv --out model", "holds something else than evaluations"),
        ("eval --model nope --bench mme=MME.tsv --out out", "no model at nope"),
        ("eval --rescore --out nope", "no evaluation at nope"),
        ("eval --rescore --out model", "no evaluation in model"),
    ] {
        let message = refused(dir, line);
        assert!(message.contains(said), "{line}: {message}");
    }
    // With a good file, the weights are what is wrong.
    let output = jigsaw(dir, "eval --model model --bench mme=MME.tsv --out out");
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && message.contains("not finite"), "{message}");
}
