//! Adapters: against peft (scripts/reference/record_lora.py), merged, trained from the command line, killed and resumed.

use crate::command::{jigsaw, refused};
use crate::common;
use candle_core::{Device, Tensor};
use jigsaw::data::Message;
use jigsaw::model::lora::merge;
use jigsaw::model::safetensors_file::TensorFile;
use jigsaw::model::{ComputeDtype, LanguageModel as _, Model, ModelLoader};
use jigsaw::model::{Processor, Sequence, TokenGrads};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

const CASES: [&str; 2] = ["names", "all_linear_rslora"];

/// The recorded conversations.
fn sequences(processor: &Processor) -> Vec<Sequence> {
    let record = common::json("checkpoint/expected.json");
    let one = |sequence: &Value| {
        let mut messages: Vec<Message> = serde_json::from_value(sequence["messages"].clone()).unwrap();
        let response = messages.pop().unwrap();
        let open =
            |name: &Value| image::open(common::fixture("checkpoint").join(name.as_str().unwrap())).unwrap().into_rgb8();
        let images: Vec<_> = sequence["images"].as_array().unwrap().iter().map(open).collect();
        let prompt = processor.encode_prompt(&messages, &images).unwrap();
        Sequence { prompt, response: processor.encode_response(&response.content).unwrap() }
    };
    record["sequences"].as_array().unwrap().iter().map(one).collect()
}

fn adapter(case: &str) -> PathBuf {
    common::fixture("lora").join(case)
}

fn logprobs(model: &Model, sequences: &[Sequence]) -> Vec<f32> {
    model.score(sequences, 1.0).unwrap().logprobs
}

fn far(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let scale = b.iter().fold(1e-3f32, |most, x| most.max(x.abs()));
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max) / scale
}

#[test]
fn adapters_that_peft_wrote_give_pefts_log_probabilities_and_gradients() {
    for case in CASES {
        let processor = Processor::from_dir(&adapter(case)).unwrap();
        let sequences = sequences(&processor);
        let want: Vec<Vec<f32>> =
            serde_json::from_value(common::json(&format!("lora/{case}/expected.json"))["logprobs"].clone()).unwrap();
        for fused in [true, false] {
            let model = jigsaw::model::load(&adapter(case), &common::device()).unwrap();
            let model = if fused { model } else { model.without_fused_kernels() };
            assert!(far(&logprobs(&model, &sequences), &want.concat()) < 1e-4, "{case}, fused {fused}");
            let without = logprobs(&model.without_adapter().unwrap(), &sequences);
            assert!(far(&without, &want.concat()) > 0.01, "{case}: the adapter does nothing");
            let n = sequences[0].response.len() as f32;
            let loss = |_: std::ops::Range<usize>, stats: &jigsaw::model::TokenStats| {
                Ok(TokenGrads { logprobs: vec![-1.0 / n; stats.logprobs.len()], entropies: None, kl: None })
            };
            model.backward(&sequences[..1], 1.0, None, &loss).unwrap();
            let gradients = TensorFile::open(&adapter(case).join("gradients.safetensors")).unwrap();
            let mut seen = 0;
            for (name, info) in gradients.tensors() {
                let mut want = vec![0.0; info.shape.iter().product()];
                gradients.read(info, &mut want).unwrap();
                let module = name.strip_prefix("base_model.model.").unwrap();
                let ours = module.replace("model.language_model.", "model.").replace("model.visual.", "visual.");
                let parameter = model.parameters().iter().find(|p| p.name == ours).unwrap_or_else(|| panic!("{ours}"));
                let got: Vec<f32> = parameter.grad().unwrap().flatten_all().unwrap().to_vec1().unwrap();
                assert!(far(&got, &want) < 1e-3, "{case} {name}: {}", far(&got, &want));
                seen += 1;
            }
            let frozen = |p: &&std::sync::Arc<jigsaw::nn::Parameter>| !p.name.contains(".lora_");
            assert_eq!(seen, model.parameters().iter().filter(|p| p.name.contains(".lora_")).count());
            assert!(
                model.parameters().iter().filter(frozen).all(|p| p.grad().is_none()),
                "a frozen weight has a gradient"
            );
        }
    }
}

#[test]
fn an_adapter_merged_into_its_base_computes_the_same() {
    let dir = tempfile::tempdir().unwrap();
    for case in CASES {
        let out = dir.path().join(case);
        merge(&adapter(case), &out, jigsaw::model::weight_dtype::WeightDtype::F32, false).unwrap();
        let (merged, adapted) = (
            jigsaw::model::load(&out, &common::device()).unwrap(),
            jigsaw::model::load(&adapter(case), &common::device()).unwrap(),
        );
        let sequences = sequences(&Processor::from_dir(&out).unwrap());
        assert!(!merged.is_adapted());
        assert!(far(&logprobs(&merged, &sequences), &logprobs(&adapted, &sequences)) < 1e-5);
        let again = merge(&adapter(case), &out, jigsaw::model::weight_dtype::WeightDtype::F32, false).unwrap();
        assert_eq!(format!("{:?}", again.0), "Found", "the same merge is there already");
    }
}

#[test]
fn an_adapter_is_written_as_it_was_read_and_models_share_their_base() {
    let dir = tempfile::tempdir().unwrap();
    let loader = ModelLoader::new(&common::device(), ComputeDtype::F32);
    for case in CASES {
        let (a, b) = (
            loader.trainable(&adapter(case), &[]).unwrap(),
            loader.frozen(&common::fixture("checkpoint/model")).unwrap(),
        );
        let same = |name: &str| {
            let of = |m: &Model| std::sync::Arc::as_ptr(m.parameters().iter().find(|p| p.name == name).unwrap());
            std::ptr::eq(of(&a), of(&b))
        };
        assert!(same("model.embed_tokens.weight") && same("visual.merger.mlp.0.weight"));
        let out = dir.path().join(case);
        std::fs::create_dir(&out).unwrap();
        a.save_weights(&out).unwrap();
        let tensors = |dir: &Path| {
            let mut all = candle_core::safetensors::load(dir.join("adapter_model.safetensors"), &Device::Cpu).unwrap();
            let mut names: Vec<_> = all.keys().cloned().collect();
            names.sort();
            let flat = |t: Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            names.into_iter().map(|n| (n.clone(), flat(all.remove(&n).unwrap()))).collect::<Vec<_>>()
        };
        assert!(tensors(&out) == tensors(&adapter(case)), "{case}");
        // Its base was named as from the directory it was read from; it is found from another one too.
        let (again, sequences) =
            (jigsaw::model::load(&out, &common::device()).unwrap(), sequences(&Processor::from_dir(&out).unwrap()));
        assert_eq!(logprobs(&again, &sequences), logprobs(&a, &sequences), "{case}");
    }
}

#[test]
fn adapters_that_do_not_fit_are_refused_with_file_and_field() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |name: &str, change: &dyn Fn(&mut Value)| {
        let out = dir.path().join(name);
        std::fs::create_dir(&out).unwrap();
        for file in ["adapter_config.json", "adapter_model.safetensors"] {
            std::fs::copy(adapter("names").join(file), out.join(file)).unwrap();
        }
        let path = out.join("adapter_config.json");
        let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        config["base_model_name_or_path"] = common::fixture("checkpoint/model").display().to_string().into();
        change(&mut config);
        std::fs::write(&path, config.to_string()).unwrap();
        let error = jigsaw::model::load(&out, &common::device()).err().unwrap_or_else(|| panic!("{name} was accepted"));
        assert_eq!(error.exit_code(), 2);
        error.to_string()
    };
    let said = refused("base", &|c| c["base_model_name_or_path"] = "/nowhere/model".into());
    assert!(said.contains("/nowhere/model") && said.contains("base_model_name_or_path"), "{said}");
    let said = refused("rank", &|c| c["r"] = 5.into());
    assert!(said.contains(".lora_A.weight` has shape [4, ") && said.contains("rank 5"), "{said}");
    let said = refused("kind", &|c| c["peft_type"] = "IA3".into());
    assert!(said.contains("IA3"), "{said}");
    for field in ["use_dora", "lora_bias"] {
        let said = refused(field, &|c| c[field] = true.into());
        assert!(said.contains(field), "{said}");
    }
    let said = refused("saved", &|c| c["modules_to_save"] = serde_json::json!(["lm_head"]));
    assert!(said.contains("modules_to_save"), "{said}");
    let said = refused("begun", &|c| c["init_lora_weights"] = "pissa".into());
    assert!(said.contains("adapter_config.json: init_lora_weights: is `pissa`"), "{said}");
    for field in ["rank_pattern", "alpha_pattern"] {
        let said = refused(field, &|c| c[field] = serde_json::json!({"nonsense": 4}));
        assert!(said.contains(&format!("{field}: `nonsense` matches no module of the adapter")), "{said}");
    }
}

/// A copy of a recorded adapter, its configuration changed.
fn changed(at: &Path, case: &str, change: &dyn Fn(&mut Value)) {
    std::fs::create_dir(at).unwrap();
    std::fs::copy(adapter(case).join("adapter_model.safetensors"), at.join("adapter_model.safetensors")).unwrap();
    let mut config: Value =
        serde_json::from_str(&std::fs::read_to_string(adapter(case).join("adapter_config.json")).unwrap()).unwrap();
    config["base_model_name_or_path"] = common::fixture("checkpoint/model").display().to_string().into();
    change(&mut config);
    std::fs::write(at.join("adapter_config.json"), config.to_string()).unwrap();
}

#[test]
fn patterns_with_the_names_of_older_transformers_do_what_newer_names_do() {
    let dir = tempfile::tempdir().unwrap();
    let processor = Processor::from_dir(&common::fixture("checkpoint/model")).unwrap();
    let sequences = sequences(&processor);
    let with = |name: &str, pattern: &str| {
        let at = dir.path().join(name);
        changed(&at, "names", &|c| c["alpha_pattern"] = serde_json::json!({pattern: 64}));
        logprobs(&jigsaw::model::load(&at, &common::device()).unwrap(), &sequences)
    };
    let newer = with("newer", "model.language_model.layers.0.self_attn.q_proj");
    assert_eq!(with("older", "model.layers.0.self_attn.q_proj"), newer);
    let plain = logprobs(&jigsaw::model::load(&adapter("names"), &common::device()).unwrap(), &sequences);
    assert!(far(&newer, &plain) > 0.0, "the pattern does nothing");
}

#[test]
fn modules_beyond_those_that_are_meant_are_refused_and_missing_ones_noted() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("more");
    changed(&at, "names", &|c| c["target_modules"] = serde_json::json!(["q_proj", "v_proj"]));
    let error = jigsaw::model::load(&at, &common::device()).err().unwrap();
    let said = error.to_string();
    assert_eq!(error.exit_code(), 2, "{said}");
    assert!(said.contains("mlp.down_proj`, which target_modules") && said.contains("adapter_config.json"), "{said}");

    let at = dir.path().join("fewer");
    changed(&at, "names", &|c| c["target_modules"] = serde_json::json!(["q_proj", "k_proj", "v_proj", "down_proj"]));
    let model = jigsaw::model::load(&at, &common::device()).unwrap();
    let whole = jigsaw::model::load(&adapter("names"), &common::device()).unwrap();
    assert_eq!(model.parameters().len(), whole.parameters().len());
    assert_eq!(jigsaw::model::check(&adapter("names")).unwrap(), None);
    let note = jigsaw::model::check(&at).unwrap().unwrap();
    assert!(note.contains("such as `model.layers.0.self_attn.k_proj`; they stay as in the base"), "{note}");
}

#[test]
fn a_matrix_that_is_stored_twice_is_refused_with_both_names() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("twice");
    changed(&at, "names", &|_| {});
    let file = at.join("adapter_model.safetensors");
    let mut all = candle_core::safetensors::load(&file, &Device::Cpu).unwrap();
    let name =
        all.keys().find(|name| name.contains("language_model.layers.0.self_attn.q_proj.lora_A")).unwrap().clone();
    let (older, same) = (name.replace("model.language_model.", "model."), all[&name].clone());
    all.insert(older.clone(), same);
    candle_core::safetensors::save(&all, &file).unwrap();
    let error = jigsaw::model::load(&at, &common::device()).err().unwrap();
    let said = error.to_string();
    assert_eq!(error.exit_code(), 2, "{said}");
    assert!(said.contains(&name) && said.contains(&older) && said.contains("are the same matrix of"), "{said}");
}

fn done(dir: &Path, line: &str) -> String {
    let output = jigsaw(dir, line);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn bytes(path: PathBuf) -> Vec<u8> {
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn adapters_are_trained_resumed_evaluated_and_merged_from_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let root = crate::common::root();
    let base = root.join("data/base-tiny");
    let base = base.display();
    done(at, "gen --images scenes --grid 2x1 --count 24 --split 2,1,1 --out data");
    let common = format!(
        "train --model {base} --data data --set lora.rank=4 --set train.batch_size=2 --set train.learning_rate=1e-2 --set train.save_steps=2 \
         --set eval.steps=0 --set train.save_total_limit=9"
    );
    for (name, method) in [
        ("sft", "--method sft --set lora.dropout=0.2 --set train.gradient_checkpointing=true"),
        (
            "rft",
            "--method rft --set rollout.num_generations=4 --set rollout.max_new_tokens=8 --set grpo.beta=0.1 --set grpo.entropy_coef=0.05",
        ),
    ] {
        let to = |out: &str, steps: usize| format!("{common} {method} --set train.steps={steps} --out {name}-{out}");
        done(at, &to("whole", 6));
        // The same with a checkpoint taken from the middle and gone on from.
        done(at, &to("cut", 6));
        for gone in ["checkpoints/step-00000006", "model"] {
            std::fs::remove_dir_all(at.join(format!("{name}-cut")).join(gone)).unwrap();
        }
        std::fs::remove_file(at.join(format!("{name}-cut/finished.json"))).unwrap();
        done(at, &to("cut", 6));
        let weights = |out: &str| bytes(at.join(format!("{name}-{out}/model/adapter_model.safetensors")));
        assert!(weights("whole") == weights("cut"), "{name}: the resumed run ends elsewhere");
        assert!(
            weights("whole")
                != bytes(at.join(format!("{name}-whole/checkpoints/step-00000002/adapter_model.safetensors")))
        );
        let model = at.join(format!("{name}-whole/model"));
        assert!(model.join("adapter_config.json").exists() && !model.join("model.safetensors").exists());
        // A checkpoint of an adapter is small.
        let size: u64 = std::fs::read_dir(&model).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
        assert!(size < 600_000, "{size}");
    }
    let compared = done(
        at,
        &format!(
            "eval --model sft-whole/checkpoints/step-00000002 sft-whole/model --baseline {base} --data data --kl-prompts 3 --max-new-tokens 8 --out cost"
        ),
    );
    assert!(compared.contains("\nprompts of ") && compared.contains("\nnew task    3 "), "{compared}");
    done(at, "model merge-lora sft-whole/model --dtype f32 --out merged");
    for (model, out) in [("sft-whole/model", "a.jsonl"), ("merged", "b.jsonl")] {
        done(at, &format!("score --model {model} --data data --split test --out {out}"));
    }
    let scores = |name: &str| -> Vec<f32> {
        let text = std::fs::read_to_string(at.join(name)).unwrap();
        let row = |line: &str| -> Vec<f32> {
            serde_json::from_value(serde_json::from_str::<Value>(line).unwrap()["logprobs"].clone()).unwrap()
        };
        text.lines().flat_map(row).collect()
    };
    assert!(far(&scores("a.jsonl"), &scores("b.jsonl")) < 1e-4);
    // An adapter goes on training as it is.
    let on = "train --method sft --model sft-whole/model --data data --set train.steps=2 --set eval.steps=0 --out on";
    done(at, on);
    assert!(at.join("on/model/adapter_config.json").exists());
    assert!(refused(at, &(on.replace("--out on", "--set lora.rank=2 --out on2"))).contains("merge-lora"));
    // GRPO goes on with it as if it had no dropout, and says so.
    let mut about: Value = serde_json::from_slice(&bytes(at.join("sft-whole/model/adapter_config.json"))).unwrap();
    assert_eq!(about["lora_dropout"], 0.2);
    std::fs::create_dir(at.join("plain")).unwrap();
    for entry in std::fs::read_dir(at.join("sft-whole/model")).unwrap().flatten().filter(|e| e.path().is_file()) {
        std::fs::copy(entry.path(), at.join("plain").join(entry.file_name())).unwrap();
    }
    about["lora_dropout"] = 0.into();
    std::fs::write(at.join("plain/adapter_config.json"), about.to_string()).unwrap();
    for (model, out, told) in [("sft-whole/model", "with", true), ("plain", "without", false)] {
        let said = done(
            at,
            &format!(
                "train --method rft --model {model} --data data --set train.steps=2 --set train.batch_size=2 --set train.learning_rate=1e-2 \
                 --set eval.steps=0 --set rollout.num_generations=4 --set rollout.max_new_tokens=8 --set grpo.entropy_coef=0.05 --out {out}"
            ),
        );
        assert_eq!(said.matches("the adapter's lora_dropout, 0.2, is not used").count(), usize::from(told), "{said}");
    }
    let weights = |model: &str| bytes(at.join(model).join("adapter_model.safetensors"));
    assert!(weights("with/model") == weights("without/model") && weights("with/model") != weights("plain"));
    let said = refused(at, &(common.replace("lora.rank=4", "lora.rank=0") + " --method sft --out x"));
    assert!(said.contains("lora.rank = 0"), "{said}");
    let said = refused(at, &(common.clone() + " --method sft --set lora.target=query --out x"));
    assert!(said.contains("lora.target") && said.contains("q_proj"), "{said}");
    let said = refused(at, &(common.clone() + " --method rft --set lora.dropout=0.1 --out x"));
    assert!(said.contains("lora.dropout"), "{said}");
    let said = refused(at, "model convert sft-whole/model --dtype f16 --out y");
    assert!(said.contains("merge-lora"), "{said}");
    let said = done(at, "model inspect sft-whole/model");
    assert!(said.contains("an adapter (LoRA)") && said.contains("28 linear maps"), "{said}");
    let plan = done(at, &(common + " --method sft --dry-run"));
    assert!(plan.contains("0.0") && plan.contains("memory: about") && plan.contains("fits"), "{plan}");
    // Going on from an adapter trains as much as a fresh one of the same rank, and holds the same.
    let on = done(at, &format!("{} --dry-run", on.replace(" --out on", "")));
    let trained = |plan: &str| plan.split(" examples; ").nth(1).and_then(|rest| rest.split(';').next()).map(first_line);
    assert_eq!(trained(&on), trained(&plan), "{on}{plan}");
    let moments =
        |plan: &str| plan.split("moments ").nth(1).and_then(|rest| rest.split([',', ')']).next()).map(first_line);
    assert_eq!(moments(&on), moments(&plan), "{on}{plan}");
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_string()
}

#[test]
fn frozen_weights_in_bf16_give_the_bytes_of_the_same_weights_in_f32() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let base = crate::common::root().join("data/base-tiny");
    done(at, &format!("model convert {} --dtype bf16 --out base", base.display()));
    // Pictures of more visual tokens than are multiplied in another order.
    done(at, "gen --images scenes --grid 3x2 --count 12 --split 1,1,1 --out data");
    let held = |how: &str, line: &str| {
        let output = Command::new(crate::command::program())
            .args(line.split_whitespace())
            .current_dir(at)
            .env("JIGSAW_FROZEN_WEIGHTS", how)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    let mut notes = Vec::new();
    for how in ["f32", "bf16"] {
        for line in [
            format!("score --model base --data data --out {how}.jsonl"),
            format!("eval --model base --data data --max-new-tokens 12 --batch-size 3 --out eval-{how}"),
            format!(
                "train --method sft --model base --data data --set lora.rank=2 --set lora.target=all-linear --set train.steps=2 --set \
                 train.batch_size=2 --set eval.steps=0 --out train-{how}"
            ),
        ] {
            let (code, said) = held(how, &line);
            assert_eq!(code, Some(0), "{line}: {said}");
            notes.push(said);
        }
    }
    let same = |a: &str, b: &str| assert!(bytes(at.join(a)) == bytes(at.join(b)), "{a} and {b} differ");
    same("f32.jsonl", "bf16.jsonl");
    same("eval-f32/responses.jsonl", "eval-bf16/responses.jsonl");
    same("train-f32/model/adapter_model.safetensors", "train-bf16/model/adapter_model.safetensors");
    // It is half of the memory, as the plan says.
    let megabytes = |said: &str| -> f64 {
        let text = said.split("weights ").nth(1).unwrap();
        text.split(' ').next().unwrap().parse().unwrap()
    };
    assert!(megabytes(&notes[5]) < 0.6 * megabytes(&notes[2]), "{} and {}", notes[2], notes[5]);
    let (code, said) = held("f64", "score --model base --data data --out x.jsonl");
    assert!(code == Some(2) && said.contains("JIGSAW_FROZEN_WEIGHTS=f64"), "{said}");
}
