//! Inputs that are no regular files: pipes and devices are refused by name instead of waited for; links are followed.
#![cfg(target_os = "linux")]

use crate::command::{done, refused};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

fn pipe(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

/// Puts a pipe and a link to a device in the place of `path`, and runs `line` with each.
fn spoilt(dir: &Path, path: &str, line: &str) {
    let path = dir.join(path);
    let kept = path.with_extension("kept");
    fs::rename(&path, &kept).unwrap();
    for kind in ["pipe", "device"] {
        match kind {
            "pipe" => pipe(&path),
            _ => symlink("/dev/zero", &path).unwrap(),
        }
        let said = refused(dir, line);
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(said.contains(name), "{line}: {kind}: {said}");
        fs::remove_file(&path).unwrap();
    }
    fs::rename(&kept, &path).unwrap();
}

#[test]
fn pipes_and_devices_are_refused_by_name() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    done(dir, "model init --preset tiny --out model");
    done(dir, "gen --images scenes --grid 1x2 --count 6 --split 1,1,1 --out data");
    done(dir, "gen --suite pope --count 4 --split 0.5,0,0.5 --out prior");
    pipe(&dir.join("pipe"));
    pipe(&dir.join("pipe.jsonl"));
    pipe(&dir.join("pipe.tsv"));
    for (line, said) in [
        ("train --method sft --model model --data data --config pipe --out out", "cannot read pipe: it is a pipe"),
        ("train --method sft --model model --data data --config /dev/zero --out out", "/dev/zero: it is a device"),
        ("train --method sft --model model --data pipe.jsonl --out out", "pipe.jsonl"),
        ("score --model model --data /dev/zero --out out", "/dev/zero"),
        ("score --model model --data data --out pipe", "cannot write pipe: it is a pipe"),
        ("eval --model model --bench pope=pipe.tsv --out out", "cannot read pipe.tsv: it is a pipe"),
        ("eval --model model --bench pope=/dev/zero --out out", "cannot read /dev/zero: it is a device"),
        ("eval --model model --data pipe.jsonl --out out", "pipe.jsonl"),
        ("study --config pipe --out out", "cannot read pipe: it is a pipe"),
        ("study --config /dev/zero --out out", "cannot read /dev/zero: it is a device"),
        ("gen --images pipe --out out", "no images folder at pipe"),
        ("rollout --teacher scripted --data pipe.jsonl --out out", "pipe.jsonl"),
        ("report pipe", "pipe"),
    ] {
        let found = refused(dir, line);
        assert!(found.contains(said), "{line}: {found}");
    }
    let eval = "eval --model model --data data --max-new-tokens 2 --out out";
    for file in
        ["tokenizer.json", "config.json", "model.safetensors", "generation_config.json", "tokenizer_config.json"]
    {
        spoilt(dir, &format!("model/{file}"), eval);
    }
    let image = fs::read_dir(dir.join("data/test/images")).unwrap().next().unwrap().unwrap().file_name();
    for file in ["manifest.json", "test/metadata.jsonl", &format!("test/images/{}", image.to_str().unwrap())] {
        spoilt(dir, &format!("data/{file}"), eval);
    }
    spoilt(dir, "prior/bench/pope-direct.tsv", "eval --model model --bench pope=prior/bench/pope-direct.tsv --out out");
    assert!(!dir.join("out/result.json").exists());
}

#[test]
fn links_inside_a_dataset_are_followed_and_names_that_lead_out_of_it_are_refused() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    done(dir, "gen --images scenes --grid 1x2 --count 6 --split 0.5,0,0.5 --style think --out data");
    let (place, store) = (dir.join("data/train/images"), dir.join("store"));
    let image = fs::read_dir(&place).unwrap().next().unwrap().unwrap().file_name().into_string().unwrap();
    done(dir, "rollout --teacher scripted --data data --out before");
    fs::create_dir(&store).unwrap();
    fs::rename(place.join(&image), store.join("picture")).unwrap();
    symlink("../../../store/picture", place.join(&image)).unwrap();
    // What is made from it holds the pictures, wherever it lies.
    done(dir, "rollout --teacher scripted --data data --out deep/after");
    for split in ["train", "test"] {
        let names = fs::read_dir(dir.join("before").join(split).join("images")).unwrap();
        for name in names.map(|entry| entry.unwrap().file_name()) {
            let of = |out: &str| fs::read(dir.join(out).join(split).join("images").join(&name)).unwrap();
            assert_eq!(of("before"), of("deep/after"), "{name:?}");
        }
    }
    let metadata = dir.join("data/train/metadata.jsonl");
    let text = fs::read_to_string(&metadata).unwrap();
    fs::write(&metadata, text.replace(&format!("images/{image}"), "../../store/picture")).unwrap();
    let said = refused(dir, "rollout --teacher scripted --data data --out other");
    assert!(said.contains("`../../store/picture` is not a path inside the dataset"), "{said}");
}
