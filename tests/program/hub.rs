//! Models by their name on the Hub, as a user types them: downloaded once, used from the cache, and refused with what to do.

use crate::hub_server;
use crate::hub_server::{COMMIT, Hub, TOKEN, base_tiny, plain, said, snapshot};
use jigsaw::model::{CheckpointSelector, missing_files};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

const INSPECT: &str = "model inspect acme/tiny";

fn weights_requested(requests: &[hub_server::Request]) -> usize {
    requests.iter().filter(|r| r.path.contains("/resolve/") && r.path.ends_with(".safetensors")).count()
}

fn refused(output: &Output, code: i32, parts: &[&str]) {
    let text = said(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(parts.iter().all(|part| text.contains(part)), "{parts:?} in: {text}");
    assert!(!text.contains("panicked"), "{text}");
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entry =
        |e: walkdir::Result<walkdir::DirEntry>| e.ok().filter(|e| e.path().is_file()).map(|e| e.path().to_path_buf());
    walkdir::WalkDir::new(dir).into_iter().filter_map(entry).collect()
}

#[test]
fn a_model_is_downloaded_once_and_the_token_goes_to_the_hub_alone() {
    let (hub, home) = (Hub::new(), tempfile::tempdir().unwrap());
    let home = home.path();
    hub.change(|b| b.gated = true);
    let first = hub.jigsaw(home, INSPECT).env("HF_TOKEN", TOKEN).output().unwrap();
    let text = said(&first);
    assert!(first.status.success() && text.contains("Qwen2.5-VL (qwen2_5_vl)"), "{text}");
    assert!(text.contains("downloading model.safetensors (3 MB)"), "{text}");
    let requests = hub.take();
    let mut asked: Vec<&str> =
        requests.iter().filter(|r| r.path.contains("/resolve/")).filter_map(|r| r.path.rsplit('/').next()).collect();
    asked.sort();
    let base = base_tiny();
    assert_eq!(asked, base.keys().collect::<Vec<_>>(), "each once, and nothing that no checkpoint needs");
    for request in &requests {
        let with_token = request.authorization.as_deref() == Some(format!("Bearer {TOKEN}").as_str());
        assert_eq!(with_token, !request.path.starts_with("/store/"), "{request:?}");
    }
    assert!(requests.iter().any(|r| r.path.starts_with("/store/")));
    assert!(!text.contains(TOKEN));
    for file in files(&home.join("hf")) {
        assert!(!String::from_utf8_lossy(&std::fs::read(&file).unwrap()).contains(TOKEN), "{}", file.display());
    }
    for (name, bytes) in &base {
        assert!(std::fs::read(snapshot(home).join(name)).unwrap() == *bytes, "{name}");
    }
    let model = home.join("hf/hub/models--acme--tiny");
    assert_eq!(std::fs::read_to_string(model.join("refs/main")).unwrap(), COMMIT);
    assert_eq!(files(&model.join("blobs")).len(), base.len(), "no half of anything is left");

    // Once more: one question, whether the name still stands for the same.
    assert!(hub.run(home, INSPECT).status.success());
    let requests = hub.take();
    assert!(requests.len() == 1 && requests[0].path.starts_with("/api/models/acme/tiny/revision/main"), "{requests:?}");
    // A commit cannot come to stand for anything else, and without the network nothing is asked.
    assert!(hub.run(home, &format!("{INSPECT}@{COMMIT}")).status.success());
    let offline = hub.jigsaw(home, INSPECT).env("HF_HUB_OFFLINE", "1").output().unwrap();
    assert!(offline.status.success(), "{}", said(&offline));
    assert!(hub.take().is_empty());
    let gone = plain(home, INSPECT).env("HF_ENDPOINT", "http://127.0.0.1:9").output().unwrap();
    assert!(gone.status.success() && said(&gone).contains("is taken as it is in the cache"), "{}", said(&gone));
    // HF_HUB_CACHE goes before HF_HOME.
    let cache = home.join("hf/hub");
    let mut elsewhere = plain(home, INSPECT);
    elsewhere.env("HF_HUB_OFFLINE", "1").env("HF_HUB_CACHE", &cache).env("HF_HOME", "/nowhere");
    assert!(elsewhere.output().unwrap().status.success());

    // A file of the cache that was cut off is seen and comes again.
    let weights = snapshot(home).join("model.safetensors");
    let blob = weights.canonicalize().unwrap();
    std::fs::write(&blob, &base["model.safetensors"][..1000]).unwrap();
    let again = hub.jigsaw(home, INSPECT).env("HF_TOKEN", TOKEN).output().unwrap();
    assert!(again.status.success(), "{}", said(&again));
    assert_eq!(weights_requested(&hub.take()), 1);
    assert!(std::fs::read(&weights).unwrap() == base["model.safetensors"]);
}

#[test]
fn unavailable_models_are_refused_with_what_to_do() {
    let (hub, home) = (Hub::new(), tempfile::tempdir().unwrap());
    let home = home.path();
    let offline = hub.jigsaw(home, INSPECT).env("HF_HUB_OFFLINE", "1").output().unwrap();
    refused(&offline, 2, &["no model at acme/tiny", "HF_HUB_OFFLINE is set", "hf/hub"]);
    // Such a process ends when its standard input does.
    let mut task = hub.jigsaw(home, INSPECT);
    task.env("JIGSAW_CHILD_OF_STUDY", "1").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut task = task.spawn().unwrap();
    let held = task.stdin.take();
    let of_a_study = task.wait_with_output().unwrap();
    drop(held);
    let download = "by the tasks of a study; download it with `jigsaw model inspect acme/tiny`";
    refused(&of_a_study, 2, &["no model at acme/tiny", download]);
    assert!(!said(&of_a_study).contains("HF_HUB_OFFLINE"), "{}", said(&of_a_study));
    for line in
        ["model inspect acme", "model inspect ./acme/tiny", "model inspect runs/acme/tiny", "model inspect -acme/tiny"]
    {
        let line = line.replace("inspect -", "inspect -- -");
        refused(&hub.run(home, &line), 2, &["there is no such directory; a name on the Hub has the form owner/name"]);
    }
    assert!(hub.take().is_empty(), "nothing of this concerns the Hub");
    refused(&hub.run(home, "model inspect acme/other"), 2, &["has no model acme/other (404)", "no such directory"]);
    refused(&hub.run(home, "model inspect acme/tiny@v9"), 2, &["has no revision v9 of acme/tiny"]);
    hub.change(|b| b.refuse = Some((401, "RepoNotFound")));
    refused(&hub.run(home, INSPECT), 2, &["gives no acme/tiny without a token (401)", "set HF_TOKEN"]);
    let known = hub.jigsaw(home, INSPECT).env("HF_TOKEN", TOKEN).output().unwrap();
    refused(&known, 2, &["does not give acme/tiny to the account of HF_TOKEN"]);
    assert!(!said(&known).contains(TOKEN));
    hub.change(|b| b.refuse = Some((403, "GatedRepo")));
    refused(&hub.run(home, INSPECT), 2, &["only to those who were granted access", "HF_TOKEN"]);
    hub.change(|b| b.refuse = Some((503, "")));
    refused(&hub.run(home, INSPECT), 1, &["answers 503"]);
    hub.change(|b| b.refuse = None);
    let gone = plain(home, INSPECT).env("HF_ENDPOINT", "http://127.0.0.1:9").output().unwrap();
    refused(&gone, 1, &["no model at acme/tiny", "http://127.0.0.1:9 cannot be reached"]);
    let nonsense = plain(home, INSPECT).env("HF_ENDPOINT", "huggingface.co").output().unwrap();
    refused(&nonsense, 2, &["HF_ENDPOINT is huggingface.co; give an address"]);
    for token in ["a\u{1}b", "hf_\u{e9}", "hf a"] {
        let odd = hub.jigsaw(home, INSPECT).env("HF_TOKEN", token).output().unwrap();
        refused(&odd, 2, &["HF_TOKEN holds characters that no token has"]);
    }
    hub.change(|b| b.gated = true);
    refused(&hub.run(home, INSPECT), 2, &["only to those who were granted access", "HF_TOKEN"]);
    assert!(!snapshot(home).join("model.safetensors").exists());
}

#[test]
fn an_interrupted_download_resumes_and_never_looks_complete() {
    let (hub, home) = (Hub::new(), tempfile::tempdir().unwrap());
    let home = home.path();
    let whole = base_tiny().remove("model.safetensors").unwrap();
    hub.change(|b| b.breaks_at = Some(1_500_000));
    refused(
        &hub.run(home, INSPECT),
        1,
        &["model.safetensors of acme/tiny could not be downloaded", "continues from there"],
    );
    let looks_whole = || {
        snapshot(home).join("model.safetensors").exists() || home.join("hf/hub/models--acme--tiny/refs/main").exists()
    };
    assert!(!looks_whole());
    let part = files(home).into_iter().find(|f| f.extension().is_some_and(|e| e == "part")).unwrap();
    assert!(std::fs::read(&part).unwrap() == whole[..1_500_000]);
    let offline = hub.jigsaw(home, INSPECT).env("HF_HUB_OFFLINE", "1").output().unwrap();
    refused(&offline, 2, &["no model at acme/tiny"]);
    hub.take();
    hub.change(|b| b.breaks_at = None);
    let second = hub.run(home, INSPECT);
    assert!(second.status.success(), "{}", said(&second));
    let requests = hub.take();
    let asked: Vec<_> = requests.iter().filter(|r| r.path.starts_with("/store/")).map(|r| r.range.clone()).collect();
    assert_eq!(asked, [Some("bytes=1500000-".to_string())], "only the rest, and nothing else once more: {requests:?}");
    assert_eq!(requests.len(), 3);
    assert!(!part.exists() && std::fs::read(snapshot(home).join("model.safetensors")).unwrap() == whole);

    // A server that gives no parts; what was there already is not kept in front of the whole.
    let other = tempfile::tempdir().unwrap();
    hub.change(|b| b.breaks_at = Some(1_500_000));
    refused(&hub.run(other.path(), INSPECT), 1, &["could not be downloaded"]);
    hub.change(|b| (b.breaks_at, b.no_parts) = (None, true));
    let second = hub.run(other.path(), INSPECT);
    assert!(second.status.success(), "{}", said(&second));
    assert!(std::fs::read(snapshot(other.path()).join("model.safetensors")).unwrap() == whole);

    // A content that is not the one promised.
    let third = tempfile::tempdir().unwrap();
    hub.change(|b| (b.no_parts, b.corrupt) = (false, true));
    refused(&hub.run(third.path(), INSPECT), 1, &["came with another content", "SHA-256"]);
    assert!(!files(third.path()).iter().any(|f| f.extension().is_some_and(|e| e == "part" || e == "safetensors")));
    hub.change(|b| b.corrupt = false);
    assert!(hub.run(third.path(), INSPECT).status.success());
}

#[test]
fn a_small_file_with_a_wrong_checksum_is_not_kept() {
    let (hub, home) = (Hub::new(), tempfile::tempdir().unwrap());
    hub.change(|b| b.damaged = Some("tokenizer.json"));
    refused(&hub.run(home.path(), INSPECT), 1, &["tokenizer.json of acme/tiny came with another content"]);
    assert!(!snapshot(home.path()).join("tokenizer.json").exists());
    hub.change(|b| b.damaged = None);
    assert!(hub.run(home.path(), INSPECT).status.success());
}

#[test]
fn a_download_ends_where_more_comes_than_was_announced() {
    let (hub, home) = (Hub::new(), tempfile::tempdir().unwrap());
    hub.change(|b| b.longer = Some(("tokenizer.json", 40 << 20)));
    refused(&hub.run(home.path(), INSPECT), 1, &["tokenizer.json of acme/tiny is longer than the", "announces"]);
    let left: u64 = files(home.path()).iter().map(|file| std::fs::metadata(file).unwrap().len()).sum();
    assert!(left < 10 << 20, "{left} bytes");
    hub.change(|b| b.longer = None);
    assert!(hub.run(home.path(), INSPECT).status.success());
}

#[test]
fn busy_servers_and_expired_addresses_are_retried() {
    let (hub, home) = (Hub::new(), tempfile::tempdir().unwrap());
    hub.change(|b| (b.busy, b.expired) = (2, 1));
    let output = hub.run(home.path(), INSPECT);
    assert!(output.status.success(), "{}", said(&output));
    let requests = hub.take();
    assert_eq!(requests.iter().filter(|r| r.path.starts_with("/api/")).count(), 3, "{requests:?}");
    assert_eq!(weights_requested(&requests), 2, "a new address was asked for: {requests:?}");
    // With the model in the cache nobody waits.
    hub.change(|b| b.busy = 100);
    let output = hub.run(home.path(), INSPECT);
    assert!(output.status.success() && said(&output).contains("is taken as it is in the cache"), "{}", said(&output));
    assert_eq!(hub.take().len(), 1);

    let other = tempfile::tempdir().unwrap();
    hub.change(|b| (b.busy, b.expired) = (0, 100));
    let output = hub.run(other.path(), INSPECT);
    refused(&output, 1, &["the storage ", " refuses it (403)", "expired", "the same command continues"]);
    assert!(!said(&output).contains("granted access"), "{}", said(&output));
}

#[test]
fn the_token_follows_a_renamed_model_but_not_to_another_port() {
    let (hub, home) = (Hub::new(), tempfile::tempdir().unwrap());
    let store = Hub::new();
    hub.change(|b| (b.gated, b.store_port) = (true, Some(store.port)));
    let output = hub.jigsaw(home.path(), "model inspect acme/old").env("HF_TOKEN", TOKEN).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let requests = store.take();
    assert!(!requests.is_empty() && requests.iter().all(|r| r.authorization.is_none()), "{requests:?}");
}

/// `data/base-tiny` in two shards.
fn sharded() -> BTreeMap<String, Vec<u8>> {
    let mut files = base_tiny();
    let bytes = files.remove("model.safetensors").unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut names: Vec<String> = tensors.names().into_iter().map(String::from).collect();
    names.sort();
    let mut map = serde_json::Map::new();
    for (i, half) in [&names[..names.len() / 2], &names[names.len() / 2..]].into_iter().enumerate() {
        let shard = format!("model-0000{}-of-00002.safetensors", i + 1);
        let views: Vec<_> = half.iter().map(|name| (name.clone(), tensors.tensor(name).unwrap())).collect();
        files.insert(shard.clone(), safetensors::serialize(views, None).unwrap());
        map.extend(half.iter().map(|name| (name.clone(), Value::from(shard.clone()))));
    }
    let index = json!({ "metadata": {}, "weight_map": map });
    files.insert("model.safetensors.index.json".into(), index.to_string().into_bytes());
    files
}

#[test]
fn only_the_shards_in_the_index_are_downloaded() {
    let (hub, home) = (Hub::new(), tempfile::tempdir().unwrap());
    let mut all = sharded();
    all.insert("model-00003-of-00003.safetensors".into(), b"left over from another upload".to_vec());
    all.insert("consolidated.safetensors".into(), b"in another layout".to_vec());
    hub.change(|b| b.files = all.clone());
    let output = hub.run(home.path(), INSPECT);
    assert!(output.status.success() && said(&output).contains("2 weight files"), "{}", said(&output));
    assert_eq!(weights_requested(&hub.take()), 2);
    // Without one of them the cache is not enough.
    std::fs::remove_file(snapshot(home.path()).join("model-00002-of-00002.safetensors")).unwrap();
    let offline = hub.jigsaw(home.path(), INSPECT).env("HF_HUB_OFFLINE", "1").output().unwrap();
    refused(&offline, 2, &["only a part of acme/tiny", "lacks model-00002-of-00002.safetensors"]);
    // What is still among the blobs need not come again.
    assert!(hub.run(home.path(), INSPECT).status.success());
    assert_eq!(weights_requested(&hub.take()), 0);
    all.remove("model-00002-of-00002.safetensors");
    hub.change(|b| b.files = all);
    let other = tempfile::tempdir().unwrap();
    let output = hub.run(other.path(), INSPECT);
    refused(&output, 2, &["names model-00002-of-00002.safetensors, which the repository does not have"]);
    assert_eq!(weights_requested(&hub.take()), 0);
}

#[test]
fn an_unusable_model_is_refused_before_its_weights_are_downloaded() {
    let (hub, home) = (Hub::new(), tempfile::tempdir().unwrap());
    let mut other = base_tiny();
    let mut config: Value = serde_json::from_slice(&other["config.json"]).unwrap();
    config["model_type"] = "qwen2_5_omni".into();
    other.insert("config.json".into(), config.to_string().into_bytes());
    hub.change(|b| b.files = other);
    refused(&hub.run(home.path(), INSPECT), 2, &["Qwen2.5-Omni", "only Qwen2.5-VL (`qwen2_5_vl`)"]);
    let mut quantised = base_tiny();
    config["model_type"] = "qwen2_5_vl".into();
    config["quantization_config"] = json!({ "quant_method": "gptq", "bits": 4 });
    quantised.insert("config.json".into(), config.to_string().into_bytes());
    hub.change(|b| b.files = quantised);
    refused(&hub.run(home.path(), INSPECT), 2, &["config.json: quantization_config.quant_method: gptq", "unquantised"]);
    let mut pickled = base_tiny();
    pickled.remove("model.safetensors");
    pickled.insert("pytorch_model.bin".into(), vec![0; 100]);
    hub.change(|b| b.files = pickled);
    let output = hub.run(tempfile::tempdir().unwrap().path(), INSPECT);
    refused(&output, 2, &["neither model.safetensors nor model.safetensors.index.json is there", "pytorch_model.bin"]);
    assert_eq!(weights_requested(&hub.take()), 0);
}

#[test]
fn two_processes_download_a_model_once() {
    let (hub, home) = (Hub::new(), tempfile::tempdir().unwrap());
    let start = || {
        let mut command = hub.jigsaw(home.path(), INSPECT);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
    };
    let both = [start(), start()];
    for child in both {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    }
    assert_eq!(weights_requested(&hub.take()), 1);
}

#[test]
fn an_adapter_is_downloaded_without_its_base() {
    #[derive(Default)]
    struct Names(Vec<String>);
    impl jigsaw::hub::DownloadProgress for Names {
        fn note(&mut self, _: &str) {}
        fn file(&mut self, name: &str, done: u64, total: u64) {
            assert!(done <= total);
            self.0.push(name.to_string());
        }
    }
    let (hub, home) = (Hub::new(), tempfile::tempdir().unwrap());
    let files: BTreeMap<String, Vec<u8>> =
        [("adapter_config.json", "{}"), ("adapter_model.safetensors", "x"), ("README.md", "y")]
            .map(|(name, text)| (name.to_string(), text.as_bytes().to_vec()))
            .into();
    hub.change(|b| b.files = files);
    let config = jigsaw::hub::HubConfig {
        endpoint: hub.endpoint(),
        cache: home.path().join("hf/hub"),
        token: None,
        offline: None,
        certificates: None,
    };
    let name = Path::new("acme/tiny");
    assert_eq!(jigsaw::hub::cached(name, &config, &missing_files), None);
    let mut names = Names::default();
    let dir = jigsaw::hub::resolve(name, &config, &CheckpointSelector, &mut names).unwrap();
    assert_eq!((dir.clone(), jigsaw::hub::cached(name, &config, &missing_files)), (snapshot(home.path()), Some(dir)));
    names.0.dedup();
    assert_eq!(names.0, ["adapter_config.json", "adapter_model.safetensors"]);
}

#[test]
fn an_adapter_names_its_base_by_its_name_and_is_used_from_the_cache_itself() {
    let (hub, temporary) = (Hub::new(), tempfile::tempdir().unwrap());
    let home = temporary.path();
    let done = |command: &mut std::process::Command| {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        said(&output)
    };
    done(&mut hub.jigsaw(home, "gen --images scenes --grid 1x2 --count 6 --split 0.5,0,0.5 --out data"));
    let train = |model: &str, out: &str| {
        let sets = "--set lora.rank=2 --set train.steps=1 --set train.batch_size=1 --set eval.steps=0";
        done(&mut hub.jigsaw(home, &format!("train --method sft --model {model} --data data {sets} --out {out}")));
        let about = std::fs::read(home.join(out).join("model/adapter_config.json")).unwrap();
        let about: Value = serde_json::from_slice(&about).unwrap();
        (about["base_model_name_or_path"].as_str().unwrap().to_string(), about["revision"].clone())
    };
    assert_eq!(train("acme/tiny", "runs/named"), ("acme/tiny".to_string(), Value::from(COMMIT)));
    // Its base is found in the cache, as that of an adapter of peft.
    hub.take();
    done(&mut hub.jigsaw(home, "score --model runs/named/model --data data --out scores.jsonl"));
    let goes_on = "train --method sft --model runs/named/model --data data --set train.steps=1 --set train.batch_size=1 --out runs/on";
    done(&mut hub.jigsaw(home, goes_on));
    assert!(hub.take().is_empty());

    // An adapter as it is written here, put on the Hub: it has a config.json beside it.
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/base-tiny").canonicalize().unwrap();
    assert_eq!(train(here.to_str().unwrap(), "runs/here"), (here.display().to_string(), Value::Null));
    let entries = std::fs::read_dir(home.join("runs/here/model")).unwrap().flatten();
    let adapter: BTreeMap<String, Vec<u8>> =
        entries.map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap())).collect();
    assert!(adapter.contains_key("config.json") && !adapter.contains_key("model.safetensors"));
    hub.change(|b| b.files = adapter);
    let other = tempfile::tempdir().unwrap();
    done(&mut hub.jigsaw(other.path(), "model merge-lora acme/tiny --dtype f32 --out merged"));
    assert!(other.path().join("merged/model.safetensors").is_file());
    hub.take();
    let offline = done(hub.jigsaw(other.path(), INSPECT).env("HF_HUB_OFFLINE", "1"));
    assert!(offline.contains("an adapter (LoRA)"), "{offline}");
    let line = "model merge-lora acme/tiny --dtype f32 --out again";
    done(hub.jigsaw(other.path(), line).env("HF_HUB_OFFLINE", "1"));
    assert!(hub.take().is_empty());
}

#[test]
fn every_command_takes_a_name() {
    let (hub, temporary) = (Hub::new(), tempfile::tempdir().unwrap());
    let home = temporary.path();
    let succeeds = |line: &str| {
        let output = hub.run(home, line);
        assert!(output.status.success(), "{line}: {}", said(&output));
    };
    succeeds("gen --images scenes --grid 1x2 --count 6 --split 0.5,0,0.5 --out data");
    // What is mistyped besides is told before anything comes.
    let typo = hub.run(home, "train --method sft --model acme/tiny --data dta --out runs/sft");
    refused(&typo, 2, &["no dataset at dta"]);
    refused(&hub.run(home, "eval --model acme/tiny --data data --limit 0 --out e"), 2, &["--limit 0"]);
    assert!(hub.take().is_empty());
    for line in [
        "train --method sft --model acme/tiny --data data --set train.steps=1 --set train.batch_size=1 --out runs/sft",
        "eval --model acme/tiny --data data --limit 1 --max-new-tokens 2 --out runs/eval",
        "eval --model runs/sft/model --baseline acme/tiny --data data --limit 1 --kl-prompts 1 --max-new-tokens 2 --out runs/compare",
        "score --model acme/tiny --data data --out scores.jsonl",
        "rollout --model acme/tiny --data data --limit 1 --num-generations 1 --keep all --max-new-tokens 64 --out runs/rollout",
        "dynamics --model acme/tiny --base acme/tiny --train a=data --prior b=data --pairs 1 --out runs/dynamics",
        "model convert acme/tiny --dtype f32 --out runs/f32",
        "model interpolate acme/tiny runs/f32 --alpha 0.5 --out runs/between",
    ] {
        succeeds(line);
    }
    assert_eq!(weights_requested(&hub.take()), 1);
    let run: Value = serde_json::from_slice(&std::fs::read(home.join("runs/sft/run.json")).unwrap()).unwrap();
    assert!(run["model"].as_str().unwrap().contains(COMMIT), "the run says which commit it began from: {run}");
    assert!(!home.join("runs/sft/model/model.safetensors").is_symlink());
}

const STUDY: &str = r#"
[study]
base = "acme/tiny"

[puzzles.bare]
images = "scenes"
grid = "1x2"
count = 8
split = "0.5,0,0.5"

[prior]
suite = "pope"
count = 16
split = "0.5,0,0.5"
benches = ["pope-direct"]

[regimes.sft]
method = "sft"
data = "bare"
train = { steps = 1, batch_size = 1 }

[eval]
limit = 1
kl_prompts = 0
max_new_tokens = 2
"#;

#[test]
fn a_study_is_planned_without_the_network_and_downloads_its_base_first() {
    let (hub, temporary) = (Hub::new(), tempfile::tempdir().unwrap());
    let home = temporary.path();
    std::fs::write(home.join("s.toml"), STUDY).unwrap();
    let list = hub.run(home, "study --config s.toml --list");
    assert!(list.status.success() && said(&list).contains("train.sft"), "{}", said(&list));
    let dry = hub.run(home, "study --config s.toml --dry-run");
    let text = said(&dry);
    assert!(
        dry.status.success() && text.contains("--model acme/tiny") && text.contains("not downloaded yet"),
        "{text}"
    );
    assert!(hub.take().is_empty());
    hub.change(|b| b.refuse = Some((404, "RepoNotFound")));
    refused(&hub.run(home, "study --config s.toml --out runs/s"), 2, &["has no model acme/tiny"]);
    assert!(!home.join("runs/s/logs").exists());
    hub.change(|b| b.refuse = None);
    hub.take();
    let study = hub.run(home, "study --config s.toml --out runs/s");
    assert!(study.status.success(), "{}", said(&study));
    let requests = hub.take();
    assert!(
        requests.iter().filter(|r| r.path.starts_with("/api/")).count() == 1,
        "asked once, for all tasks: {requests:?}"
    );
    // With the model in the cache, steps are measured, still without the network.
    let dry = hub.run(home, "study --config s.toml --dry-run");
    let text = said(&dry);
    assert!(
        dry.status.success() && !text.contains("not downloaded") && text.contains("memory of [regimes.sft]"),
        "{text}"
    );
    assert!(hub.take().is_empty());
}

#[cfg(target_os = "linux")]
#[test]
fn a_download_that_does_not_fit_is_not_begun() {
    let (hub, temporary) = (Hub::new(), tempfile::tempdir().unwrap());
    let Some(_disk) = hub_server::SmallDisk::mount(&temporary.path().join("hf"), "2m") else { return };
    let output = hub.run(temporary.path(), INSPECT);
    refused(&output, 1, &["no room to download acme/tiny: 3 MB are needed", "free in", "HF_HUB_CACHE"]);
    assert_eq!(weights_requested(&hub.take()), 0);
}
