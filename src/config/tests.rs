//! What a configuration may contain, and the messages for what it may not.

use super::*;
use crate::io::json::named_differences as differences;

fn sets(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| s.to_string()).collect()
}

fn refused(text: &str, set: &[&str]) -> String {
    match TrainConfig::from_text(None, Some(("x.toml", text)), &sets(set)) {
        Err(e) => {
            assert_eq!(e.exit_code(), 2);
            e.to_string()
        }
        Ok(c) => panic!("accepted: {c:?}"),
    }
}

#[test]
fn an_unknown_key_is_refused_with_its_line_and_the_nearest_known_key() {
    let message = refused("[train]\nmethod = \"sft\"\nbatchsize = 3\n", &[]);
    assert!(message.contains("x.toml:3") && message.contains("train.batch_size"), "{message}");
    let message = refused("[train]\nmethod = \"sft\"\n\n[rolout]\nnum_generations = 3\n", &[]);
    assert!(message.contains("x.toml:4") && message.contains("did you mean rollout"), "{message}");
    let message = refused("[train]\nmethod = \"rft\"\n", &["grpo.epsilon_hi=0.3"]);
    assert!(message.contains("--set grpo.epsilon_hi=0.3") && message.contains("grpo.epsilon_high"), "{message}");
    let message = refused("[train]\nmethod = \"rft\"\n", &["zzz.q=1"]);
    assert!(message.contains("the sections are train, eval, lora, prior_kl, sft"), "{message}");
}

#[test]
fn set_wins_over_the_file_and_the_file_over_the_defaults() {
    let text = "[train]\nmethod = \"sft\"\nlearning_rate = 3e-4\nseed = 5\n";
    let c = TrainConfig::from_text(
        None,
        Some(("x.toml", text)),
        &sets(&["train.learning_rate=1e-3", "train.freeze=[\"vision\"]"]),
    )
    .unwrap();
    assert_eq!((c.train.learning_rate, c.train.seed, c.train.batch_size), (1e-3, 5, 8));
    assert_eq!(c.train.freeze, ["vision"]);
    let c = TrainConfig::from_text(
        None,
        None,
        &sets(&["train.method=rft", "grpo.loss_type=dr_grpo", "train.learning_rate=1"]),
    );
    assert!(c.unwrap_err().to_string().contains("train.learning_rate = 1"));
}

#[test]
fn set_replaces_the_alternative_that_the_file_chose() {
    let resolve = |chosen: &str, set: &[&str]| {
        let text = format!("[train]\nmethod = \"sft\"\n{chosen}\n");
        TrainConfig::from_text(None, Some(("x.toml", &text)), &sets(set)).map(|c| (c.train.steps, c.train.epochs))
    };
    assert_eq!(resolve("epochs = 2", &["train.steps=30"]).unwrap(), (Some(30), None));
    assert_eq!(resolve("steps = 30", &["train.epochs=2"]).unwrap(), (None, Some(2.0)));
    assert_eq!(resolve("steps = 30", &["train.seed=2"]).unwrap(), (Some(30), None));
    for (chosen, set) in [("steps = 30\nepochs = 2", &[][..]), ("seed = 3", &["train.steps=30", "train.epochs=2"])] {
        assert!(resolve(chosen, set).unwrap_err().to_string().contains("keep one"), "{chosen}");
    }
}

#[test]
fn a_value_of_the_wrong_type_is_refused_with_its_key() {
    assert!(refused("[train]\nmethod = \"sft\"\nlearning_rate = \"fast\"\n", &[]).contains("train.learning_rate"));
    let message = refused("[train]\nmethod = \"rft\"\n", &["grpo.loss_type=ppo"]);
    assert!(message.contains("grpo.loss_type") && message.contains("dapo"), "{message}");
    assert!(refused("[train]\nmethod = \"rft\"\nbatch_size = -1\n", &[]).contains("train.batch_size"));
    assert!(refused("[train\n", &[]).contains("line 1"));
}

#[test]
fn a_value_out_of_range_is_refused_with_the_file() {
    let sft = "[train]\nmethod = \"sft\"\nbatch_size = 0\n";
    let said = "train.batch_size = 0: must be from 1 to 65536";
    assert_eq!(refused(sft, &[]), format!("x.toml: {said}"));
    assert_eq!(refused(sft, &["train.seed=3"]), format!("x.toml and --set: {said}"));
    assert!(refused("seed = 3", &[]).starts_with("x.toml"), "{}", refused("seed = 3", &[]));
}

#[test]
fn contradictions_are_refused_before_any_work() {
    let sft = "[train]\nmethod = \"sft\"\n";
    let rft = "[train]\nmethod = \"rft\"\n";
    assert!(refused(sft, &["grpo.beta=0.1"]).contains("no effect"));
    assert!(refused(sft, &["train.steps=5", "train.epochs=2"]).contains("keep one"));
    assert!(refused(rft, &["rollout.num_generations=1"]).contains("at least 2"));
    assert!(refused(rft, &["rollout.temperature=0"]).contains("above 0"));
    assert!(refused(rft, &["grpo.delta=1.1"]).contains("grpo.delta"));
    assert!(refused(rft, &["grpo.num_iterations=2", "train.steps=5"]).contains("give 6"));
    assert!(refused(rft, &["grpo.loss_type=cispo"]).contains("epsilon_high"));
    assert!(
        refused(rft, &["reward.partial_credit=0", "reward.accuracy=0", "reward.format=0"]).contains("nothing to learn")
    );
    assert!(refused("", &[]).contains("--method"));
    let e = TrainConfig::from_text(Some(Method::Rft), Some(("x.toml", sft)), &[]).unwrap_err();
    assert!(e.to_string().contains("contradicts"));
}

#[test]
fn replay_and_refresh_are_checked_against_the_size_of_a_step() {
    let sft = "[train]\nmethod = \"sft\"\n";
    let resolve = |set: &[&str]| TrainConfig::from_text(None, Some(("x.toml", sft)), &sets(set));
    let c =
        resolve(&["sft.replay=prior", "train.batch_size=4", "train.gradient_accumulation_steps=2", "train.epochs=1"])
            .unwrap();
    assert_eq!((c.replayed_per_round(), c.total_steps(60)), (2, 10));
    assert!(refused(sft, &["sft.replay=prior", "train.batch_size=1"]).contains("sft.replay_share = 0.25: of the 1"));
    assert!(refused(sft, &["sft.replay=prior", "sft.replay_share=1"]).contains("below 1"));
    assert!(refused(sft, &["sft.replay_share=0.5"]).contains("without sft.replay"));
    assert!(refused(sft, &["sft.max_per_prompt=2"]).contains("without sft.resample_every"));
    assert!(refused(sft, &["sft.kl_coef=-1"]).contains("sft.kl_coef"));
    assert!(refused(sft, &["rollout.num_generations=4"]).contains("sft.resample_every"));
    assert!(refused(sft, &["sft.resample_every=0", "rollout.num_generations=4"]).contains("no effect"));
    assert!(refused("[train]\nmethod = \"rft\"\n", &["sft.resample_every=4"]).contains("no effect"));
    let c = resolve(&["sft.resample_every=5", "rollout.num_generations=1", "rollout.max_new_tokens=32"]).unwrap();
    let rollout = c.rollout.as_ref().unwrap();
    assert_eq!((rollout.num_generations, rollout.max_new_tokens, rollout.temperature), (1, 32, 1.0));
    let text = c.to_toml().unwrap();
    assert_eq!(TrainConfig::from_text(None, Some(("config.toml", &text)), &[]).unwrap(), c);
    assert_eq!((resolve(&[]).unwrap().rollout, resolve(&[]).unwrap().replayed_per_round()), (None, 0));
}

#[test]
fn losses_and_penalties_name_what_they_need() {
    let sft = "[train]\nmethod = \"sft\"\n";
    let resolve = |set: &[&str]| TrainConfig::from_text(None, Some(("x.toml", sft)), &sets(set));
    let said = |set: &[&str], part: &str| {
        let message = refused(sft, set);
        assert!(message.contains(part), "{set:?}: {message}");
    };
    said(&["sft.minibatches=4"], "sft.minibatches has no effect without sft.loss_type = \"psft\"");
    said(&["sft.epsilon_high=0.1"], "sft.epsilon_high has no effect");
    said(&["sft.loss_type=psft"], "sft.minibatches = 1: must be at least 2");
    said(&["sft.loss_type=psft", "sft.minibatches=4", "train.steps=6"], "give 8");
    said(&["sft.loss_type=psft", "sft.minibatches=4", "sft.resample_every=4"], "cannot be combined");
    said(&["sft.loss_type=psft", "sft.minibatches=4", "lora.rank=4", "lora.dropout=0.1"], "lora.dropout = 0.1");
    said(&["sft.keep=all"], "sft.keep has no effect without sft.resample_every");
    said(&["sft.loss_type=sdft"], "sft.keep = \"all\"");
    said(&["sft.loss_type=sdft", "sft.resample_every=1"], "sft.keep = \"all\"");
    let own = ["sft.loss_type=sdft", "sft.resample_every=1", "sft.keep=all"];
    said(&[&own[..], &["sft.kl_coef=1"]].concat(), "sft.kl_coef cannot be combined");
    said(&[&own[..], &["sft.replay=there"]].concat(), "sft.replay cannot be combined");
    assert!(resolve(&own).unwrap().resamples());
    said(&["prior_kl.coef=1"], "prior_kl.data is empty");
    said(&["prior_kl.data=there", "prior_kl.coef=0"], "prior_kl.coef = 0");
    said(&["prior_kl.data=there", "prior_kl.batch_size=0"], "prior_kl.batch_size = 0");
    said(&["train.l2_sp=-1"], "train.l2_sp = -1");
    said(&["train.l2_sp=0.1", "lora.rank=4"], "no meaning with [lora]");
    let c = resolve(&["sft.loss_type=psft", "sft.minibatches=4", "train.batch_size=4", "sft.replay=there"]).unwrap();
    assert_eq!((c.examples_per_round(), c.replayed_per_round(), c.steps_per_round()), (16, 4, 4));
    assert_eq!(c.total_steps(24), 8, "12 own examples a round");
    let c = resolve(&["prior_kl.data=there"]).unwrap();
    assert_eq!(c.prior_kl.as_ref().map(|prior| (prior.coef, prior.batch_size)), Some((1.0, 2)));
    let text = c.to_toml().unwrap();
    assert_eq!(TrainConfig::from_text(None, Some(("config.toml", &text)), &[]).unwrap(), c);
    assert_eq!(resolve(&[]).unwrap().prior_kl, None);
}

#[test]
fn criteria_need_the_evaluations_that_they_are_about() {
    let sft = "[train]\nmethod = \"sft\"\n";
    assert!(refused(sft, &["train.save_best=true", "eval.steps=0"]).contains("train.save_best needs evaluations"));
    assert!(refused(sft, &["eval.prior=there", "eval.steps=0"]).contains("eval.prior needs evaluations"));
    assert!(refused(sft, &["train.stop_when_forgotten=0.02"]).contains("eval.prior = \"DIR\""));
    let percent = refused(sft, &["eval.prior=there", "train.stop_when_forgotten=2"]);
    assert!(percent.contains("train.stop_when_forgotten = 2: must be a share in [0, 1)"), "{percent}");
    let sets = sets(&["eval.prior=there", "train.stop_when_forgotten=0"]);
    let c = TrainConfig::from_text(None, Some(("x.toml", sft)), &sets).unwrap();
    assert_eq!(c.train.stop_when_forgotten, Some(0.0));
    let text = c.to_toml().unwrap();
    assert_eq!(TrainConfig::from_text(None, Some(("config.toml", &text)), &[]).unwrap(), c);
}

#[test]
fn the_written_plan_reads_back_as_the_same_plan() {
    for method in [Method::Sft, Method::Rft] {
        let plan = TrainConfig::from_text(Some(method), None, &sets(&["train.steps=6", "train.seed=9"])).unwrap();
        let text = plan.to_toml().unwrap();
        assert_eq!(TrainConfig::from_text(None, Some(("config.toml", &text)), &[]).unwrap(), plan);
    }
}

#[test]
fn every_optional_key_can_be_written() {
    let sets = sets(&["grpo.epsilon_high=0.28", "grpo.delta=4", "train.epochs=2.5"]);
    let c = TrainConfig::from_text(Some(Method::Rft), None, &sets).unwrap();
    let grpo = c.grpo.as_ref().unwrap();
    assert_eq!((grpo.epsilon_high, grpo.delta, c.train.epochs), (Some(0.28), Some(4.0), Some(2.5)));
    assert_eq!(c.total_steps(80), 25);
}

#[test]
fn differing_keys_are_named_with_both_values() {
    let a = toml::Table::try_from(TrainConfig::defaults(Method::Sft)).unwrap();
    let b = toml::Table::try_from(TrainConfig {
        ..TrainConfig::from_text(Some(Method::Sft), None, &sets(&["train.seed=3"])).unwrap()
    });
    let named = differences(&a, &b.unwrap());
    assert_eq!(named, ["train.epochs: (not set) -> 1.0", "train.seed: 0 -> 3"]);
}

#[test]
fn the_presets_are_accepted_as_they_are() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let mut seen = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("sft") || name.starts_with("rft") {
            TrainConfig::resolve(None, Some(&path), &[]).unwrap_or_else(|e| panic!("{e}"));
            seen += 1;
        }
    }
    assert!(seen >= 4, "{seen} presets");
}

#[test]
fn names_of_other_programs_are_answered_with_what_does_the_same() {
    let table = [
        // transformers and TRL
        ("learning_rate", "did you mean train.learning_rate?"),
        ("train.max_steps", "did you mean train.steps?"),
        ("num_train_epochs", "did you mean train.epochs?"),
        ("train.per_device_train_batch_size", "did you mean train.batch_size?"),
        ("per_device_eval_batch_size", "did you mean eval.batch_size?"),
        ("gradient_accumulation_steps", "did you mean train.gradient_accumulation_steps?"),
        ("sft.gradient_checkpointing", "did you mean train.gradient_checkpointing?"),
        ("lr_scheduler_type", "did you mean train.lr_scheduler_type?"),
        ("warmup_steps", "did you mean train.warmup_steps?"),
        ("train.warmup_ratio", "train.warmup_steps = 0.1"),
        ("adam_beta2", "did you mean train.betas?"),
        ("train.adam_epsilon", "did you mean train.eps?"),
        ("max_grad_norm", "did you mean train.max_grad_norm?"),
        ("train.bf16", "train.dtype = \"bf16\""),
        ("seed", "did you mean train.seed?"),
        ("train.eval_steps", "did you mean eval.steps?"),
        ("train.load_best_model_at_end", "did you mean train.save_best?"),
        ("save_total_limit", "did you mean train.save_total_limit?"),
        ("max_length", "did you mean train.max_length?"),
        ("train.optim", "AdamW is the only optimizer"),
        ("train.output_dir", "--out DIR"),
        ("report_to", "--metrics-command"),
        ("grpo.num_generations", "did you mean rollout.num_generations?"),
        ("grpo.max_completion_length", "did you mean rollout.max_new_tokens?"),
        ("grpo.temperature", "did you mean rollout.temperature?"),
        ("beta", "did you mean grpo.beta?"),
        ("train.epsilon_high", "did you mean sft.epsilon_high or grpo.epsilon_high?"),
        ("grpo.epsilon_low", "did you mean grpo.epsilon?"),
        ("rollout.num_iterations", "did you mean grpo.num_iterations?"),
        ("grpo.steps_per_generation", "write grpo.minibatches"),
        ("grpo.reward_weights", "reward.accuracy"),
        ("grpo.use_vllm", "remove it"),
        ("importance_sampling_level", "did you mean grpo.importance_sampling_level?"),
        ("grpo.gspo", "grpo.importance_sampling_level = \"sequence\""),
        ("loss_type", "did you mean sft.loss_type or grpo.loss_type?"),
        // PEFT, LLaMA-Factory, verl and what people say
        ("lora.r", "did you mean lora.rank?"),
        ("lora.lora_alpha", "did you mean lora.alpha?"),
        ("lora.target_modules", "did you mean lora.target?"),
        ("train.lora_rank", "did you mean lora.rank?"),
        ("train.cutoff_len", "did you mean train.max_length?"),
        ("train.max_samples", "did you mean train.max_examples?"),
        ("train.finetuning_type", "a section [lora]"),
        ("train.freeze_vision_tower", "train.freeze = [\"vision\"]"),
        ("lr", "did you mean train.learning_rate?"),
        ("train.lr", "did you mean train.learning_rate?"),
        ("grpo.kl_coef", "grpo.beta with method rft"),
        ("grpo.clip_ratio_high", "did you mean grpo.epsilon_high?"),
        ("actor.ppo_epochs", "did you mean grpo.num_iterations?"),
        ("num_epochs", "did you mean train.epochs?"),
        ("grpo.group_size", "did you mean rollout.num_generations?"),
    ];
    for (name, said) in table {
        let message = refused("[train]\nmethod = \"rft\"\n", &[&format!("{name}=1")]);
        assert!(
            message.starts_with(&format!("--set {name}=1: unknown key {name}; ")) && message.contains(said),
            "{message}"
        );
        let (section, key) = name.rsplit_once('.').unwrap_or_default();
        if section.is_empty() {
            let message = refused(&format!("{name} = 1\n[train]\nmethod = \"rft\"\n"), &[]);
            assert!(
                message.starts_with(&format!("x.toml:1: unknown key {name}; ")) && message.contains(said),
                "{message}"
            );
        } else {
            let message = refused(&format!("[{section}]\n{key} = 1\n"), &[]);
            // A section that does not exist is what the file is refused for.
            let place = if section == "actor" { "x.toml:1: unknown key actor" } else { "x.toml:2: unknown key" };
            assert!(message.starts_with(place) && (section == "actor" || message.contains(said)), "{message}");
        }
    }
}

#[test]
fn values_of_other_programs_are_answered_with_what_does_the_same() {
    for (set, said) in [
        ("grpo.loss_type=gspo", "grpo.importance_sampling_level = \"sequence\""),
        ("train.lr_scheduler_type=constant_with_warmup", "train.warmup_steps"),
        ("train.dtype=bfloat16", "write \"bf16\""),
        ("train.freeze=vision", "must be a list in brackets"),
        ("train.seed=99999999999999999999", "too large"),
        ("train.betas=[0.9]", "must be a list of 2 values"),
        ("lora.target=3", "must be text in quotes or a list of names"),
        ("train.save_best=yes", "must be true or false"),
        ("train.batch_size=1.5", "must be a whole number, 0 or more"),
    ] {
        let message = refused("[train]\nmethod = \"rft\"\n", &[set]);
        assert!(
            message.contains(said)
                && message.starts_with(&format!("x.toml and --set: {}", &set[..set.find('=').unwrap()])),
            "{message}"
        );
    }
}

#[test]
fn a_server_for_rollouts_needs_an_adapter_and_is_refused_with_what_cannot_be() {
    let rft = "[train]\nmethod = \"rft\"\n[lora]\nrank = 16\n[rollout]\nserver = \"http://a:8000\"\n";
    let plan = |set: &[&str]| TrainConfig::from_text(None, Some(("x.toml", rft)), &sets(set)).unwrap();
    let rollout = plan(&[]).rollout.unwrap();
    let server = rollout.server_settings().unwrap();
    let addresses: Vec<&str> = server.endpoints.iter().map(|endpoint| endpoint.url.as_str()).collect();
    assert_eq!((addresses, server.max_staleness), (vec!["http://a:8000/v1"], 0));
    let written = plan(&[]).to_toml().unwrap();
    assert!(
        written.contains("server_timeout = 300.0\nmax_sampler_gap = 0.1\nmax_sampler_ratio = 3.0\nmax_staleness = 0\n")
    );
    let rollout =
        plan(&["rollout.server=[\"http://a:8000/v1\", \"https://b/v1/\"]", "rollout.max_staleness=16"]).rollout;
    let server = rollout.as_ref().and_then(|rollout| rollout.server_settings()).unwrap();
    let addresses: Vec<&str> = server.endpoints.iter().map(|endpoint| endpoint.url.as_str()).collect();
    assert_eq!((addresses, server.max_staleness), (vec!["http://a:8000/v1", "https://b/v1"], 16));
    for (set, parts) in [
        ("rollout.server=a:8000", ["rollout.server a:8000/v1", "no address"]),
        ("rollout.server=[]", ["rollout.server", "names no address"]),
        ("rollout.server=[\"http://a:1\", \"http://a:1/v1\"]", ["rollout.server", "twice"]),
        ("rollout.server=3", ["rollout.server = 3", "an address in quotes or a list"]),
        ("rollout.top_p=0.9", ["rollout.top_p", "rollout.server"]),
        ("rollout.top_k=20", ["rollout.top_k", "rollout.server"]),
        ("rollout.max_staleness=17", ["rollout.max_staleness = 17", "at most 16"]),
        ("rollout.max_sampler_gap=0", ["rollout.max_sampler_gap = 0", "above 0"]),
        ("rollout.max_sampler_ratio=0.5", ["rollout.max_sampler_ratio = 0.5", "at least 1"]),
        ("rollout.server_timeout=nan", ["rollout.server_timeout = NaN", "above 0"]),
        ("rollout.adapter_dir_on_server=/x", ["rollout.adapter_dir_on_server", "needs rollout.adapter_dir"]),
        ("lora.rank=513", ["lora.rank = 513", "at most 512"]),
    ] {
        let message = refused(rft, &[set]);
        parts.iter().for_each(|part| assert!(message.contains(part), "{set}: {message}"));
    }
    let replaced = refused(rft, &["rollout.max_staleness=2", "grpo.dynamic_sampling=1"]);
    assert!(replaced.contains("rollout.max_staleness = 2 cannot be combined with grpo.dynamic_sampling"), "{replaced}");
    plan(&["rollout.max_staleness=1", "grpo.dynamic_sampling=1"]);
    let without = refused("[train]\nmethod = \"rft\"\n", &["rollout.server=http://a:8000"]);
    assert!(without.contains("rollout.server needs a section [lora]"), "{without}");
    let alone = refused("[train]\nmethod = \"rft\"\n", &["rollout.max_staleness=0"]);
    assert!(alone.contains("rollout.max_staleness has no effect without rollout.server"), "{alone}");
    let sft = "[train]\nmethod = \"sft\"\n[sft]\nresample_every = 5\n[lora]\nrank = 8\n";
    let message = refused(sft, &["rollout.server=http://a:8000"]);
    assert!(message.contains("rollout.server needs train.method = \"rft\""), "{message}");
}
