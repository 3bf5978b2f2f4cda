//! RFT whose responses a server samples, on a toy model: it learns as with the model itself, repeats, survives a server that is unreliable, and
//! stops, with the cause, before it learns from a server that is wrong.

use crate::command::done;
use crate::common;
use crate::served::{Fault, Served, Server, serve};
use crate::toy::{Digits, Toy};
use crate::train::{PLAIN, RFT, Told, Way, config, go, metric, weights};
use candle_core::Device;
use jigsaw::model::Processor;
use jigsaw::train::TrainOutcome;
use jigsaw::train::settings::{Method, TrainConfig};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const STEPS: usize = 18;
const SERVED: &[&str] = &[
    "train.steps=18",
    "train.save_steps=6",
    "eval.steps=0",
    "rollout.num_generations=8",
    "rollout.server_timeout=30",
    "lora.rank=8",
];

fn toys(fault: Fault) -> Server {
    serve(|dir| Arc::new(Toy::load(dir)) as Served, Digits, fault)
}

fn served(urls: &[&str], more: &[&str]) -> TrainConfig {
    let server = format!("rollout.server={}", serde_json::json!(urls));
    config(Method::Rft, &[RFT, SERVED, &[server.as_str()], more])
}

fn finish(dir: &Path, config: &TrainConfig) -> Told {
    let (ended, told) = go(dir, config, PLAIN);
    let TrainOutcome::Finished(finished) = ended.unwrap() else { panic!() };
    assert_eq!(finished.step, STEPS);
    told
}

/// The weights after an undisturbed run.
fn undisturbed() -> Vec<u8> {
    let (dir, server) = (tempfile::tempdir().unwrap(), toys(Fault::None));
    finish(&dir.path().join("run"), &served(&[&server.url], &[]));
    weights(&dir.path().join("run"))
}

#[test]
fn a_run_learns_from_a_server_that_has_its_adapter_and_every_version_has_a_name() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (toys(Fault::None), toys(Fault::None));
    let out = dir.path().join("run");
    let more = ["train.steps=120", "reward.require_valid=false"];
    let (ended, told) = go(&out, &served(&[&one.url, &format!("{}/v1/", two.url)], &more), PLAIN);
    assert!(matches!(ended.unwrap(), TrainOutcome::Finished(_)));
    // As much as from the model itself, which draws other responses.
    let own = config(Method::Rft, &[RFT, &["eval.steps=0", "rollout.num_generations=8", "lora.rank=8"], &more]);
    let (ended, local) = go(&dir.path().join("local"), &own, PLAIN);
    assert!(matches!(ended.unwrap(), TrainOutcome::Finished(_)));
    let mean = |told: &Told, from: usize| {
        let steps = &told.steps[from..from + 10];
        steps.iter().map(|m| metric(m, "reward")).sum::<f64>() / 10.0
    };
    let (first, last, here) = (mean(&told, 0), mean(&told, 110), mean(&local, 110));
    assert!(first < 1.0 && last > 1.8 && (last - here).abs() < 0.3, "{first} -> {last}, and {here} here");
    for step in &told.steps {
        let (gap, ratio) = (metric(step, "sampler_gap"), metric(step, "sampler_ratio"));
        assert!(gap < 1e-5 && (ratio - 1.0).abs() < 1e-5 && metric(step, "sampler_truncated") == 0.0, "{gap} {ratio}");
    }
    // Each server was told of every version, under a name of its own, and has forgotten all but the last.
    for server in [&one, &two] {
        let state = server.state();
        assert_eq!(state.told.len(), 120);
        assert_eq!(state.told.iter().collect::<std::collections::HashSet<_>>().len(), 120);
        assert_eq!(state.adapters.keys().collect::<Vec<_>>(), [state.told.last().unwrap()]);
        assert!(state.answers.values().all(|times| *times == 1));
        assert_eq!(state.answers.len(), 120 * 6 * 8 / 2, "prompts are dealt out evenly");
    }
    let line = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    assert!(line.lines().next().unwrap().contains("\"sampler_gap\":"), "{line}");
    assert_eq!(std::fs::read_dir(out.join("adapters")).unwrap().count(), 1);
    assert_eq!(std::fs::read_dir(out.join("rollout-server")).unwrap().count(), 0);
}

#[test]
fn a_run_against_a_server_that_repeats_itself_repeats_and_hiccups_change_nothing() {
    let expected = undisturbed();
    let millis = Duration::from_millis;
    // The last is back, without its adapters, before it counts as away.
    for fault in [Fault::None, Fault::DropsEveryFifth, Fault::Late(millis(5000)), Fault::Dies(500, millis(300))] {
        let (dir, server) = (tempfile::tempdir().unwrap(), toys(fault));
        let out = dir.path().join("run");
        finish(&out, &served(&[&server.url], &["rollout.server_timeout=4"]));
        assert!(weights(&out) == expected, "{fault:?}");
        assert!(server.state().answers.values().all(|times| *times == 1), "{fault:?}");
        assert_eq!(server.state().answers.len(), STEPS * 6 * 8, "{fault:?}");
    }
}

#[test]
fn a_server_that_goes_away_is_waited_for_and_then_the_run_pauses_until_it_is_back() {
    let expected = undisturbed();
    let (dir, server) = (tempfile::tempdir().unwrap(), toys(Fault::Dies(500, Duration::from_secs(6))));
    let out = dir.path().join("run");
    let impatient = served(&[&server.url], &["rollout.server_timeout=3"]);
    let began = Instant::now();
    let told = finish(&out, &impatient);
    assert!(began.elapsed() > Duration::from_secs(6));
    let paused =
        told.notes.iter().find(|note| note.starts_with("paused: ")).unwrap_or_else(|| panic!("{:?}", told.notes));
    assert!(paused.contains(&server.url) && paused.contains(": no answer for "), "{paused}");
    assert!(weights(&out) == expected);
    let state = server.state();
    assert!(state.answers.values().all(|times| *times == 1), "nothing is sampled twice");
    assert_eq!(state.answers.len(), STEPS * 6 * 8);
    // It had forgotten the adapter, and was told again.
    assert_eq!(state.told.len(), STEPS + 1);
}

#[test]
fn a_run_that_is_stopped_while_it_waits_goes_on_to_the_same_bytes_and_samples_nothing_twice() {
    let expected = undisturbed();
    let (dir, server) = (tempfile::tempdir().unwrap(), toys(Fault::Dies(500, Duration::from_secs(6))));
    let out = dir.path().join("run");
    let impatient = served(&[&server.url], &["rollout.server_timeout=3"]);
    let (ended, told) = go(&out, &impatient, Way { stop_when_paused: true, ..PLAIN });
    // Request 500 belongs to the eleventh round of 48.
    assert_eq!(ended.unwrap(), TrainOutcome::Stopped(10), "{:?}", told.notes);
    assert!(out.join("checkpoints/step-00000010").is_dir());
    std::thread::sleep(Duration::from_secs(6));
    // Another address is no other run.
    let moved = served(&[&format!("{}/v1", server.url)], &["rollout.server_timeout=20"]);
    finish(&out, &moved);
    assert!(weights(&out) == expected);
    let state = server.state();
    assert!(state.answers.values().all(|times| *times == 1), "nothing is sampled twice");
    assert_eq!(state.answers.len(), STEPS * 6 * 8);
}

#[test]
fn a_run_that_goes_on_from_an_older_checkpoint_takes_the_responses_that_it_has() {
    let (dir, server) = (tempfile::tempdir().unwrap(), toys(Fault::None));
    let out = dir.path().join("run");
    let plan = served(&[&server.url], &[]);
    // It fails in step 10, and saves nothing; what counts is the checkpoint of step 6.
    let error = go(&out, &plan, Way { poison: Some(10), ..PLAIN }).0.unwrap_err();
    assert!(error.to_string().starts_with("step 10 "), "{error}");
    finish(&out, &plan);
    assert!(weights(&out) == undisturbed());
    let state = server.state();
    assert!(state.answers.values().all(|times| *times == 1), "nothing is sampled twice");
    assert_eq!(state.answers.len(), STEPS * 6 * 8);
}

/// Where a run ends against this server, and after how many steps.
fn stopped_by(fault: Fault, more: &[&str]) -> (String, u8, usize) {
    let (dir, server) = (tempfile::tempdir().unwrap(), toys(fault));
    let (ended, told) = go(&dir.path().join("run"), &served(&[&server.url], more), PLAIN);
    let error = ended.unwrap_err();
    (error.to_string(), error.exit_code(), told.steps.len())
}

#[test]
fn a_server_that_samples_something_else_stops_the_run_with_the_cause() {
    let (said, code, steps) = stopped_by(Fault::AnotherModel, &[]);
    assert!(code == 1 && steps == 0, "{code} after {steps} steps: {said}");
    assert!(said.contains("rollout.max_sampler_gap is 0.1") && said.contains("another model"), "{said}");
    let (said, code, steps) = stopped_by(Fault::Temperature(0.5), &[]);
    assert!(code == 1 && steps == 0 && said.contains("those of temperature 0.5"), "{steps}: {said}");
    assert!(said.contains("rollout.temperature is 1") && said.contains("--logprobs-mode processed_logprobs"), "{said}");
    let (said, code, steps) = stopped_by(Fault::RawLogprobs, &["rollout.temperature=0.9"]);
    assert!(code == 1 && steps == 0 && said.contains("those of temperature 1 "), "{steps}: {said}");
    assert!(said.contains("nats on average (rollout.max_sampler_gap is 0.1)"), "{said}");
    // The adapter begins as the base; it shows once they differ, long before the limit.
    let (said, code, steps) = stopped_by(Fault::IgnoresAdapters, &["rollout.max_sampler_gap=0.5"]);
    assert!(code == 1 && (1..STEPS).contains(&steps) && said.contains("ignores the adapter"), "{steps}: {said}");
    assert!(said.contains("Nothing was learnt from its responses"), "{said}");
    // Once the server is put right, the run goes on with other responses.
    let (dir, wrong, right) = (tempfile::tempdir().unwrap(), toys(Fault::IgnoresAdapters), toys(Fault::None));
    let out = dir.path().join("run");
    go(&out, &served(&[&wrong.url], &[]), PLAIN).0.unwrap_err();
    finish(&out, &served(&[&right.url], &[]));
    assert!(weights(&out) == undisturbed());
}

#[test]
fn a_server_that_cannot_be_used_is_refused_with_what_to_do() {
    for (fault, parts) in [
        (Fault::CannotSee, ["No adapter found for ", "rollout.adapter_dir"]),
        (Fault::NoRuntimeLoading, ["--enable-lora", "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"]),
        (Fault::NoTokens, ["return_token_ids", "vLLM"]),
        (Fault::AnotherTemplate, ["token 0 (equal neighbours counted once) is 99 there and ", "another chat template"]),
    ] {
        let (said, code, steps) = stopped_by(fault, &[]);
        assert!(code == 2 && steps == 0 && said.contains("http://127.0.0.1"), "{fault:?}: {code}, {steps}: {said}");
        parts.iter().for_each(|part| assert!(said.contains(part), "{fault:?}: {said}"));
    }
    // One that was never there: the run has not begun, and does not wait for ever.
    let dir = tempfile::tempdir().unwrap();
    let nobody = served(&["http://127.0.0.1:1"], &["rollout.server_timeout=0.5"]);
    let error = go(&dir.path().join("run"), &nobody, PLAIN).0.unwrap_err();
    assert!(error.exit_code() == 1 && error.to_string().contains("is it running?"), "{error}");
}

#[test]
fn adapters_go_where_the_server_sees_them() {
    let (dir, server) = (tempfile::tempdir().unwrap(), toys(Fault::None));
    let (here, there) = (dir.path().join("here"), dir.path().join("there"));
    std::fs::create_dir(&here).unwrap();
    std::os::unix::fs::symlink(&here, &there).unwrap();
    let (here_set, there_set) = (
        format!("rollout.adapter_dir={}", here.display()),
        format!("rollout.adapter_dir_on_server={}", there.display()),
    );
    finish(&dir.path().join("run"), &served(&[&server.url], &[&here_set, &there_set]));
    assert_eq!(std::fs::read_dir(&here).unwrap().count(), 1);
    assert!(!dir.path().join("run/adapters").exists());
    // A directory that is not there under this name.
    let elsewhere = format!("rollout.adapter_dir_on_server={}", dir.path().join("elsewhere").display());
    let error = go(&dir.path().join("other"), &served(&[&server.url], &[&here_set, &elsewhere]), PLAIN).0.unwrap_err();
    assert!(error.exit_code() == 2 && error.to_string().contains("/elsewhere/jigsaw-"), "{error}");
}

/// Rounds that are sampled while earlier ones train have responses of the adapter as it was so many rounds before.
#[test]
fn rounds_can_be_sampled_ahead_and_the_run_still_repeats_and_resumes() {
    for staleness in [1, 3] {
        let run = |fault: Fault, way: Way| {
            let (dir, server) = (tempfile::tempdir().unwrap(), toys(fault));
            let out = dir.path().join("run");
            let lag = format!("rollout.max_staleness={staleness}");
            let ahead = served(&[&server.url], &[&lag, "rollout.server_timeout=3"]);
            let (ended, first) = go(&out, &ahead, way);
            let told = if ended.is_ok() { first } else { finish(&out, &ahead) };
            assert_eq!(std::fs::read_dir(out.join("rollout-server")).unwrap().count(), 0);
            (weights(&out), told, server)
        };
        let (expected, told, server) = run(Fault::None, PLAIN);
        assert!(expected != undisturbed());
        // The first round is on-policy. Later ones are corrected; and what the server samples with the adapter as it is agrees with the model.
        assert!((metric(&told.steps[0], "sampler_ratio") - 1.0).abs() < 1e-5);
        assert!(told.steps[1..].iter().all(|step| (metric(step, "sampler_ratio") - 1.0).abs() > 1e-4));
        assert!(told.steps[..STEPS - staleness].iter().all(|step| metric(step, "sampler_gap") < 1e-5));
        let answers = |version: usize| {
            let of_version = |(name, _): &&(String, u64)| name.split('-').nth(2).unwrap().parse() == Ok(version);
            server.state().answers.keys().filter(of_version).count()
        };
        let rounds = |version: usize| match version {
            0 => 1 + staleness,
            _ => usize::from(version + staleness < STEPS),
        };
        assert!((0..STEPS).all(|version| answers(version) == rounds(version) * 6 * 8));
        assert_eq!(server.state().adapters.len(), 2, "the adapter of the last round and the one that has sampled it");
        for (fault, way) in [
            (Fault::DropsEveryFifth, PLAIN),
            (Fault::Dies(500, Duration::from_secs(5)), PLAIN),
            (Fault::None, Way { poison: Some(10), ..PLAIN }),
        ] {
            let (got, told, server) = run(fault, way);
            assert!(got == expected, "{fault:?}: {:?}", told.notes);
            assert!(server.state().answers.values().all(|times| *times == 1), "{fault:?}");
        }
    }
}

/// The program itself with the embedded model: the server loads what is written for PEFT, sees the pictures, and agrees.
#[test]
fn the_embedded_model_is_trained_on_what_a_server_samples_from_its_adapter() {
    let dir = tempfile::tempdir().unwrap();
    let base = common::root().join("data/base-tiny");
    let processor = Processor::from_dir(&base).unwrap();
    let load = {
        let base = base.clone();
        move |dir: Option<&Path>| Arc::new(jigsaw::model::load(dir.unwrap_or(&base), &Device::Cpu).unwrap()) as Served
    };
    let server = serve(load, processor, Fault::None);
    done(dir.path(), "gen --images scenes --grid 2x1 --count 12 --split 2,1,1 --out data");
    let command = format!(
        "train --method rft --model {} --data data --set lora.rank=8 --set train.batch_size=2 --set train.steps=3 --set \
         train.learning_rate=1e-2 --set eval.steps=0 --set rollout.num_generations=4 --set rollout.max_new_tokens=8 --set \
         rollout.server={} --out run",
        base.display(),
        server.url
    );
    done(dir.path(), &command);
    let metrics = std::fs::read_to_string(dir.path().join("run/metrics.jsonl")).unwrap();
    let gaps: Vec<f64> = metrics
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["sampler_gap"].as_f64().unwrap())
        .collect();
    assert!(gaps.len() == 3 && gaps.iter().all(|gap| *gap < 1e-4), "{gaps:?}");
    let state = server.state();
    assert_eq!((state.told.len(), state.answers.len()), (3, 3 * 2 * 4));
}
