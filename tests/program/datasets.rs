//! `jigsaw gen` from end to end: what it writes, that it is the same again, that no photo lies on two sides, that answers are
//! right.

use image::{Rgb, RgbImage, imageops};
use jigsaw::data::{Dataset, MANIFEST, Manifest, Record, resize};
use jigsaw::tasks;
use jigsaw::tasks::jigsaw::generate::{self, JigsawSettings};
use jigsaw::tasks::jigsaw::{self as puzzle, Grid, QuestionKind};
use jigsaw::tasks::split::SPLITS;
use jigsaw::tasks::{RewardSettings, Style};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

fn settings(images: &Path) -> JigsawSettings {
    JigsawSettings {
        images: images.to_owned(),
        test_images: None,
        scenes: 0.0,
        cues: Default::default(),
        grid: "3x3".parse().unwrap(),
        tile: 28,
        tile_any: false,
        count: 40,
        stream: None,
        style: Style::Direct,
        question: QuestionKind::Order,
        question_first: false,
        min_crop: 0.6,
        augment: false,
        seed: 7,
        split: "0.6,0.2,0.2".parse().unwrap(),
        limit: None,
        strict: false,
    }
}

/// A photo no two tiles of which look the same.
fn photo(seed: u32, width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let wave = (f64::from(x * (seed + 3)) * 0.05).sin() + (f64::from(y * (seed + 1)) * 0.03).cos();
        Rgb([(x * 255 / width) as u8, (y * 255 / height) as u8, (wave * 60.0 + 128.0) as u8])
    })
}

fn folder(photos: u32) -> TempDir {
    let dir = TempDir::new().unwrap();
    fs::create_dir_all(dir.path().join("train2014/more")).unwrap();
    for i in 0..photos {
        let place = ["", "train2014/", "train2014/more/"][i as usize % 3];
        let ending = ["png", "jpg", "JPEG"][i as usize % 3];
        photo(i, 100 + i * 7, 130).save(dir.path().join(format!("{place}p{i:02}.{ending}"))).unwrap();
    }
    dir
}

fn make(settings: &JigsawSettings, out: &Path) -> Manifest {
    generate::generate(settings, out, false, &|| ()).unwrap()
}

fn refusal(settings: &JigsawSettings, out: &Path, overwrite: bool) -> String {
    let error = generate::generate(settings, out, overwrite, &|| ()).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error}");
    error.to_string()
}

/// Every file below `dir` with its content.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    walkdir::WalkDir::new(dir)
        .into_iter()
        .map(|e| e.unwrap())
        .filter(|e| e.file_type().is_file())
        .map(|e| (e.path().strip_prefix(dir).unwrap().display().to_string(), fs::read(e.path()).unwrap()))
        .collect()
}

fn records(out: &Path) -> Vec<(&'static str, Record)> {
    let split = |split| Dataset::open(out, split).unwrap().records().map(|r| (split, r.unwrap())).collect::<Vec<_>>();
    SPLITS.into_iter().flat_map(split).collect()
}

#[test]
fn a_split_of_many_puzzles_and_few_photos_is_warned_of_and_an_empty_one_is_not() {
    let (photos, out) = (folder(12), TempDir::new().unwrap());
    let warnings = |split: &str, augment: bool| {
        let settings = JigsawSettings { split: split.parse().unwrap(), augment, ..settings(photos.path()) };
        settings.warnings_of(&generate::generate(&settings, &out.path().join("puzzles"), true, &|| ()).unwrap())
    };
    let few = warnings("0.6,0.4,0", true);
    assert_eq!(few.len(), 1, "{few:?}");
    assert!(few[0].starts_with("16 puzzles of validation from "), "{few:?}");
    assert_eq!(warnings("0.6,0.4,0", false).len(), 2);
    assert!(warnings("1,0,0", false).is_empty());
}

#[test]
fn test_puzzles_of_another_folder_share_no_source_with_the_others() {
    let (images, test_images, out) = (folder(9), TempDir::new().unwrap(), TempDir::new().unwrap());
    for i in 0..4 {
        photo(50 + i, 120, 140).save(test_images.path().join(format!("p{i:02}.png"))).unwrap();
    }
    // The same content as a photo of the other folder.
    fs::copy(images.path().join("p00.png"), test_images.path().join("copy.png")).unwrap();
    let apart = JigsawSettings { test_images: Some(test_images.path().to_owned()), ..settings(images.path()) };
    let manifest = make(&apart, &out.path().join("data"));
    let sources = |split: &str| -> HashSet<String> {
        let dataset = Dataset::open(&out.path().join("data"), split).unwrap();
        dataset.records().map(|record| record.unwrap().source).collect()
    };
    let prefix = format!("{}/", test_images.path().file_name().unwrap().to_string_lossy());
    let test = sources("test");
    assert_eq!(test, (0..4).map(|i| format!("{prefix}p{i:02}.png")).collect::<HashSet<_>>());
    let (train, validation) = (sources("train"), sources("validation"));
    assert!(train.is_disjoint(&validation) && train.len() + validation.len() == 9, "{train:?} {validation:?}");
    assert!(train.union(&validation).all(|name| !name.starts_with(&prefix)));
    assert_eq!(manifest.left_out.len(), 1);
    assert!(manifest.left_out[0].file.ends_with("copy.png") && manifest.left_out[0].reason.contains("p00.png"));
    let alone = JigsawSettings { split: "0,0,1".parse().unwrap(), ..apart };
    assert!(
        generate::generate(&alone, &out.path().join("alone"), false, &|| ())
            .unwrap_err()
            .to_string()
            .contains("--images")
    );
}

#[test]
fn the_dataset_is_byte_identical_whatever_the_number_of_threads() {
    let images = folder(9);
    fs::write(images.path().join("bad.jpg"), b"no image").unwrap();
    let out = TempDir::new().unwrap();
    let written: Vec<_> = [1, 2, 5]
        .into_iter()
        .map(|threads| {
            let dir = out.path().join(threads.to_string());
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| make(&settings(images.path()), &dir));
            files(&dir)
        })
        .collect();
    assert_eq!(written[0].len(), 40 + 3 + 1);
    assert!(written[0] == written[1] && written[1] == written[2], "the output differs between numbers of threads");
    let dir = out.path().join("other seed");
    make(&JigsawSettings { seed: 8, ..settings(images.path()) }, &dir);
    assert_ne!(files(&dir)["train/images/000000.png"], written[0]["train/images/000000.png"]);
}

#[test]
fn a_puzzle_depends_on_seed_photo_and_index_and_on_no_other_photo() {
    let images = folder(9);
    let out = TempDir::new().unwrap();
    let puzzles = |name: &str| {
        let dir = out.path().join(name);
        make(&settings(images.path()), &dir);
        records(&dir)
            .into_iter()
            .map(|(split, r)| {
                let image = fs::read(dir.join(split).join(&r.file_name)).unwrap();
                ((r.source.clone(), r.meta["index"].as_u64().unwrap()), (r.answer, image))
            })
            .collect::<HashMap<_, _>>()
    };
    let before = puzzles("before");
    photo(77, 200, 200).save(images.path().join("a new one.png")).unwrap();
    let after = puzzles("after");
    let common = before.iter().filter(|(key, _)| after.contains_key(key)).count();
    assert!(common > 20, "only {common} puzzles in common");
    assert!(before.iter().all(|(key, puzzle)| after.get(key).is_none_or(|other| other == puzzle)));
}

#[test]
fn no_photo_lies_on_two_sides_not_even_under_two_names_or_with_another_seed() {
    let images = folder(15);
    for i in 0..15 {
        let place = ["", "train2014/", "train2014/more/"][i % 3];
        let ending = ["png", "jpg", "JPEG"][i % 3];
        fs::copy(
            images.path().join(format!("{place}p{i:02}.{ending}")),
            images.path().join(format!("copy of {i}.{ending}")),
        )
        .unwrap();
    }
    let mut side_of: HashMap<Vec<u8>, HashSet<&str>> = HashMap::new();
    for (seed, grid, question) in [(1, "3x3", QuestionKind::Order), (2, "2x2", QuestionKind::Pair)] {
        let out = TempDir::new().unwrap();
        let made = make(
            &JigsawSettings { seed, grid: grid.parse().unwrap(), question, ..settings(images.path()) },
            &out.path().join("d"),
        );
        assert_eq!(made.left_out.len(), 15, "each copy is left out: {:?}", made.left_out);
        for (split, record) in records(&out.path().join("d")) {
            let content = Sha256::digest(fs::read(images.path().join(&record.source)).unwrap()).to_vec();
            side_of.entry(content).or_default().insert(split);
        }
    }
    assert_eq!(side_of.len(), 15);
    assert!(side_of.values().all(|sides| sides.len() == 1));
}

#[test]
fn tiles_put_back_by_the_answer_are_the_crop_of_the_photo() {
    let images = folder(6);
    for grid in ["3x3", "2x2", "1x2", "4x1", "2x5"] {
        let out = TempDir::new().unwrap();
        let out = out.path().join("d");
        let grid: Grid = grid.parse().unwrap();
        make(&JigsawSettings { grid, count: 30, ..settings(images.path()) }, &out);
        let mut puzzles = HashSet::new();
        for (split, record) in records(&out) {
            let dataset = Dataset::open(&out, split).unwrap();
            let same = dataset.records().position(|other| other.unwrap().id == record.id).unwrap();
            let shuffled = dataset.images(same).unwrap().remove(0);
            let order = puzzle::permutation_answer(&record.answer, grid.tiles()).unwrap();
            assert!(!order.is_identity());
            let [x, y, w, h]: [u32; 4] = serde_json::from_value(record.meta["crop"].clone()).unwrap();
            let source = image::open(images.path().join(&record.source)).unwrap().into_rgb8();
            let (width, height) = (grid.cols() as u32 * 28, grid.rows() as u32 * 28);
            let crop = imageops::crop_imm(&source, x, y, w, h).to_image();
            let original = resize(&crop, [0, 0, w, h], width, height);
            let restored = puzzle::restore(&shuffled, grid, &order);
            assert_eq!(restored, original, "{grid} {}", record.id);
            let other = imageops::resize(&crop, width, height, imageops::FilterType::Lanczos3);
            let off = restored.iter().zip(other.iter()).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(off <= Some(1), "{grid} {}: {off:?} from what another resampler makes", record.id);
            assert_ne!(shuffled, original);
            puzzles.insert(shuffled.into_raw());
        }
        assert_eq!(puzzles.len(), 30, "no puzzle comes twice");
    }
}

#[test]
fn every_reference_response_is_right_and_well_formed() {
    let images = folder(8);
    for style in [Style::Direct, Style::Think] {
        for (question, task_name) in [(QuestionKind::Order, "jigsaw"), (QuestionKind::Pair, "jigsaw-pair")] {
            let out = TempDir::new().unwrap();
            let out = out.path().join("d");
            make(&JigsawSettings { style, question, ..settings(images.path()) }, &out);
            let task = tasks::load(&out, "train").unwrap();
            assert_eq!((task.name(), task.len()), (task_name, 24));
            for i in 0..task.len() {
                let record = task.example(i).unwrap();
                let score = task.score(i, record.response().unwrap());
                assert!(score.correct && score.parsed && score.well_formed, "{score:?} {}", record.id);
                assert_eq!(RewardSettings::default().reward(&score).total, 3.0);
                assert!(!task.score(i, "").correct);
                assert_eq!(task.images(i).unwrap()[0].dimensions(), (84, 84));
                assert_eq!(record.prompt().len(), 1);
                assert!(record.prompt()[0].content.starts_with("<image>\n"));
                assert_eq!(record.prompt()[0].content.contains("<think>"), style == Style::Think);
            }
        }
    }
}

#[test]
fn the_manifest_counts_names_licences_and_is_tied_to_the_content() {
    let images = folder(5);
    fs::write(
        images.path().join("ATTRIBUTION.tsv"),
        "file\tlicence\tauthor\tsource\np00.png\tCC0-1.0\tA. Person\thttps://example.org/0\np03.png\tCC-BY-2.0\tB\tC\n",
    )
    .unwrap();
    let out = TempDir::new().unwrap();
    let made = make(&settings(images.path()), &out.path().join("d"));
    let counts: Vec<_> = SPLITS.iter().map(|s| made.splits[*s].records).collect();
    assert_eq!(counts, [24, 8, 8]);
    assert_eq!(made.splits.values().map(|s| s.sources).sum::<usize>(), 5);
    assert_eq!(
        made.licences,
        BTreeMap::from([("CC0-1.0".into(), 1), ("CC-BY-2.0".into(), 1), ("not stated".into(), 3)])
    );
    assert_eq!(made.attribution[0].author, "A. Person");
    let read: Manifest = serde_json::from_slice(&fs::read(out.path().join("d").join(MANIFEST)).unwrap()).unwrap();
    assert_eq!(read, made);
    let other = make(&JigsawSettings { seed: 9, ..settings(images.path()) }, &out.path().join("e"));
    assert_ne!(other.sha256, made.sha256);
}

#[test]
fn the_limit_takes_the_first_files_by_name() {
    let images = folder(9);
    let out = TempDir::new().unwrap();
    make(&JigsawSettings { limit: Some(3), ..settings(images.path()) }, &out.path().join("d"));
    let sources: HashSet<String> = records(&out.path().join("d")).into_iter().map(|(_, r)| r.source).collect();
    assert_eq!(sources, HashSet::from(["p00.png", "p03.png", "p06.png"].map(String::from)));
}

#[test]
fn an_unfinished_or_spoilt_dataset_is_refused_with_what_is_wrong() {
    let images = folder(5);
    let out = TempDir::new().unwrap();
    let dir = out.path().join("d");
    make(&settings(images.path()), &dir);
    assert_eq!(Dataset::open(&dir.join("test"), "test").unwrap().len(), 8);
    let refused = |dir: &Path, split: &str| {
        let error = Dataset::open(dir, split).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        error.to_string()
    };
    assert!(refused(&dir, "dev").contains("no split `dev`; it has: test, train, validation"));
    assert!(refused(&dir.join("test"), "train").contains("is the split `test`"));
    assert!(refused(&out.path().join("nowhere"), "train").contains("no such directory"));

    let metadata = dir.join("test/metadata.jsonl");
    let text = fs::read_to_string(&metadata).unwrap();
    let line = text.lines().next().unwrap();
    for (spoilt, says) in [
        (text.lines().take(5).map(|l| format!("{l}\n")).collect::<String>(), "holds 5 records, but"),
        (text.replacen("\"answer\"", "\"anser\"", 1), "`answer` is missing"),
        (format!("{text}{line}\n"), "metadata.jsonl:9: field `id`: `test-000000` is already the id of line 1"),
        (text.replace("000003.png", "000099.png"), "metadata.jsonl:4: field `images`: there is no file"),
        (text.replacen("images/000000.png", "../x.png", 2), "not a path inside the dataset"),
        (text.replacen("<image>", "", 1), "names 1, but the prompt has 0"),
        (text.replacen("\"role\":\"user\"", "\"role\":\"usr\"", 1), "`messages[0].role`: `usr` is not one of"),
        (text.replacen(&line[line.len() / 2..], "", 1), "metadata.jsonl:1:"),
        (String::new(), "holds no records"),
    ] {
        fs::write(&metadata, spoilt).unwrap();
        let message = refused(&dir, "test");
        assert!(message.contains(says), "{message} should say: {says}");
    }
    for (spoilt, says) in [
        (text.replacen("\"jigsaw\"", "\"sudoku\"", 1), "metadata.jsonl:1: field `task`: no scorer is named `sudoku`"),
        (text.replacen("\"3x3\"", "\"1x1\"", 1), "field `meta.grid`: grid 1x1"),
        (text.replacen("\"answer\":\"", "\"answer\":\"1 ", 1), "field `answer`"),
    ] {
        fs::write(&metadata, spoilt).unwrap();
        let message = tasks::load(&dir, "test").err().unwrap().to_string();
        assert!(message.contains(says), "{message} should say: {says}");
    }
    fs::write(&metadata, &text).unwrap();
    fs::remove_file(dir.join(MANIFEST)).unwrap();
    assert!(refused(&dir, "test").contains("unfinished"));
    assert!(refused(&dir.join("test"), "test").contains("unfinished"));
}

#[test]
fn output_is_replaced_only_when_asked_and_only_if_it_is_a_dataset() {
    let images = folder(5);
    let out = TempDir::new().unwrap();
    let dir = out.path().join("d");
    let small = JigsawSettings { count: 6, ..settings(images.path()) };
    make(&settings(images.path()), &dir);
    assert!(refusal(&small, &dir, false).contains("already holds a dataset that differs (count: "));
    // The same again finds it, and writes nothing; not if it was changed.
    let before = files(&dir);
    assert!(generate::generate(&settings(images.path()), &dir, false, &|| ()).unwrap().found);
    assert_eq!(files(&dir), before);
    let image = dir.join(before.keys().find(|name| name.ends_with(".png")).unwrap());
    let bytes = fs::read(&image).unwrap();
    fs::write(&image, &bytes[1..]).unwrap();
    assert!(refusal(&settings(images.path()), &dir, false).contains("other content"));
    fs::write(&image, bytes).unwrap();
    generate::generate(&small, &dir, true, &|| ()).unwrap();
    assert_eq!(files(&dir).len(), 6 + 3 + 1, "nothing of the earlier dataset is left");

    fs::write(dir.join("thesis.txt"), "precious").unwrap();
    assert!(refusal(&small, &dir, true).contains("thesis.txt"));
    assert!(dir.join(MANIFEST).exists() && dir.join("thesis.txt").exists());
    let foreign = out.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("thesis.txt"), "precious").unwrap();
    assert!(refusal(&small, &foreign, true).contains("not empty"));
    assert!(foreign.join("thesis.txt").exists());

    // As an interrupted run leaves it.
    let half = out.path().join("half");
    fs::create_dir_all(half.join("train/images")).unwrap();
    fs::write(half.join(".jigsaw-unfinished"), "").unwrap();
    let at_work = jigsaw::io::output_dir::lock(&half, "writing").unwrap();
    assert!(refusal(&small, &half, true).contains("another process is writing"));
    drop(at_work);
    generate::generate(&small, &half, false, &|| ()).unwrap();
    assert_eq!(files(&half), files(&dir).into_iter().filter(|(name, _)| name != "thesis.txt").collect());
}

#[test]
fn bad_usage_is_refused_with_what_to_do() {
    let images = folder(2);
    let out = TempDir::new().unwrap();
    let dir = out.path().join("d");
    let base = settings(images.path());
    for (settings, says) in [
        (JigsawSettings { count: 0, ..base.clone() }, "at least one puzzle"),
        (JigsawSettings { tile: 30, ..base.clone() }, "multiple of 28"),
        (JigsawSettings { tile: 0, tile_any: true, ..base.clone() }, "multiple of 28"),
        (JigsawSettings { tile: 2800, ..base.clone() }, "at most 4096"),
        (JigsawSettings { tile: u32::MAX, tile_any: true, ..base.clone() }, "at most 4096"),
        (JigsawSettings { limit: Some(0), ..base.clone() }, "limit 0"),
        (JigsawSettings { images: "/no/such/folder".into(), ..base.clone() }, "--images"),
        (JigsawSettings { images: out.path().into(), ..base.clone() }, "inside the images folder"),
        (base.clone(), "too few for 3 splits"),
    ] {
        let message = refusal(&settings, &dir, false);
        assert!(message.contains(says), "{message} should say: {says}");
        assert!(!dir.exists(), "nothing is written before the refusal: {says}");
    }
    let empty = TempDir::new().unwrap();
    assert!(
        refusal(&JigsawSettings { images: empty.path().into(), ..base.clone() }, &dir, false)
            .contains("no JPEG, PNG or WebP")
    );
    make(&JigsawSettings { split: "1,0,0".parse().unwrap(), ..base }, &dir);
    assert!(!dir.join("test").exists());
}

#[test]
fn the_contact_sheet_is_drawn_for_both_questions() {
    let images = folder(6);
    for question in [QuestionKind::Order, QuestionKind::Pair] {
        let out = TempDir::new().unwrap();
        let dir = out.path().join("d");
        let made = make(&JigsawSettings { question, count: 6, ..settings(images.path()) }, &dir);
        let sheet = image::open(generate::write_preview(&dir, &made, 4).unwrap()).unwrap().into_rgb8();
        let first = Dataset::open(&dir, "train").unwrap();
        let record = first.record(0).unwrap();
        let shuffled = first.images(0).unwrap().remove(0);
        let order = puzzle::permutation_answer(record.meta["order"].as_str().unwrap(), 9).unwrap();
        let original = puzzle::restore(&shuffled, "3x3".parse().unwrap(), &order);
        // Twice enlarged, with nothing written over it: every tile of both pictures, and of a puzzle asked as a whole the restored picture whole.
        let enlarged = |image: &RgbImage| imageops::resize(image, 168, 168, imageops::FilterType::Nearest);
        let whole = enlarged(&original);
        assert_eq!(shows(&sheet, &whole), question == QuestionKind::Order);
        for picture in [enlarged(&shuffled), whole] {
            for cell in 0..9 {
                let tile = imageops::crop_imm(&picture, cell % 3 * 56, cell / 3 * 56, 56, 56).to_image();
                assert!(shows(&sheet, &tile), "{question:?}: tile {cell}");
            }
        }
    }
}

/// Whether `part` is in `sheet`, pixel by pixel.
fn shows(sheet: &RgbImage, part: &RgbImage) -> bool {
    let (width, height) = (sheet.width() - part.width(), sheet.height() - part.height());
    let here = |left: u32, top: u32| part.enumerate_pixels().all(|(x, y, p)| sheet.get_pixel(left + x, top + y) == p);
    (0..=height).any(|top| (0..=width).any(|left| here(left, top)))
}

#[test]
fn synthetic_scenes_need_no_folder_and_every_puzzle_has_its_own() {
    let base = JigsawSettings { images: "scenes".into(), count: 30, ..settings(Path::new("")) };
    let out = TempDir::new().unwrap();
    for cues in [generate::Cues::With, generate::Cues::Without] {
        let (a, b) = (out.path().join(format!("a{cues:?}")), out.path().join(format!("b{cues:?}")));
        let made = make(&JigsawSettings { cues, ..base.clone() }, &a);
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let again = one.install(|| make(&JigsawSettings { cues, ..base.clone() }, &b));
        assert_eq!(made.sha256, again.sha256);
        assert_eq!(made.splits.values().map(|s| s.sources).sum::<usize>(), 30);
        assert_eq!(base.warnings_of(&made), Vec::<String>::new(), "scenes are not photos");
        let sources: HashSet<String> = records(&a).into_iter().map(|(_, r)| r.source).collect();
        assert_eq!(sources.len(), 30);
    }
    let with = records(&out.path().join("aWith"));
    let without = records(&out.path().join("aWithout"));
    assert_ne!(with[0].1.meta["order"], without[0].1.meta["order"]);
    let limited = JigsawSettings { limit: Some(3), ..base };
    assert!(refusal(&limited, &out.path().join("c"), false).contains("limit"));
}

#[test]
fn a_share_of_scenes_lies_evenly_among_the_photos_of_every_split() {
    let images = folder(12);
    let out = TempDir::new().unwrap();
    let mixed = JigsawSettings { scenes: 0.25, count: 80, ..settings(images.path()) };
    let (a, b) = (out.path().join("a"), out.path().join("b"));
    let made = make(&mixed, &a);
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert_eq!(one.install(|| make(&mixed, &b)).sha256, made.sha256);
    let all = records(&a);
    for split in ["train", "validation", "test"] {
        let own: Vec<&Record> = all.iter().filter(|(s, _)| *s == split).map(|(_, r)| r).collect();
        let scene = |r: &&&Record| r.meta["category"] == "scene";
        assert_eq!(own.iter().filter(scene).count(), own.len() / 4, "{split}");
        assert_eq!(own.chunks(4).filter(|four| four.iter().filter(scene).count() == 1).count(), own.len() / 4);
        let named = |r: &&Record| (r.meta["category"] == "scene") == r.source.starts_with("scene-");
        assert!(own.iter().all(named));
    }
    // No source lies on two sides, and the photos give the same puzzles as without scenes beside them.
    let mut side: HashMap<&str, &str> = HashMap::new();
    for (split, record) in &all {
        assert_eq!(side.entry(&record.source).or_insert(*split), split, "{}", record.source);
    }
    let alone = out.path().join("c");
    make(&JigsawSettings { scenes: 0.0, count: 60, ..mixed.clone() }, &alone);
    let orders = |records: Vec<(&str, Record)>| -> HashSet<String> {
        let photos = records.into_iter().filter(|(_, r)| !r.source.starts_with("scene-"));
        photos.map(|(_, r)| format!("{} {} {}", r.source, r.meta["index"], r.answer)).collect()
    };
    assert_eq!(orders(all.clone()), orders(records(&alone)));
    assert!(records(&alone).iter().all(|(_, r)| r.meta.get("category").is_none()));

    let refused = |settings: JigsawSettings| refusal(&settings, &out.path().join("d"), false);
    assert!(refused(JigsawSettings { scenes: 1.0, ..mixed.clone() }).contains("--images scenes"));
    assert!(refused(JigsawSettings { scenes: -0.1, ..mixed.clone() }).contains("scenes -0.1"));
    assert!(refused(JigsawSettings { images: "scenes".into(), ..mixed }).contains("name a folder"));
}

#[test]
fn a_scene_is_on_the_same_side_in_every_dataset_of_its_seed() {
    let images = folder(6);
    let out = TempDir::new().unwrap();
    let mut sides: HashMap<String, String> = HashMap::new();
    for (name, settings) in [
        ("many", JigsawSettings { images: "scenes".into(), count: 90, ..settings(Path::new("")) }),
        (
            "few",
            JigsawSettings {
                images: "scenes".into(),
                count: 20,
                grid: "2x2".parse().unwrap(),
                ..settings(Path::new(""))
            },
        ),
        ("mixed", JigsawSettings { scenes: 0.5, count: 50, ..settings(images.path()) }),
    ] {
        let dir = out.path().join(name);
        make(&settings, &dir);
        for (split, record) in records(&dir).into_iter().filter(|(_, r)| r.source.starts_with("scene-")) {
            let side = sides.entry(record.source.clone()).or_insert(split.to_string());
            assert_eq!(side, split, "{name}: {}", record.source);
        }
    }
    assert!(sides.len() >= 90);
}

#[test]
fn a_split_without_one_of_the_kinds_is_warned_of() {
    let mixed = |scenes, count| JigsawSettings { scenes, count, ..settings(Path::new("photos")) }.warnings();
    assert_eq!(mixed(0.5, 40), Vec::<String>::new());
    assert_eq!(mixed(0.0, 3), Vec::<String>::new());
    let few = mixed(0.5, 3);
    assert!(few.len() == 3 && few[2].contains("no scene among the 1 puzzles of test"), "{few:?}");
    let most = mixed(0.999, 40);
    assert!(most.is_empty() || most.iter().all(|line| line.contains("no photo")), "{most:?}");
}

#[test]
fn augmentation_changes_training_puzzles_and_nothing_else() {
    let (photos, out) = (folder(12), TempDir::new().unwrap());
    let plain = settings(photos.path());
    make(&plain, &out.path().join("plain"));
    make(&JigsawSettings { augment: true, ..plain.clone() }, &out.path().join("augmented"));
    let all = |name: &str| (records(&out.path().join(name)), files(&out.path().join(name)));
    let ((plain_records, plain_files), (records, files)) = (all("plain"), all("augmented"));
    let mut changed = 0;
    for ((split, before), (_, after)) in plain_records.iter().zip(&records) {
        let image = |files: &BTreeMap<String, Vec<u8>>| files[&format!("{split}/{}", before.file_name)].clone();
        assert_eq!((&before.answer, &before.source), (&after.answer, &after.source), "the puzzle itself is the same");
        match *split {
            "train" => {
                assert!(after.meta["augmentation"]["contrast"].as_f64().unwrap() > 0.0, "it is recorded");
                changed += usize::from(image(&plain_files) != image(&files));
            }
            _ => assert!(!after.meta.contains_key("augmentation") && image(&plain_files) == image(&files), "{split}"),
        }
    }
    assert!(changed > 20, "{changed} of 24 training pictures differ");
    let synthetic = JigsawSettings { images: "scenes".into(), augment: true, ..plain };
    assert!(refusal(&synthetic, &out.path().join("scenes"), false).contains("augment"));
}
