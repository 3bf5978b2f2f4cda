//! The whole measurement of tiny models on a few samples: from files to files, stopped and gone on with.

use super::influence::InfluenceConfig;
use super::measurement::DynamicsObserver;
use super::on_policy::OnPolicySample;
use super::output_dir::{DYNAMICS_JSON, ON_POLICY, PAIRS, SAMPLES};
use super::pairing::Pair;
use super::result::DynamicsResult;
use super::run::{DynamicsRequest, run};
use super::samples::{DynamicsSample, ResponseSource};
use crate::Result;
use crate::comm::{Communicator, Single, threads};
use crate::eval::bench::BenchmarkSpec;
use crate::model::init::{Preset, write_checkpoint};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use candle_core::Device;
use std::fs;
use std::path::{Path, PathBuf};

struct Quiet(Vec<String>);

impl DynamicsObserver for Quiet {
    fn stage(&mut self, what: &str) {
        self.0.push(what.to_string());
    }

    fn samples(&mut self, done: usize, total: usize) {
        assert!(done <= total);
    }

    fn pairs(&mut self, _model: &str, done: usize, total: usize) {
        assert!(done <= total);
    }
}

/// Records of text alone; without a response where it is `None`.
fn dataset(dir: &Path, responses: &[Option<&str>]) {
    fs::create_dir_all(dir).unwrap();
    let record = |(i, response): (usize, &Option<&str>)| {
        let user = serde_json::json!({"role": "user", "content": format!("Question {i}?")});
        let assistant = response.map(|text| serde_json::json!({"role": "assistant", "content": text}));
        let messages: Vec<_> = std::iter::once(user).chain(assistant).collect();
        let record = serde_json::json!({"file_name": "", "id": format!("r{i}"), "task": "exact", "messages": messages,
            "images": [], "answer": "yes", "source": "", "seed": i});
        format!("{record}\n")
    };
    fs::write(dir.join("metadata.jsonl"), responses.iter().enumerate().map(record).collect::<String>()).unwrap();
    let manifest = r#"{"tool": "jigsaw", "version": "0", "sha256": "", "splits": {}}"#;
    fs::write(dir.join("manifest.json"), manifest).unwrap();
}

fn benchmark(path: &Path) {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let image = image::RgbImage::from_fn(28, 28, |x, y| image::Rgb([x as u8, y as u8, 9]));
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    let image = STANDARD.encode(bytes.into_inner());
    let rows: String = (0..2).map(|i| format!("{i}\t{image}\tIs there a {i}?\tyes\tyes-no\n")).collect();
    fs::write(path, format!("index\timage\tquestion\tanswer\tscorer\n{rows}")).unwrap();
}

fn request(dir: &Path, out: &str) -> DynamicsRequest {
    let spec = |text: String| BenchmarkSpec::parse(&text, "train").unwrap();
    let at = |name: &str| dir.join(name).display().to_string();
    DynamicsRequest {
        models: vec![dir.join("base"), dir.join("tuned")],
        base: dir.join("base"),
        train: vec![spec(format!("bare={}", at("bare"))), spec(format!("long={}", at("long")))],
        prior: vec![spec(format!("facts={}", at("facts"))), spec(format!("seen={}", at("seen.tsv")))],
        config: InfluenceConfig {
            pairs: 3,
            frozen: vec!["vision".into()],
            on_policy: Some("long".into()),
            ..InfluenceConfig::default()
        },
        max_new_tokens: Some(4),
        forgetting: Vec::new(),
        out: dir.join(out),
        fresh: false,
    }
}

fn prepare() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write_checkpoint(&dir.path().join("base"), Preset::Tiny, 0).unwrap();
    write_checkpoint(&dir.path().join("tuned"), Preset::Tiny, 1).unwrap();
    dataset(&dir.path().join("bare"), &[Some("yes"), Some("no"), Some("maybe")]);
    dataset(&dir.path().join("long"), &[Some("It is so, I think."), Some("No, it is not.")]);
    dataset(&dir.path().join("facts"), &[Some("yes"), Some("no")]);
    benchmark(&dir.path().join("seen.tsv"));
    dir
}

fn measure(request: &DynamicsRequest) -> Result<(DynamicsResult, Vec<String>)> {
    measure_as(request, &Single)
}

fn measure_as(request: &DynamicsRequest, comm: &dyn Communicator) -> Result<(DynamicsResult, Vec<String>)> {
    let mut told = Quiet(Vec::new());
    run(request, &Device::Cpu, comm, &mut told).map(|found| (found, told.0))
}

fn read<T: serde::de::DeserializeOwned>(path: PathBuf) -> Vec<T> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_measurement_goes_from_files_to_files_and_goes_on_where_it_was_stopped() {
    let dir = prepare();
    let whole = request(dir.path(), "whole");
    let (found, told) = measure(&whole).unwrap();
    assert_eq!(told.len(), 5, "base, and two checkpoints with their own responses: {told:?}");
    let samples: Vec<DynamicsSample> = read(whole.out.join(SAMPLES));
    let by_base = samples.iter().filter(|s| s.origin == ResponseSource::Base).count();
    assert_eq!((samples.len(), by_base), (9, 2), "benchmark files have no responses of their own");
    assert!(samples.iter().all(|s| s.nats > 0.0 && (s.origin == ResponseSource::Data || s.token_ids.len() <= 4)));
    let pairs: Vec<Pair> = read(whole.out.join(PAIRS));
    // Three pairs of each regime with each of two families, under two checkpoints.
    assert_eq!(pairs.len(), 2 * 2 * 3 * 2);
    assert!(pairs.iter().all(|p| p.influence.lbk > 0.0 && p.influence.cosine.abs() <= 1.0));
    let same = |p: &&Pair| (p.checkpoint, p.regime.as_str(), p.prior.as_str()) == (0, "long", "facts");
    let different: std::collections::HashSet<_> = pairs.iter().filter(same).map(|p| (&p.u, &p.v)).collect();
    assert_eq!(different.len(), 3, "two by two samples, three different pairs");
    // The base's own view of a sample is the same in both files.
    let u = pairs.iter().find(|p| p.checkpoint == 0 && p.regime == "bare").unwrap();
    let sample = samples.iter().find(|s| s.set == "bare" && s.id == u.u).unwrap();
    assert!((u.influence.u_nats - sample.nats).abs() < 1e-3, "{} {}", u.influence.u_nats, sample.nats);
    for checkpoint in &found.checkpoints {
        let check = &checkpoint.check;
        assert!(check.both_ways.correlation > 0.999 && check.gradients.difference < 0.01, "{check:?}");
        assert_eq!(check.rounded_pairs + check.curved_pairs, 0, "{check:?}");
    }
    assert!(pairs.iter().all(|p| p.influence.adam_kl > 0.0 && p.influence.sgd_kl > 0.0));
    assert!((u.u_base_nats - sample.nats).abs() < 1e-12, "{} {}", u.u_base_nats, sample.nats);
    // What each checkpoint says to the two prompts of `long`, under itself and under the base, which is the first checkpoint.
    let own: Vec<OnPolicySample> = read(whole.out.join(ON_POLICY));
    assert_eq!(own.iter().map(|own| own.checkpoint).collect::<Vec<_>>(), [0, 0, 1, 1]);
    assert!(own.iter().all(|own| own.sample.origin == ResponseSource::Checkpoint && own.sample.token_ids.len() <= 4));
    assert!(own[..2].iter().all(|own| own.own_nats == own.sample.nats), "{own:?}");
    assert!(own[2..].iter().all(|own| own.own_nats > 0.0 && own.own_nats != own.sample.nats), "{own:?}");
    let of_tuned = found.checkpoints[1].on_policy.as_ref().unwrap();
    assert_eq!((of_tuned.base.whole.responses, of_tuned.own.responses), (2, 2));
    assert_eq!(found.priors[1].answered_by_base, 2);

    // Nothing is left to do: nothing is loaded, the result is the same.
    let result = fs::read(whole.out.join(DYNAMICS_JSON)).unwrap();
    let (again, told) = measure(&whole).unwrap();
    assert!(told.is_empty() && fs::read(whole.out.join(DYNAMICS_JSON)).unwrap() == result);
    assert_eq!(again.checkpoints.len(), 2);

    // One checkpoint first, stopped in the middle of a line, then the other on three ranks.
    let mut part = request(dir.path(), "part");
    part.models.pop();
    measure(&part).unwrap();
    let text = fs::read(part.out.join(PAIRS)).unwrap();
    fs::write(part.out.join(PAIRS), &text[..text.len() * 2 / 3]).unwrap();
    fs::remove_file(part.out.join(DYNAMICS_JSON)).unwrap();
    part.models = whole.models.clone();
    for found in threads::run(3, |comm| measure_as(&part, comm)) {
        assert_eq!(format!("{:?}", found.unwrap().0), format!("{again:?}"), "every rank has the result");
    }
    for name in [PAIRS, SAMPLES, ON_POLICY, DYNAMICS_JSON] {
        assert_eq!(fs::read(part.out.join(name)).unwrap(), fs::read(whole.out.join(name)).unwrap(), "{name}");
    }

    // Another step is another measurement.
    let mut other = request(dir.path(), "whole");
    other.config.eta = Some(2e-5);
    let error = measure(&other).unwrap_err();
    assert!(error.exit_code() == 2 && error.to_string().contains("config.eta: (not set) -> 0.00002"), "{error}");
    // And so are other responses to the same prompts.
    dataset(&dir.path().join("bare"), &[Some("yes"), Some("no"), Some("perhaps")]);
    let error = measure(&whole).unwrap_err();
    assert!(error.exit_code() == 2 && error.to_string().contains("(train.bare.data:"), "{error}");
    dataset(&dir.path().join("bare"), &[Some("yes"), Some("no"), Some("maybe")]);
    // So are lines that were changed.
    let text = fs::read_to_string(whole.out.join(PAIRS)).unwrap().replacen("\"u\":\"r", "\"u\":\"s", 1);
    fs::write(whole.out.join(PAIRS), text).unwrap();
    let error = measure(&whole).unwrap_err();
    assert!(error.exit_code() == 2 && error.to_string().contains("pairs.jsonl:1:"), "{error}");
}

#[test]
fn what_cannot_be_measured_is_refused_before_any_weights_are_read() {
    let dir = prepare();
    // Weights that would fail to load show that none are.
    let refused = |change: &dyn Fn(&mut DynamicsRequest), said: &[&str]| {
        let mut request = request(dir.path(), "out");
        change(&mut request);
        let error = measure(&request).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
        said.iter().for_each(|text| assert!(error.to_string().contains(text), "{text:?}: {error}"));
        assert!(!request.out.exists());
    };
    dataset(&dir.path().join("mute"), &[Some("yes"), None]);
    let spec = |name: &str, path: &str| BenchmarkSpec {
        name: name.into(),
        path: dir.path().join(path),
        kind: None,
        split: "train".into(),
    };
    let train_on = |request: &mut DynamicsRequest, spec: BenchmarkSpec| {
        request.train[1] = spec;
        request.config.on_policy = None;
    };
    refused(&|r| train_on(r, spec("mute", "mute")), &["--train mute=", "1 of 2 records", "r1"]);
    refused(&|r| train_on(r, spec("Facts", "long")), &["name facts is given twice"]);
    refused(&|r| train_on(r, spec("file", "seen.tsv")), &["--train file=", "dataset directory"]);
    refused(&|r| train_on(r, spec("none", "nowhere")), &["--train none="]);
    refused(&|r| r.prior[1] = spec("none", "nowhere.tsv"), &["--prior none=", "no such file"]);
    refused(&|r| r.models[1] = dir.path().join("base"), &["--model", "given twice"]);
    refused(&|r| r.models[1] = dir.path().join("bare"), &["bare"]);
    refused(&|r| r.forgetting = vec![dir.path().join("bare")], &["--forgetting", "forgetting.json"]);
    let other = dir.path().join("other");
    write_checkpoint(&other, Preset::Tiny, 2).unwrap();
    let path = other.join("preprocessor_config.json");
    fs::write(&path, fs::read_to_string(&path).unwrap() + "\n").unwrap();
    refused(&|r| r.models[1] = other.clone(), &["do not read prompts alike"]);
    refused(&|r| r.config.on_policy = Some("facts".into()), &["--on-policy facts", "there are bare, long"]);
    refused(&|r| r.config.learning_rate = 0.0, &["--learning-rate 0"]);
    refused(&|r| r.config.frozen = vec!["visoin".into()], &["--freeze: \"visoin\" names no parameter"]);
    refused(&|r| r.config.frozen = vec!["vision".into(), "text".into()], &["--freeze:", "nothing is left"]);
}
