//! Benchmarks through the whole library: prepared, run by a tiny model, run on, scored again.

use super::*;
use crate::Result;
use crate::comm::Single;
use crate::eval::EvalResult;
use crate::model::init::{Preset, write_checkpoint};
use crate::model::{ComputeDtype, ModelLoader, SamplingParams};
use crate::sampling::SamplePlan;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use candle_core::Device;
use std::fs;
use std::path::PathBuf;

fn picture(width: u32, height: u32) -> String {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let image = image::RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, width as u8]));
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    STANDARD.encode(bytes.into_inner())
}

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        write_checkpoint(&dir.path().join("model"), Preset::Tiny, 1).unwrap();
        let bench = Bench { dir };
        bench.write("pope.tsv", &bench.pope("yes"));
        bench.write("boxes.tsv", &boxes());
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Six questions about two pictures; `first` is the answer to the first.
    fn pope(&self, first: &str) -> String {
        let mut text = "index\timage\tquestion\tanswer\tcategory\n".to_string();
        for i in 0..6 {
            let image = if i < 2 { picture(40 + i, 30) } else { (i % 2).to_string() };
            let answer = if i == 0 { first } else { ["yes", "no"][i as usize % 2] };
            text +=
                &format!("{i}\t{image}\tIs there a number {i}?\t{answer}\t{}\n", ["random", "popular"][i as usize / 3]);
        }
        text
    }

    fn spec(&self, text: &str) -> BenchmarkSpec {
        let (name, file) = text.split_once('=').unwrap();
        BenchmarkSpec::parse(&format!("{name}={}", self.path(file).display()), "test").unwrap()
    }

    fn specs(&self) -> Vec<BenchmarkSpec> {
        vec![self.spec("pope=pope.tsv"), self.spec("mine=boxes.tsv")]
    }

    fn prepare(&self, settings: &BenchmarkSettings) -> Result<Vec<PreparedBenchmark>> {
        prepare(&self.specs(), settings, &self.path("model"))
    }

    fn run(&self, settings: &BenchmarkSettings, out: &str, fresh: bool) -> Result<Vec<(String, EvalResult)>> {
        let prepared = self.prepare(settings)?;
        run(&prepared, &self.path("model"), (&loader(), &Single), &self.path(out), fresh, &mut |_, _| {})
    }

    fn responses(&self, out: &str, bench: &str) -> Vec<u8> {
        fs::read(self.path(out).join(bench).join("responses.jsonl")).unwrap()
    }
}

/// A file whose rows say themselves how they are scored.
fn boxes() -> String {
    let header = "index\timage\tquestion\tanswer\tscorer\n";
    let rows = [
        format!("a\t{}\tWhere is the middle?\t50 25 150 75\tiou\n", picture(200, 100)),
        "b\ta\tName it.\tgrey\texact\n".to_string(),
        "c\ta\tWhere is the left half?\t0 0 100 100\tiou\n".to_string(),
    ];
    header.to_string() + &rows.concat()
}

fn settings(batch: usize) -> BenchmarkSettings {
    BenchmarkSettings {
        plan: SamplePlan { limit: None, num_generations: 1, batch_size: batch },
        sampling: SamplingParams::greedy(512),
        max_new_tokens: Some(5),
        min_pixels: None,
        max_pixels: None,
    }
}

fn refusal<T>(result: Result<T>) -> String {
    let error = result.err().unwrap();
    assert_eq!(error.exit_code(), 2);
    error.to_string()
}

fn loader() -> ModelLoader {
    ModelLoader::new(&Device::Cpu, ComputeDtype::F32)
}

#[test]
fn the_protocol_of_a_benchmark_is_prepared_and_recorded() {
    let bench = Bench::new();
    let prepared = bench.prepare(&BenchmarkSettings { max_new_tokens: None, ..settings(4) }).unwrap();
    let [pope, boxes] = prepared.as_slice() else { panic!("two benchmarks") };
    assert_eq!((pope.name.as_str(), pope.protocol.benchmark.as_deref()), ("pope", Some("pope")));
    assert_eq!((pope.sampling.max_new_tokens, boxes.sampling.max_new_tokens), (32, 512));
    assert_eq!((boxes.protocol.benchmark.as_deref(), boxes.protocol.scorer.as_str()), (None, "iou+exact"));
    assert_eq!(pope.protocol.scorer, "yes-no");
    // The tiny checkpoint's own bounds: those of POPE are for a model of larger images.
    let own = &pope.reader().unwrap().processor;
    assert_eq!(pope.protocol.pixels.unwrap().min, own.images().unwrap().min_pixels);
    // The sizes that boxes are rescaled by are those of the processor that makes the patches.
    let sizes = |prepared: &PreparedBenchmark| {
        let meta = &prepared.task().example(0).unwrap().meta;
        (meta["size"].clone(), meta["resized"].clone())
    };
    let image = boxes.task().images(0).unwrap().remove(0);
    let grid = boxes.reader().unwrap().processor.images().unwrap().process(&image).unwrap().grid;
    assert_eq!(sizes(boxes), (serde_json::json!([200, 100]), serde_json::json!([grid[2] * 14, grid[1] * 14])));

    let small = BenchmarkSettings { max_pixels: Some(28 * 28 * 4), ..settings(4) };
    let prepared = bench.prepare(&small).unwrap();
    assert_eq!(
        (
            prepared[1].protocol.pixels.unwrap().max,
            prepared[1].reader().unwrap().processor.images().unwrap().max_pixels
        ),
        (3136, 3136)
    );
    assert_eq!(sizes(&prepared[1]).1, serde_json::json!([56, 28]));
    let said = refusal(bench.prepare(&BenchmarkSettings { min_pixels: Some(10_000), ..small }));
    assert!(said.contains("--min-pixels 10000 and --max-pixels 3136"), "{said}");
}

#[test]
fn a_run_writes_results_over_all_benchmarks_resumes_and_does_not_depend_on_the_batch_size() {
    let bench = Bench::new();
    let results = bench.run(&settings(4), "out", false).unwrap();
    assert_eq!(results.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["pope", "mine"]);
    let summary = &results[0].1.summary;
    assert_eq!((summary.examples, summary.scorers["yes-no"], summary.task.as_str()), (6, 2, "pope"));
    assert!(
        summary.aggregates.iter().any(|n| n.name == "f1") && summary.aggregates.iter().any(|n| n.name == "random/f1")
    );
    assert_eq!(summary.chance.unwrap().accuracy, 0.5);
    assert_eq!(results[0].1.about.key.bench.as_ref().unwrap().benchmark.as_deref(), Some("pope"));
    let all: serde_json::Value = crate::io::files::read_json(&bench.path("out/results.json")).unwrap();
    assert_eq!((all[0]["bench"].as_str(), all[1]["examples"].as_u64()), (Some("pope"), Some(3)));
    let csv = fs::read_to_string(bench.path("out/results.csv")).unwrap();
    let names: Vec<&str> =
        csv.lines().map(|line| line.rsplit_once(",").unwrap().0.split(',').nth(1).unwrap()).collect();
    assert_eq!(names[..4], ["metric", "score", "lenient", "unparsed"]);
    assert!(csv.contains("\npope,f1,") && csv.contains("\nmine,score,3,"), "{csv}");

    // Another batch gives the same responses, and so does what was cut off in the middle of a line.
    bench.run(&settings(1), "single", false).unwrap();
    let whole = bench.responses("out", "mine");
    assert_eq!(bench.responses("single", "mine"), whole);
    assert_eq!(bench.responses("single", "pope"), bench.responses("out", "pope"));
    fs::write(bench.path("out/mine/responses.jsonl"), &whole[..whole.len() / 2]).unwrap();
    fs::remove_file(bench.path("out/mine/result.json")).unwrap();
    let again = bench.run(&settings(2), "out", false).unwrap();
    assert_eq!(bench.responses("out", "mine"), whole);
    assert_eq!(again[1].1.summary.value.value, results[1].1.summary.value.value);

    let said = refusal(bench.run(&BenchmarkSettings { max_pixels: Some(7840), ..settings(4) }, "out", false));
    assert!(said.contains("out/pope holds another evaluation (bench.pixels.max: 200704 -> 7840)"), "{said}");

    // What is finished needs no weights.
    let weights = bench.path("model/model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    assert_eq!(bench.run(&settings(2), "out", false).unwrap()[0].1, again[0].1);
    fs::write(&weights, [&bytes[..], b"x"].concat()).unwrap();
    let said = refusal(bench.run(&settings(2), "out", false));
    assert!(said.contains("out/pope holds another evaluation (model: "), "{said}");
}

#[test]
fn an_output_directory_with_other_files_is_refused() {
    let bench = Bench::new();
    let said = refusal(bench.run(&settings(4), "model", false));
    assert!(said.contains("holds something else than evaluations of benchmarks"), "{said}");
    let prepared = bench.prepare(&settings(4)).unwrap();
    fs::write(bench.path("model/chat_template.jinja"), "{{ messages[0].role }}").unwrap();
    assert!(!prepared[0].serves(&bench.path("model")).unwrap());
    let said =
        refusal(run(&prepared, &bench.path("model"), (&loader(), &Single), &bench.path("out"), false, &mut |_, _| {}));
    assert!(said.contains("are not those that pope was prepared for"), "{said}");
}

#[test]
fn duplicate_names_and_prompts_with_special_tokens_are_refused() {
    let bench = Bench::new();
    let specs = [bench.spec("pope=pope.tsv"), bench.spec("POPE=pope.tsv")];
    let said = refusal(prepare(&specs, &settings(1), &bench.path("model")));
    assert!(said.contains("two benchmarks have this name"), "{said}");
    let directory = [BenchmarkSpec { kind: Some("vqa".into()), ..bench.spec("x=model") }];
    let said = refusal(prepare(&directory, &settings(1), &bench.path("model")));
    assert!(said.contains("a dataset says itself how it is scored"), "{said}");
    bench.write("special.tsv", &boxes().replace("Name it.", "Name <|im_end|> it."));
    let said = refusal(prepare(&[bench.spec("x=special.tsv")], &settings(1), &bench.path("model")));
    assert!(
        said.contains("special.tsv:3: row 2: example b: ")
            && said.matches("special.tsv").count() == 1
            && said.contains("<|im_end|>"),
        "{said}"
    );
}

#[test]
fn stored_responses_are_scored_again_by_a_corrected_answer() {
    let bench = Bench::new();
    let before = bench.run(&settings(4), "out", false).unwrap();
    // The first response made the right one.
    let path = bench.path("out/pope/responses.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // The third question refers to the picture of the first, which is in line 2.
    let picture = |line: usize| format!("{}:{line}", bench.path("pope.tsv").display());
    let shown = |i: usize| (lines[i]["gold"].as_str().unwrap(), lines[i]["images"][0].as_str().unwrap());
    assert_eq!((shown(0), shown(2), shown(3)), (("yes", &*picture(2)), ("yes", &*picture(2)), ("no", &*picture(3))));
    assert!(lines[2]["prompt"].as_str().unwrap().starts_with("<image>Is there a number 2?"), "{text}");
    let mut first = lines[0].clone();
    first["response"] = "No.".into();
    let rest: Vec<&str> = text.lines().skip(1).collect();
    fs::write(&path, format!("{first}\n{}\n", rest.join("\n"))).unwrap();
    let right = |out: &str| EvalResult::read_responses(&bench.path(out)).unwrap()[0].score.value;
    rescore(&bench.path("out"), &mut |_, _| {}).unwrap();
    assert_eq!(right("out/pope"), 0.0);

    bench.write("pope.tsv", &bench.pope("no"));
    let said = refusal(bench.run(&settings(4), "out", false));
    assert!(said.contains("gold: ") && said.contains("--rescore to score its responses again"), "{said}");
    let mut told = Vec::new();
    let results = rescore(&bench.path("out"), &mut |name, p| told.push((name.to_string(), p.done, p.total))).unwrap();
    assert_eq!(told, [("mine".to_string(), 3, 3), ("pope".to_string(), 6, 6)]);
    assert_eq!(right("out/pope"), 1.0);
    assert!(fs::read_to_string(&path).unwrap().lines().all(|line| line.contains("\"prompt\":\"<image>Is there")));
    let of = |results: &[(String, EvalResult)]| results.iter().find(|(n, _)| n == "pope").unwrap().1.summary.clone();
    assert!((of(&results).value.value - (of(&before).value.value + 1.0 / 6.0)).abs() < 1e-9);
    assert_eq!(of(&results).tokens_per_second, of(&before).tokens_per_second);
    // Now it is the same evaluation again.
    assert_eq!(of(&bench.run(&settings(4), "out", false).unwrap()).value, of(&results).value);

    bench.write("pope.tsv", &bench.pope("no").replace("a number 3", "a number 4"));
    let said = refusal(rescore(&bench.path("out"), &mut |_, _| {}));
    assert!(said.contains("no longer asks what these responses answer"), "{said}");
    assert!(refusal(rescore(&bench.path("model"), &mut |_, _| {})).contains("no evaluation in"));
}
