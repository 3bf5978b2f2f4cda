//! Comparisons worked out by hand: five questions, two models.

use super::*;
use crate::comm::Single;
use crate::eval::{EvalDir, evaluate_in};
use crate::forgetting::{
    BenchmarkTitle, ExampleLabel, FinishedEval, ForgettingResult, MeasuredBenchmark, ModelRef, TunedResult, pair,
};
use crate::model::{ComputeDtype, SamplingParams};
use crate::report::write;
use crate::sampling::{Response, SamplePlan, SamplingKey, from_fn, hash_examples};
use crate::tasks::benchmarks;
use base64::Engine as _;
use image::{Rgb, RgbImage};
use rand::RngExt;
use std::fs;
use std::path::Path;

/// A row: family, question, gold answer, and what base, `sft` and `rft` answer.
type Row<'a> = (&'a str, String, &'a str, [&'a str; 3]);

const MODELS: [&str; 3] = ["the base", "sft", "rft"];

/// A picture of noise, which no encoding makes small.
fn noise(side: u32) -> String {
    let mut rng = crate::rng::stream(1, "noise", &[]);
    let image = RgbImage::from_fn(side, side, |_, _| Rgb([rng.random(), rng.random(), rng.random()]));
    let mut png = std::io::Cursor::new(Vec::new());
    image.write_to(&mut png, image::ImageFormat::Png).unwrap();
    base64::engine::general_purpose::STANDARD.encode(png.into_inner())
}

/// The comparison of two models in `dir` on these questions, a benchmark for each family; the base's evaluations are elsewhere.
fn compare(dir: &Path, rows: &[Row<'_>], side: u32) {
    let mut families: Vec<&str> = Vec::new();
    for row in rows {
        if !families.contains(&row.0) {
            families.push(row.0);
        }
    }
    let mut of_model: [Vec<MeasuredBenchmark>; 2] = [Vec::new(), Vec::new()];
    for (number, family) in families.iter().enumerate() {
        let own: Vec<&Row<'_>> = rows.iter().filter(|row| row.0 == *family).collect();
        let mut text = "index\timage\tquestion\tanswer\tscorer\n".to_string();
        for (i, (_, question, gold, _)) in own.iter().enumerate() {
            let image = if i == 0 { noise(side) } else { "\"q<0\"".to_string() };
            text += &format!("q<{i}\t{}\t{question}\t{gold}\texact\n", image.trim_matches('"'));
        }
        let name = format!("asked-{number}");
        let file = dir.join(format!("{name}.tsv"));
        fs::create_dir_all(dir).unwrap();
        fs::write(&file, text).unwrap();
        let task = benchmarks::read(&name, &file, None).unwrap().into_task(&name, &|size| Ok(size)).unwrap();
        let (data, gold) = hash_examples(&task, task.len()).unwrap();
        let places = ["elsewhere".to_string(), "cost/tuned/sft".into(), "cost/tuned/rft".into()];
        let evaluated = |model: usize| {
            let key = SamplingKey {
                code: "test".into(),
                model: MODELS[model].into(),
                prompt: "p".into(),
                data: data.clone(),
                gold: gold.clone(),
                task: name.clone(),
                scorers: task.scorers().into_iter().collect(),
                examples: task.len(),
                sampling: SamplingParams::greedy(16),
                num_generations: 1,
                batch_size: None,
                dtype: ComputeDtype::F32,
                bench: Some(task.protocol(None)),
            };
            let out = dir.join(&places[model]).join(&name);
            fs::create_dir_all(&out).unwrap();
            let directory = EvalDir::open(&out, key, Path::new(MODELS[model]), (&file, ""), false, &Single).unwrap();
            let answer = |i: usize| vec![Response::text(own[i].3[model])];
            let plan = SamplePlan { limit: None, num_generations: 1, batch_size: 64 };
            let responder = from_fn(|examples: std::ops::Range<usize>| Ok(examples.map(answer).collect()));
            evaluate_in(&directory, &responder, &task, &plan, &SamplingParams::greedy(16), |_| {}).unwrap();
            FinishedEval::read(&out).unwrap()
        };
        let labels = ExampleLabel::of(&task, task.len()).unwrap();
        for model in [1, 2] {
            let title = BenchmarkTitle { name: name.clone(), family: family.to_string(), scorer: "exact v1".into() };
            let pairing = pair(evaluated(0), evaluated(model)).unwrap();
            of_model[model - 1].push(MeasuredBenchmark::of(title, &pairing, &labels, Vec::new()).unwrap());
        }
    }
    let model =
        |name: &str| ModelRef { name: name.into(), dir: format!("/models/{name}"), hash: name.into(), run: None };
    let tuned = of_model.into_iter().zip(["sft", "rft"]);
    let tuned = tuned.map(|(benchmarks, name)| TunedResult::of(model(name), None, benchmarks, Vec::new())).collect();
    let found = ForgettingResult {
        base_results: Some(dir.join("elsewhere").display().to_string()),
        ..ForgettingResult::new(model("the base"), tuned)
    };
    crate::forgetting::write(&dir.join("cost"), &found).unwrap();
}

/// The page about the comparison, from its questions on to the next heading, and its questions.
fn page(dir: &Path) -> (String, Vec<String>) {
    let file = dir.join("page.html");
    write(&[dir.join("cost")], "A title", &file).unwrap();
    let html = fs::read_to_string(file).unwrap();
    let begin = html.find("<section class=\"flips\"").unwrap_or_else(|| panic!("no flips: {html}"));
    let section = html[begin..].split_once("</section>").unwrap().0.to_string();
    let articles = section.split("<article ").skip(1).map(|part| part.split_once("</article>").unwrap().0.to_string());
    (section.clone(), articles.collect())
}

fn worked_out() -> Vec<Row<'static>> {
    let row = |question: &str, gold, answers| ("o\"c<r", question.to_string(), gold, answers);
    vec![
        row("Is <script>alert(1)</script> \"here\"?", "yes", ["yes", "<img src=x onerror=alert(2)>", "yes"]),
        row("Which letter?", "b", ["b", "c", "<think>Hm.</think>\n<answer>d</answer>"]),
        row("Kept by all?", "k", ["k", "k", "k"]),
        row("Learned?", "l", ["no", "l", "no"]),
        row("Never known?", "n", ["x", "y", "z"]),
    ]
}

#[test]
fn what_was_lost_and_gained_is_shown_with_every_answer_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    compare(dir.path(), &worked_out(), 8);
    let (section, questions) = page(dir.path());
    assert_eq!(questions.len(), 3, "{section}");
    let with = |text: &str| questions.iter().find(|q| q.contains(text)).unwrap_or_else(|| panic!("{text}: {section}"));
    let family = "data-family=\"o&quot;c&lt;r\"";
    for (text, lost, gained) in [("onerror", "0", ""), ("Which letter?", "0 1", ""), ("Learned?", "", "0")] {
        let attributes = format!("class=\"card flip\" {family} data-lost=\"{lost}\" data-gained=\"{gained}\">");
        assert!(with(text).starts_with(&attributes), "{attributes}: {}", with(text));
    }
    let letter = with("Which letter?");
    let rows: Vec<&str> = letter.split("<li").skip(1).collect();
    assert!(rows[0].contains("right answer") && rows[0].contains(">b<"), "{letter}");
    for (row, (text, verdict)) in
        rows[1..].iter().zip([(">b<", "right</span>"), (">c<", "wrong, lost"), ("<summary>d</summary>", "wrong, lost")])
    {
        assert!(row.contains(text) && row.contains(verdict), "{row}");
    }
    assert!(letter.contains("&lt;think&gt;Hm.&lt;") && letter.contains("src=\"data:image/"), "{letter}");
    assert!(!letter.contains("&lt;image&gt;"), "{letter}");
    // What models and files say stays text.
    for hostile in ["<script>", "<img src=x", "o\"c<r", "q<0"] {
        assert!(!section.contains(hostile), "{hostile}: {section}");
    }
    let cell = |model: usize, lost: usize, gained: usize| {
        format!("{family} data-model=\"{model}\" data-lost=\"{lost}\" data-gained=\"{gained}\" title=\"of 5 answers\"")
    };
    assert!(section.contains(&cell(0, 2, 1)) && section.contains(&cell(1, 1, 0)), "{section}");
    assert!(
        section.contains("<option value=\"o&quot;c&lt;r\">") && section.contains("<option value=\"1\">rft</option>")
    );
    assert!(!section.contains(" hidden>\n<img"), "few enough to be shown without a script");
}

#[test]
fn words_come_from_the_file_for_older_responses_and_pictures_are_missed_by_name() {
    let dir = tempfile::tempdir().unwrap();
    compare(dir.path(), &worked_out(), 8);
    let log = dir.path().join("elsewhere/asked-0/responses.jsonl");
    let with_words = fs::read_to_string(&log).unwrap();
    let without = with_words.lines().map(|line| {
        let mut line: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).unwrap();
        ["prompt", "gold", "images"].iter().for_each(|key| drop(line.remove(*key).unwrap()));
        format!("{}\n", serde_json::Value::Object(line))
    });
    fs::write(&log, without.collect::<String>()).unwrap();
    let (section, questions) = page(dir.path());
    assert!(questions.len() == 3 && section.contains("Which letter?") && section.contains(">b<"), "{section}");

    fs::write(&log, with_words).unwrap();
    fs::remove_file(dir.path().join("asked-0.tsv")).unwrap();
    let (section, questions) = page(dir.path());
    assert!(questions.len() == 3 && section.contains("Which letter?") && !section.contains("<img"), "{section}");
    assert!(section.contains("without pictures") && section.contains("(asked-0)."), "{section}");

    // Without the responses of a model its changes are counted, and not shown.
    fs::remove_dir_all(dir.path().join("cost/tuned/rft")).unwrap();
    let (section, questions) = page(dir.path());
    assert!(section.contains("The responses of rft are not there any more (asked-0)."), "{section}");
    assert!(questions.len() == 3 && section.contains("data-model=\"1\" data-lost=\"1\""), "{section}");
}

#[test]
fn however_much_was_lost_the_page_stays_small() {
    let dir = tempfile::tempdir().unwrap();
    let long = "<\"&>".repeat(2000);
    let families: Vec<String> = (0..8).map(|i| format!("family {i}")).collect();
    let rows = families.iter().flat_map(|family| {
        (0..24).map(|i| (family.as_str(), format!("{i} {}", "<&>".repeat(1000)), "yes", ["yes", &*long, &*long]))
    });
    compare(dir.path(), &rows.collect::<Vec<Row<'_>>>(), 170);
    let (section, questions) = page(dir.path());
    let of = |family: &str| questions.iter().filter(|q| q.contains(&format!("data-family=\"{family}\""))).count();
    let counts: Vec<usize> = families.iter().map(|family| of(family)).collect();
    assert!(questions.len() > 60 && questions.len() <= MAX_QUESTIONS, "{}", questions.len());
    assert!(counts.iter().all(|&n| n > 4 && n <= PER_FAMILY), "{counts:?}");
    assert!(section.len() < MAX_BYTES + (512 << 10), "{}", section.len());
    assert_eq!(
        questions.iter().filter(|q| q.split_once('>').unwrap().0.ends_with(" hidden")).count(),
        questions.len() - FEW
    );
    // The largest picture: what the bound is made of.
    let picture = questions[0].split("src=\"").nth(1).unwrap().split('"').next().unwrap().len();
    assert!(picture > 10_000, "{picture}");
}
