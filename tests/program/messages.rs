//! Messages as a user meets them: names of other programs, values of the wrong kind, paths of the wrong level.

use crate::command::jigsaw;
use std::fs;
use std::path::Path;

/// Words of the parsers, which no message may have.
const FOREIGN: [&str; 14] = [
    "invalid type",
    "invalid length",
    "invalid digit",
    "invalid float",
    "expected usize",
    "expected f64",
    "expected u64",
    "unknown variant",
    "missing field",
    "unknown field",
    "untagged enum",
    "expected a sequence",
    "fit in target type",
    "EOF while",
];

fn refused(dir: &Path, line: &str, said: &str) {
    let output = jigsaw(dir, line);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{line}: {message}");
    assert!(message.contains(said), "{line}: {message}");
    assert!(FOREIGN.iter().all(|words| !message.contains(words)), "{line}: {message}");
}

#[test]
fn a_setting_is_refused_in_plain_words_with_what_to_write() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    fs::write(dir.join("twice.toml"), "[train]\nmethod = \"sft\"\nseed = 1\nseed = 2\n").unwrap();
    fs::write(dir.join("bare.toml"), "[train]\nmethod = sft\n").unwrap();
    fs::write(dir.join("config.json"), "{\"train\": 3}\n").unwrap();
    for (line, said) in [
        ("train --method rft --print-config --set lr=1e-4", "unknown key lr; did you mean train.learning_rate?"),
        ("train --method rft --print-config --set grpo.num_generations=4", "did you mean rollout.num_generations?"),
        ("train --method rft --print-config --set train.learning_rate=fast", "= \"fast\": must be a number"),
        ("train --method rft --print-config --set train.batch_size=-1", "must be a whole number, 0 or more"),
        (
            "train --method rft --print-config --set grpo.loss_type=ppo",
            "must be `grpo`, `bnpo`, `dr_grpo`, `dapo` or `cispo`",
        ),
        ("train --config twice.toml --print-config", "this key is there twice; keep one"),
        ("train --config bare.toml --print-config", "text must be in quotes"),
        ("train --config config.json --print-config", "no TOML stands here"),
        ("train --method grpo --print-config", "tip: GRPO is \"rft\""),
        (
            "train --method rft --learning-rate 1e-4",
            "tip: settings are given with --set: --set train.learning_rate=VALUE",
        ),
        ("train --method rft num_generations=4", "--set rollout.num_generations=4"),
        ("train --method rft --output_dir o", "tip: use the flag --out DIR"),
        ("train --config nope.toml --print-config", "cannot read nope.toml: there is no such file"),
        ("train --resume nope", "no run at nope: there is no such directory"),
        ("train --resume .", "no run in .: it has no run.json"),
        ("gen --images x --count many --out o", "'--count <N>': a whole number, 0 or more, is needed"),
        ("gen --images x --count 1.5 --out o", "a whole number, 0 or more, is needed"),
        ("gen --images x --count 99999999999999999999999 --out o", "the number is too large"),
        ("gen --images x --count -3 --out o", "-3 is below 0, which no flag here takes"),
        ("gen --images x --min-crop half --out o", "a number is needed"),
        ("gen --images x --split 0.8,0.1,0.2 --out o", "train, validation and test add up to 1.1, not to 1"),
    ] {
        refused(dir, line, said);
    }
}

#[test]
fn a_study_is_refused_in_plain_words_with_the_section_as_it_is_written() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    let head = "[study]\nbase = \"x\"\n[benchmarks]\npope = \"POPE.tsv\"\n";
    for (puzzles, regime, said) in [
        ("", "lr = 1e-4", "study.toml:7: [regimes.a]: unknown key lr; did you mean learning_rate?"),
        ("", "train = 3", "[regimes.a]: train = 3: train is a section of settings; write [regimes.NAME.train]"),
        ("", "seeds = 1", "[regimes.a]: seeds = 1: must be a list in brackets"),
        ("", "learning_rate = \"fast\"", "learning_rate = \"fast\": must be a number or a list of numbers"),
        ("", "steps_at = { steps = 3 }", "`learning_rate` is missing"),
        (
            "",
            "method = \"sft\"\ndata = \"p\"\nlearning_rate = 1e-4\n[regimes.a.train]\nper_device_train_batch_size = 3",
            "[regimes.a]: unknown key train.per_device_train_batch_size; did you mean train.batch_size?",
        ),
        (
            "",
            "method = \"sft\"\n[eval]\nper_device_eval_batch_size = 3",
            "[eval]: unknown key per_device_eval_batch_size; did you mean batch_size?",
        ),
        ("count = \"many\"", "", "study.toml:5: [puzzles.p]: count = \"many\": must be a whole number, 0 or more"),
        ("split = \"0.8,0.1,0.3\"", "", "add up to 1.2, not to 1"),
    ] {
        let text = format!("{head}[puzzles.p]\nimages = \"scenes\" \n{puzzles}\n[regimes.a]\n{regime}\n");
        let text = text.replace("\n\n", "\n");
        fs::write(dir.join("study.toml"), text).unwrap();
        refused(dir, "study --config study.toml --list", said);
    }
}

#[test]
fn the_printed_configuration_is_commented_and_is_a_configuration() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    let done = |line: &str| {
        let output = jigsaw(dir, line);
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let printed = done("train --method rft --print-config --set train.learning_rate=3e-6 --set lora.rank=4");
    assert!(printed.contains("# Peak learning rate.\nlearning_rate = 3e-6\n"), "{printed}");
    assert!(printed.contains("TRL: max_steps.\n# steps = (not set)\n"), "{printed}");
    fs::write(dir.join("printed.toml"), &printed).unwrap();
    assert_eq!(done("train --config printed.toml --print-config"), printed);
    let study = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/study-quick.toml");
    let printed = done(&format!("study --config {} --print-config", study.display()));
    assert!(printed.contains("# Seeds of training; each regime is run with each.\nseeds = "), "{printed}");
    fs::write(dir.join("study.toml"), &printed).unwrap();
    assert_eq!(done("study --config study.toml --print-config"), printed);
}

#[test]
fn the_directory_of_a_run_names_its_model_and_a_long_warm_up_is_cut_with_a_note() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    let photos = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/photos");
    let notes = |line: &str| {
        let output = jigsaw(dir, line);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{line}: {said}");
        said
    };
    notes("model init --out model");
    notes(&format!("gen --images {} --grid 1x2 --count 12 --limit 6 --split 1,1,1 --out data", photos.display()));
    let train = "train --model model --data data --set train.batch_size=2 --set eval.steps=0";
    let said = notes(&format!("{train} --method sft --set train.steps=3 --set train.warmup_steps=50 --out runs/a"));
    let cut = "note: train.warmup_steps = 50 is longer than the run of 3 steps: the warm-up is cut to 1, a tenth";
    assert!(said.contains(cut), "{said}");
    refused(dir, "model inspect runs/a", "it is the directory of a run, whose model is runs/a/model");
    refused(dir, "eval --model runs --data data --out o", "there is one in it, runs/a/model");
    refused(dir, "model inspect runs/a/checkpoints", "there is one in it, runs/a/checkpoints/step-00000003");
    // A random model has no response in the form that is asked for.
    let rft = "--method rft --set train.steps=3 --set rollout.num_generations=2 --set rollout.max_new_tokens=4";
    let said = notes(&format!("{train} {rft} --out runs/b"));
    assert_eq!(said.matches("no response has earned any reward for 3 steps").count(), 1, "{said}");
    notes("gen --images scenes --grid 2x2 --count 12 --split 1,1,1 --out scenes");
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/base-tiny");
    let wild = "--set train.steps=5 --set train.learning_rate=0.3 --set train.max_grad_norm=0 --set train.batch_size=1";
    let train = format!("train --method sft --model {} --data scenes --set eval.steps=0", base.display());
    let said = notes(&format!("{train} {wild} --out runs/c"));
    assert_eq!(said.matches("training diverges").count(), 1, "{said}");
}
