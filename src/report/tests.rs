//! A study made up in code, rendered: two training runs, their evaluations, one puzzle set.

use super::*;
use crate::comm::Single;
use crate::data::{DatasetWriter, Manifest, Message, Record};
use crate::eval::{EvalDir, evaluate_in};
use crate::model::{ComputeDtype, SamplingParams};
use crate::sampling::{Response, SamplePlan, SamplingKey, from_fn, hash_examples};
use crate::tasks::jigsaw::{self, Grid, Permutation};
use crate::{rng, tasks};
use image::{Rgb, RgbImage};
use std::fs;

const SIDE: u32 = 112;

/// Sky over ground with a sun: a picture whose right order a person can see.
fn scene(i: u32) -> RgbImage {
    let (cx, cy) = (20 + (i * 37) % 70, 15 + (i * 23) % 30);
    RgbImage::from_fn(SIDE, SIDE, |x, y| {
        let sun = (x as i32 - cx as i32).pow(2) + (y as i32 - cy as i32).pow(2) < 150;
        let horizon = 60 + (f64::from(x) / 9.0 + f64::from(i)).sin() as i32 * 6;
        match (sun, (y as i32) < horizon) {
            (true, _) => Rgb([250, 220, 90]),
            (_, true) => Rgb([90 + (y / 2) as u8, 150 + (y / 2) as u8, 220]),
            (_, false) => Rgb([60 + (x / 2) as u8, 120 - (y / 3) as u8, 50]),
        }
    })
}

pub(super) fn dataset(dir: &Path, n: u32) {
    dataset_of(dir, n, 0);
}

/// Puzzles of the pictures from number `first` on.
fn dataset_of(dir: &Path, n: u32, first: u32) {
    let grid = Grid::new(2, 2).unwrap();
    let mut writer = DatasetWriter::create(dir, false).unwrap();
    writer.create_split("test", true).unwrap();
    let mut records = Vec::new();
    for i in 0..n {
        let order = Permutation::random(4, &mut rng::stream(7, "report", &[u64::from(i)]));
        let name = format!("images/{i:04}.png");
        let digest = writer.write_image("test", &name, &jigsaw::shuffle(&scene(first + i), grid, &order)).unwrap();
        let message = |role: &str, content: String| Message { role: role.into(), content };
        let category = if i % 2 == 0 { "photo" } else { "scene" };
        let record = Record {
            file_name: name.clone(),
            id: format!("puzzle-{i}"),
            task: "jigsaw".into(),
            messages: vec![
                message("user", "<image>Which tile belongs where?".into()),
                message("assistant", format!("<answer>{order}</answer>")),
            ],
            images: vec![name],
            answer: order.to_string(),
            source: format!("scene-{i}.png"),
            seed: 7,
            meta: serde_json::json!({"grid": "2x2", "style": "direct", "category": category})
                .as_object()
                .unwrap()
                .clone(),
        };
        records.push((record, vec![digest]));
    }
    writer.write_records("test", records).unwrap();
    let about = serde_json::json!({"tool": "", "version": "", "sha256": "", "splits": {}});
    writer.finish(serde_json::from_value::<Manifest>(about).unwrap()).unwrap();
}

pub(super) fn train_run(dir: &Path, method: &str, lr: f64, steps: u32, finished: bool) {
    fs::create_dir_all(dir).unwrap();
    let rollout = if method == "rft" { "\n[rollout]\nnum_generations = 8\n" } else { "" };
    let config = format!("[train]\nmethod = \"{method}\"\nlearning_rate = {lr}\nseed = 7\n{rollout}");
    fs::write(dir.join("config.toml"), config).unwrap();
    let identity = serde_json::json!({"model": "tiny", "data": "puzzles", "command": ["jigsaw", "train"], "started": u64::from(steps)});
    fs::write(dir.join("run.json"), identity.to_string()).unwrap();
    let mut lines = String::new();
    let speed = if method == "sft" { 60.0 } else { 150.0 };
    for step in 0..=steps {
        let noise = f64::from(step * 7919 % 101) / 101.0 - 0.5;
        let progress = 1.0 - (-f64::from(step) / speed).exp();
        if step > 0 {
            let loss = if step == 5 { serde_json::Value::Null } else { (1.4 - 1.1 * progress + 0.15 * noise).into() };
            let mut row =
                serde_json::json!({"step": step, "loss": loss, "learning_rate": lr, "grad_norm": 1.0 + 0.4 * noise});
            if method == "rft" {
                row["reward"] = (0.9 + 1.3 * progress + 0.3 * noise).into();
                row["entropy"] = (1.2 - progress).into();
            }
            lines += &format!("{row}\n");
        }
        if step % 25 == 0 {
            let right = (64.0 * (0.06 + 0.7 * progress)).round();
            let interval = crate::stats::share(right as usize, 64);
            let row = serde_json::json!({"step": step, "eval/accuracy": interval.value,
                "eval/accuracy_low": interval.low, "eval/accuracy_high": interval.high, "eval/partial_credit": 0.27 + 0.6 * progress, "eval/examples": 64.0});
            lines += &format!("{row}\n");
        }
    }
    fs::write(dir.join("metrics.jsonl"), lines).unwrap();
    let sample =
        serde_json::json!({"step": 3, "id": "puzzle-0", "response": "<script>alert('x')</script>", "reward": 1.5});
    fs::write(dir.join("samples.jsonl"), format!("{sample}\n")).unwrap();
    if finished {
        fs::write(dir.join("finished.json"), "{}").unwrap();
    }
}

/// The hashes of the examples of a dataset: what is asked, and what responses are scored by.
pub(super) fn example_hashes(data: &Path) -> (String, String) {
    let task = tasks::load(data, "test").unwrap();
    hash_examples(task.as_ref(), task.len()).unwrap()
}

/// An evaluation that answers rightly when `rightly(i)`, otherwise in one of several wrong ways.
pub(super) fn evaluation(dir: &Path, model: &Path, data: &Path, upto: usize, rightly: impl Fn(usize) -> bool) {
    let task = tasks::load(data, "test").unwrap();
    let (shown, gold) = example_hashes(data);
    let key = SamplingKey {
        code: "test".into(),
        model: format!("{:064x}", dir.display().to_string().len()),
        prompt: "p".into(),
        data: shown,
        gold,
        task: "jigsaw".into(),
        scorers: task.scorers().into_iter().collect(),
        examples: task.len(),
        sampling: SamplingParams::greedy(16),
        num_generations: 1,
        batch_size: None,
        dtype: ComputeDtype::F32,
        bench: None,
    };
    let directory = EvalDir::open(dir, key, model, (data, "test"), false, &Single).unwrap();
    let answer = |i: usize| {
        let gold = task.example(i)?.answer.clone();
        let text = match i % 4 {
            _ if rightly(i) => format!("<answer>{gold}</answer>"),
            0 => "<answer>1 1 1 1</answer>".to_string(),
            1 => "the <b>answer</b> & more".to_string(),
            _ => {
                let mut numbers: Vec<&str> = gold.split(' ').collect();
                numbers.swap(0, i % 3 + 1);
                format!("<answer>{}</answer>", numbers.join(" "))
            }
        };
        Ok(vec![Response {
            tokens: text.len() / 3,
            finished: true,
            text,
            token_ids: Vec::new(),
            logprobs: Vec::new(),
            no_answer: None,
        }])
    };
    let plan = SamplePlan { limit: None, num_generations: 1, batch_size: 4 };
    let stopping = |examples: std::ops::Range<usize>| {
        if examples.start >= upto { Err(Error::failed("stopped")) } else { examples.map(answer).collect() }
    };
    assert_eq!(
        evaluate_in(&directory, &from_fn(stopping), task.as_ref(), &plan, &SamplingParams::greedy(8), |_| {}).is_ok(),
        upto >= task.len()
    );
}

fn study(dir: &Path) {
    let data = dir.join("data");
    dataset(&data, 60);
    train_run(&dir.join("sft"), "sft", 3e-4, 300, true);
    train_run(&dir.join("rft"), "rft", 5e-5, 400, false);
    fs::create_dir_all(dir.join("sft/model")).unwrap();
    fs::create_dir_all(dir.join("rft/model")).unwrap();
    evaluation(&dir.join("eval/start"), Path::new("start"), &data, 60, |i| i % 9 == 0);
    evaluation(&dir.join("eval/sft"), &dir.join("sft/model"), &data, 60, |i| i % 4 != 1);
    evaluation(&dir.join("eval/rft"), &dir.join("rft/model"), &data, 60, |i| i % 2 == 0);
}

pub(super) fn page_of(paths: &[PathBuf]) -> String {
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("new/report.html");
    write(paths, "A <title>", &file).unwrap();
    fs::read_to_string(file).unwrap()
}

#[test]
fn a_study_becomes_one_page_with_curves_results_puzzles_and_settings() {
    let dir = tempfile::tempdir().unwrap();
    study(dir.path());
    let html = page_of(&[dir.path().to_path_buf()]);
    for expected in [
        "2 training runs and 3 evaluations",
        "Accuracy</h3>",
        "Reward</h3>",
        "SFT loss</h3>",
        "guessing",
        "4.3 %",
        "id=\"paired-differences\"",
        "train.learning_rate",
        "0.0003",
        "rollout.num_generations",
        "not finished, step 400",
        "aria-label=\"with the right answer\"",
        "95 % interval",
        "not a permutation",
    ] {
        assert!(html.contains(expected), "{expected:?} is missing");
    }
    // Example 0 is right for the start and for RFT: four solid frames each; example 2 is half wrong for the start.
    let first = html.split("class=\"card puzzle\"").nth(1).unwrap();
    assert_eq!(first.matches("class=\"mark ok\"").count(), 12, "all three answer the first puzzle rightly");
    let third = html.split("class=\"card puzzle\"").nth(3).unwrap();
    assert_eq!(third.matches("class=\"mark no\"").count(), 2, "two tiles are swapped in the start's answer");
    assert_eq!(html.matches("class=\"card puzzle\"").count(), 8);
}

#[test]
fn the_page_loads_nothing_and_runs_nothing_that_came_from_a_model() {
    let dir = tempfile::tempdir().unwrap();
    study(dir.path());
    let html = page_of(&[dir.path().to_path_buf()]);
    assert!(!html.contains("http://") && !html.contains("https://") && !html.contains("<link"));
    assert_eq!(html.matches("<script").count(), 1, "the page's own");
    assert!(!html.contains("alert('x')") && html.contains("&lt;script&gt;"));
    assert!(html.contains("the &lt;b&gt;answer&lt;/b&gt; &amp; more") || html.contains("&lt;b&gt;answer"));
    assert!(html.contains("A &lt;title&gt;"));
    // Outside of pictures, in which any three letters may occur.
    let text: String = html.split("base64,").map(|part| part.split_once('"').map_or(part, |(_, rest)| rest)).collect();
    assert!(text.contains("<path"));
    assert!(!text.contains("NaN") && !text.contains("undefined"));
}

#[test]
fn the_contents_link_to_every_section() {
    let dir = tempfile::tempdir().unwrap();
    study(dir.path());
    let html = page_of(&[dir.path().to_path_buf()]);
    let nav = html.split("<nav").nth(1).unwrap().split("</nav>").next().unwrap();
    let links: Vec<&str> = nav.split("href=\"#").skip(1).map(|link| link.split('"').next().unwrap()).collect();
    assert_eq!(links[..3], ["evaluations", "paired-differences", "training"], "{nav}");
    assert_eq!(links.len(), html.matches("<h2").count(), "every section has an id");
    assert!(links.iter().all(|id| html.matches(&format!("id=\"{id}\"")).count() == 1), "{links:?}");
}

/// A colour of the page (`--name: light-dark(#rrggbb, #rrggbb)`), as shares of red, green and blue, for light and dark.
fn page_colours(name: &str) -> [[f64; 3]; 2] {
    let text = page::PAGE.split(&format!("--{name}: light-dark(")).nth(1).unwrap_or_else(|| panic!("no --{name}"));
    let both: Vec<&str> = text.split(')').next().unwrap().split(", ").collect();
    let channel = |hex: &str, i: usize| f64::from(u8::from_str_radix(&hex[1 + 2 * i..3 + 2 * i], 16).unwrap()) / 255.0;
    [both[0], both[1]].map(|hex| [0, 1, 2].map(|i| channel(hex, i)))
}

/// Contrast of two colours (WCAG 2.2, relative luminance).
fn contrast(a: [f64; 3], b: [f64; 3]) -> f64 {
    let linear = |c: f64| if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) };
    let luminance = |[r, g, b]: [f64; 3]| 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

#[test]
fn text_and_marks_have_a_contrast_of_4_5_in_light_and_dark() {
    let series = (0..chart::COLOURS).map(|i| format!("s{i}"));
    let texts: Vec<String> = ["ink", "muted", "right", "wrong"].map(String::from).into_iter().chain(series).collect();
    for mode in 0..2 {
        for (text, ground) in texts.iter().flat_map(|text| ["page", "card", "tint"].map(|ground| (text, ground))) {
            let found = contrast(page_colours(text)[mode], page_colours(ground)[mode]);
            assert!(found >= 4.5, "--{text} on --{ground}, mode {mode}: {found:.2}");
        }
        // The darkest cell of a table.
        let (full, card, ink) = (study::FULL_TINT / 100.0, page_colours("card")[mode], page_colours("ink")[mode]);
        let wrong = page_colours("wrong")[mode];
        let cell = [0, 1, 2].map(|i| full * wrong[i] + (1.0 - full) * card[i]);
        assert!(contrast(ink, cell) >= 4.5, "a full loss, mode {mode}: {:.2}", contrast(ink, cell));
    }
    assert!((contrast([0.0; 3], [1.0; 3]) - 21.0).abs() < 1e-9);
}

#[test]
fn a_run_without_steps_and_an_unfinished_evaluation_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    dataset(&data, 12);
    evaluation(&dir.path().join("half"), Path::new("model"), &data, 8, |_| true);
    train_run(&dir.path().join("new"), "sft", 1e-3, 0, false);
    fs::remove_file(dir.path().join("new/metrics.jsonl")).unwrap();
    let begun = crate::io::output_dir::lock(&dir.path().join("new"), "training").unwrap();
    let html = page_of(&[dir.path().join("half"), dir.path().join("new")]);
    assert!(html.contains("8 of 12 responses"), "{html}");
    assert!(html.contains("no step has been recorded yet"));
    assert!(!html.contains("id=\"paired-differences\""));

    // Nobody works on it any more: it was stopped before its first step, and there is no run to show.
    drop(begun);
    let html = page_of(&[dir.path().to_path_buf()]);
    assert!(html.contains("1 evaluation") && !html.contains("training run") && !html.contains(">new<"), "{html}");
    let error = write(&[dir.path().join("new")], "x", &dir.path().join("x.html")).unwrap_err();
    assert!(error.exit_code() == 2 && error.to_string().contains("no run in"), "{error}");
}

#[test]
fn answers_are_not_drawn_over_a_dataset_that_was_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    dataset(&data, 12);
    evaluation(&dir.path().join("old"), Path::new("model"), &data, 12, |_| true);
    // The same ids and right answers, other pictures.
    fs::remove_dir_all(&data).unwrap();
    dataset_of(&data, 12, 5);
    evaluation(&dir.path().join("newer"), Path::new("model"), &data, 12, |_| false);
    let html = page_of(&[dir.path().to_path_buf()]);
    let why = "old: its answers are not drawn: ";
    assert!(
        html.contains(why) && html.contains("has other questions or pictures than those that were answered"),
        "{html}"
    );
    let first = html.split("class=\"card puzzle\"").nth(1).unwrap();
    assert!(first.contains("newer</div>") && !first.contains("old</div>"), "{first}");
    assert!(!html.contains("id=\"paired-differences\""), "they did not answer the same");

    // Nothing is left to draw.
    fs::remove_dir_all(&data).unwrap();
    dataset(&data, 8);
    let html = page_of(&[dir.path().to_path_buf()]);
    assert!(
        html.contains("has 8 examples where 12 were answered") && !html.contains("class=\"card puzzle\""),
        "{html}"
    );
}

#[test]
fn a_task_whose_answers_are_right_or_wrong_shows_no_partial_credit() {
    let dir = tempfile::tempdir().unwrap();
    study(dir.path());
    let html = page_of(&[dir.path().to_path_buf()]);
    assert!(html.contains("<th scope=\"col\">Tiles in place</th>"), "of puzzles it does");
    for eval in ["start", "sft", "rft"] {
        for name in ["key.json", "result.json"] {
            let file = dir.path().join("eval").join(eval).join(name);
            let text = fs::read_to_string(&file).unwrap();
            fs::write(&file, text.replace("\"jigsaw\": 1", "\"exact\": 1")).unwrap();
        }
    }
    let html = page_of(&[dir.path().to_path_buf()]);
    let results =
        &html[html.find("<h2 id=\"evaluations\"").unwrap()..html.find("<h2 id=\"paired-differences\"").unwrap()];
    assert!(results.contains("Whole answer right") && results.contains("guessing"));
    for word in ["artial credit", "iles in place", "27.", "NaN"] {
        assert!(!results.contains(word), "{word}: {results}");
    }
    // Nor does training on such a task, also where an earlier version recorded the accuracy twice.
    assert!(html.contains("<h3>Partial credit</h3>"));
    for run in ["sft", "rft"] {
        let file = dir.path().join(run).join("metrics.jsonl");
        let lines = fs::read_to_string(&file).unwrap();
        let twice = lines.lines().map(|line| {
            let mut row: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).unwrap();
            if let Some(accuracy) = row.get("eval/accuracy").cloned() {
                row.insert("eval/partial_credit".into(), accuracy);
            }
            format!("{}\n", serde_json::Value::Object(row))
        });
        fs::write(&file, twice.collect::<String>()).unwrap();
    }
    assert!(!page_of(&[dir.path().to_path_buf()]).contains("<h3>Partial credit</h3>"));
}

#[test]
fn data_that_is_gone_costs_the_pictures_and_not_the_report() {
    let dir = tempfile::tempdir().unwrap();
    study(dir.path());
    fs::remove_dir_all(dir.path().join("data")).unwrap();
    let html = page_of(&[dir.path().to_path_buf()]);
    assert!(html.contains("are not drawn: no dataset at"));
    assert!(html.contains("Paired differences") && !html.contains("class=\"card puzzle\""));
}

#[test]
fn a_run_given_twice_is_shown_once() {
    let dir = tempfile::tempdir().unwrap();
    study(dir.path());
    let html = page_of(&[dir.path().to_path_buf(), dir.path().join("sft"), dir.path().join("eval/sft")]);
    assert!(html.contains("2 training runs and 3 evaluations"));
}

pub(super) mod prior_knowledge {
    use super::*;
    use crate::eval::{Divergence, DivergenceStats, PromptRole};
    use crate::forgetting::fixtures::{labels, paired_scores, sides};
    use crate::forgetting::{
        BenchmarkTitle, CSV_HEADER, ForgettingResult, MeasuredBenchmark, ModelRef, NEW_TASK, RunRef, TunedResult, pair,
    };
    use crate::stats::Interval;

    /// Of 200 answers 160 are right before; `lost` of them are wrong after. Of the new task's 100, `learnt` more are right.
    pub fn tuned(run: &str, step: u64, learnt: usize, lost: [usize; 3]) -> TunedResult {
        let compared = |name: &str, family: &str, values: &[(f64, f64)]| {
            let (base, after) = sides(values);
            let title = BenchmarkTitle { name: name.into(), family: family.into(), scorer: "exact v1".into() };
            MeasuredBenchmark::of(title, &pair(base, after).unwrap(), &labels(values.len()), Vec::new()).unwrap()
        };
        let model = ModelRef {
            name: format!("{run}/step-{step}"),
            dir: format!("/runs/{run}/checkpoints/step-{step}"),
            hash: format!("{run}{step}").repeat(8),
            run: Some(RunRef {
                name: run.into(),
                dir: format!("/runs/{run}"),
                step: Some(step),
                seed: Some(7),
                data_hash: "3fa91c02aabb".into(),
                model_hash: "base-hash".into(),
            }),
        };
        let benchmarks = vec![
            compared("refcoco_val", "grounding", &paired_scores(200, 160, lost[0], 1)),
            compared("docvqa_val", "OCR and documents", &paired_scores(200, 160, lost[1], 2)),
            compared("pope<script>", "hallucination", &paired_scores(200, 160, lost[2], 3)),
        ];
        let nats = Interval { value: 0.001 * step as f64, low: 0.0008 * step as f64, high: 0.0012 * step as f64 };
        let direction = DivergenceStats { tokens: 9, unfinished: 0, per_token: nats, per_response: nats };
        let divergence = Divergence {
            prompts_of: NEW_TASK.into(),
            role: PromptRole::NewTask,
            prompts: 64,
            seed: 0,
            forward: direction,
            reverse: direction,
            own: None,
        };
        let new_task = compared(NEW_TASK, "puzzles", &paired_scores(100, 4, 0, learnt));
        TunedResult::of(model, Some(new_task), benchmarks, vec![divergence])
    }

    pub fn base() -> ModelRef {
        ModelRef { name: "Qwen2.5-VL".into(), dir: "/models/base".into(), hash: "base-hash".into(), run: None }
    }

    fn write_comparison(dir: &Path, tuned: Vec<TunedResult>) {
        crate::forgetting::write(dir, &ForgettingResult::new(base(), tuned)).unwrap();
    }

    /// SFT learns much and loses much; RFT learns less and loses little.
    pub fn two_runs(dir: &Path) {
        let sft = [(100, 20, [30, 10, 4]), (200, 44, [60, 25, 5]), (300, 70, [100, 40, 9])];
        let rft = [(400, 8, [2, 3, 1]), (800, 25, [4, 2, 3]), (1200, 37, [5, 6, 2])];
        let of = |name: &'static str, stops: [(u64, usize, [usize; 3]); 3]| {
            stops.into_iter().map(|(step, learnt, lost)| tuned(name, step, learnt, lost)).collect()
        };
        write_comparison(&dir.join("way-sft"), of("sft", sft));
        write_comparison(&dir.join("way-rft"), of("rft", rft));
    }

    #[test]
    fn the_page_has_the_table_the_charts_and_the_runs_at_equal_accuracy() {
        let dir = tempfile::tempdir().unwrap();
        two_runs(dir.path());
        let out = dir.path().join("pages/cost.html");
        let written = write(&[dir.path().to_path_buf()], "What it cost", &out).unwrap();
        assert_eq!((written.compared, written.evaluations), (6, 0));
        let html = fs::read_to_string(&out).unwrap();
        for expected in [
            "6 comparisons",
            "Prior knowledge</h2>",
            "Change by family",
            "Learned and retained",
            "Prior knowledge over training",
            "Distance from the base",
            "At equal accuracy on the new task",
            "not reached",
            "seed 7, data 3fa91c02",
            "sft, step 300",
            "refcoco_val",
            "mean: all benchmarks",
            "pope&lt;script&gt;",
        ] {
            assert!(html.contains(expected), "{expected:?} is missing");
        }
        assert!(!html.contains("pope<script>") && !html.contains("NaN"));
        // One setting: the same base and benchmarks, whatever the directory.
        assert_eq!(html.matches("<h2 id=\"prior-knowledge-").count(), 1);
        let forest =
            &html[html.find("<h3>Change by family</h3>").unwrap()..html.find("<h3>Learned and retained</h3>").unwrap()];
        assert_eq!(forest.matches(r#"class="interval""#).count(), 8, "three families and the mean, two runs");

        let csv = fs::read_to_string(out.with_extension("csv")).unwrap();
        assert!(csv.starts_with(CSV_HEADER));
        let matched: Vec<&str> = csv.lines().filter(|line| line.contains(",equal-accuracy,")).collect();
        // Levels 10 % to 70 %, and 41 %, the highest that both reach; RFT gets to 41 %.
        assert_eq!(matched.len(), 16, "{matched:?}");
        let of = |run: &str, at: &str| {
            let found =
                matched.iter().find(|line| line.contains(&format!(",{run},")) && line.ends_with(&format!(",{at}")));
            found.unwrap_or_else(|| panic!("{run} at {at}: {matched:?}")).split(',').nth(14).unwrap().to_string()
        };
        assert_eq!(of("rft", "0.5"), "");
        // SFT is at 24 % after 100 steps (-38 of 600) and at 48 % after 200 (-84 of 600): at 30 % a quarter of the way.
        let sft: f64 = of("sft", "0.3").parse().unwrap();
        assert!((sft - (-38.0 - 0.25 * 46.0) / 600.0).abs() < 1e-9, "{sft}");
        let rft: f64 = of("rft", "0.3").parse().unwrap();
        assert!(rft > -0.01 && rft < 0.0, "{rft}");
        let md = fs::read_to_string(out.with_extension("md")).unwrap();
        for expected in
            ["# What it cost", "| sft, step 300 |", "not reached", "### sft/step-300", "mean: all benchmarks"]
        {
            assert!(md.contains(expected), "{expected:?} is missing in:\n{md}");
        }
        // The same again goes over its own files, and not over anybody else's.
        write(&[dir.path().to_path_buf()], "What it cost", &out).unwrap();
        fs::write(dir.path().join("notes.md"), "# mine").unwrap();
        let error = write(&[dir.path().join("way-sft")], "x", &dir.path().join("notes.html")).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("notes.md"), "{error}");
        assert_eq!(fs::read_to_string(dir.path().join("notes.md")).unwrap(), "# mine");
    }

    #[test]
    fn a_run_that_is_in_the_report_keeps_its_name_and_colour() {
        let dir = tempfile::tempdir().unwrap();
        train_run(&dir.path().join("sft"), "sft", 3e-4, 100, true);
        let mut one = tuned("sft", 100, 20, [3, 2, 1]);
        if let Some(run) = &mut one.model.run {
            run.dir = dir.path().join("sft").display().to_string();
        }
        write_comparison(&dir.path().join("compare"), vec![one]);
        let html = page_of(&[dir.path().to_path_buf()]);
        assert!(html.contains("1 training run and 1 comparison"));
        let legend = html.split("<ul").nth(1).and_then(|list| list.split("</ul>").next()).unwrap();
        assert_eq!(legend.matches("var(--s0)").count(), 1, "one entry in the legend");
        // One checkpoint is no way to draw over steps, and base and checkpoint are two points in the plane.
        assert!(!html.contains("Prior knowledge over training") && html.contains("Learned and retained"));
    }

    #[test]
    fn comparisons_on_other_data_stand_apart() {
        let dir = tempfile::tempdir().unwrap();
        let mut other = tuned("other", 100, 20, [3, 2, 1]);
        other.benchmarks[0].data = "another".into();
        write_comparison(&dir.path().join("one"), vec![tuned("sft", 100, 20, [3, 2, 1])]);
        write_comparison(&dir.path().join("two"), vec![other]);
        let html = page_of(&[dir.path().to_path_buf()]);
        assert_eq!(html.matches("<h2 id=\"prior-knowledge-").count(), 2);
    }

    #[test]
    fn a_comparison_without_a_new_task_has_no_plane() {
        let dir = tempfile::tempdir().unwrap();
        let one = TunedResult { new_task: None, ..tuned("sft", 100, 20, [3, 2, 1]) };
        write_comparison(&dir.path().join("compare"), vec![one]);
        let html = page_of(&[dir.path().to_path_buf()]);
        assert!(html.contains("Change by family") && !html.contains("Learned and retained"));
        assert!(!html.contains("At equal accuracy"));
    }
}
