//! Whole suites: every question in both styles, their benchmark files, and splits that share no photo.

use super::*;
use crate::data::Dataset;
use std::fs;
use tempfile::TempDir;

fn settings(suite: &[Family]) -> SuiteSettings {
    SuiteSettings {
        suite: suite.iter().copied().map(FamilyWeight::from).collect(),
        images: Path::new(env!("CARGO_MANIFEST_DIR")).join("data/photos"),
        count: 40,
        question_first: false,
        seed: 11,
        split: "0.5,0.1,0.4".parse().unwrap(),
        held_out: None,
        noise: Noise::default(),
    }
}

fn make_in(settings: &SuiteSettings, out: &Path) -> Manifest {
    generate(settings, out, false, &|| ()).unwrap()
}

#[test]
fn every_question_is_there_in_both_styles_and_the_same_again() {
    let dir = TempDir::new().unwrap();
    let settings = settings(&[Family::Vqa, Family::Grounding]);
    let first = make_in(&settings, &dir.path().join("a"));
    assert_eq!(first.splits["train"].records, 2 * 2 * 20);
    assert_eq!(first.splits["test"].records, 2 * 2 * 16);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let second = pool.install(|| make_in(&settings, &dir.path().join("b")));
    assert_eq!(first.sha256, second.sha256);
    for name in ["vqa-direct.tsv", "vqa-think.tsv", "grounding-direct.tsv", "grounding-think.tsv"] {
        let read = |d: &str| fs::read(dir.path().join(d).join(BENCH).join(name)).unwrap();
        assert_eq!(read("a"), read("b"));
    }
    let fewer = make_in(&SuiteSettings { held_out: Some(3), ..settings.clone() }, &dir.path().join("c"));
    assert_eq!(fewer.splits["train"].sha256, first.splits["train"].sha256);
    assert_eq!(fewer.splits["test"].records, 2 * 2 * 3);
    let noisy = SuiteSettings { noise: "vqa:60".parse().unwrap(), ..settings.clone() };
    let noisy_made = make_in(&noisy, &dir.path().join("noisy"));
    assert_eq!(noisy_made.settings["noise"], "vqa:60");
    let [plain, noisy] = ["a", "noisy"].map(|name| Dataset::open(&dir.path().join(name), "test").unwrap());
    for (i, a) in plain.records().map(Result::unwrap).enumerate() {
        let b = noisy.record(i).unwrap();
        assert_eq!(a, b, "the question and its answer stay");
        let same = plain.images(i).unwrap() == noisy.images(i).unwrap();
        assert_eq!(same, a.id.contains("grounding"), "{}", a.id);
    }
    let mut weighted = settings.clone();
    weighted.suite[1].times = 3;
    let more = make_in(&weighted, &dir.path().join("d"));
    assert_eq!(more.splits["train"].records, 2 * (20 + 60));
    assert_eq!(more.splits["test"].sha256, first.splits["test"].sha256);
    let data = Dataset::open(&dir.path().join("a"), "train").unwrap();
    let styles = data.records().filter(|r| r.as_ref().unwrap().meta["style"] == "think").count();
    assert_eq!(styles, 40);
}

#[test]
fn a_benchmark_row_holds_the_picture_and_the_whole_prompt() {
    use base64::Engine as _;
    let dir = TempDir::new().unwrap();
    make_in(&settings(&[Family::Vqa]), dir.path());
    let test = Dataset::open(dir.path(), "test").unwrap();
    let mut reader =
        csv::ReaderBuilder::new().delimiter(b'\t').from_path(dir.path().join(BENCH).join("vqa-think.tsv")).unwrap();
    let headers = reader.headers().unwrap().clone();
    let at = |row: &csv::StringRecord, name: &str| row[headers.iter().position(|h| h == name).unwrap()].to_string();
    let rows: Vec<csv::StringRecord> = reader.records().collect::<std::result::Result<_, _>>().unwrap();
    let think: Vec<_> = test.records().map(Result::unwrap).filter(|r| r.meta["style"] == "think").collect();
    assert_eq!(rows.len(), think.len());
    for (row, record) in rows.iter().zip(think) {
        assert_eq!(at(row, "question"), record.messages[0].content);
        assert_eq!(at(row, "answer"), record.answer);
        assert_eq!((at(row, "scorer"), at(row, "style")), ("choice".into(), "think".into()));
        assert_eq!(at(row, "family"), "vqa");
        assert_eq!(at(row, "B"), record.meta["options"][1]);
        let picture = base64::engine::general_purpose::STANDARD.decode(at(row, "image")).unwrap();
        assert_eq!(picture, fs::read(dir.path().join("test").join(&record.images[0])).unwrap());
    }
}

#[test]
fn no_photo_and_no_picture_is_on_two_sides() {
    let dir = TempDir::new().unwrap();
    let manifest =
        make_in(&SuiteSettings { count: 200, ..settings(&[Family::Knowledge, Family::Describe]) }, dir.path());
    let records =
        |split: &str| Dataset::open(dir.path(), split).unwrap().records().map(Result::unwrap).collect::<Vec<_>>();
    let sources = |split: &str| -> HashSet<String> {
        records(split).into_iter().filter(|r| r.meta["family"] == "knowledge").map(|r| r.source).collect()
    };
    let (train, test) = (sources("train"), sources("test"));
    assert!(train.len() > 20 && test.len() > 10, "{} {}", train.len(), test.len());
    assert!(train.is_disjoint(&test));
    let answers = |split: &str| -> HashSet<String> {
        records(split).into_iter().filter(|r| r.meta["family"] == "describe").map(|r| r.answer).collect()
    };
    assert!(answers("train").is_disjoint(&answers("test")));
    assert!(!manifest.attribution.is_empty() && manifest.licences.values().sum::<usize>() > 100);
}

#[test]
fn a_folder_without_classes_is_refused_before_anything_is_written() {
    let dir = TempDir::new().unwrap();
    let images = dir.path().join("images");
    fs::create_dir(&images).unwrap();
    RgbImage::from_fn(100, 100, |x, y| image::Rgb([x as u8, y as u8, 9])).save(images.join("a.png")).unwrap();
    let out = dir.path().join("out");
    let error = generate(&SuiteSettings { images, ..settings(&[Family::Knowledge]) }, &out, false, &|| ()).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("class"), "{error}");
    assert!(!out.join("manifest.json").exists());
}
