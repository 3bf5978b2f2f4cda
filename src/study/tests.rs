//! The plan of a file: commands, what they need, and what is refused.

use super::*;
use crate::train::settings::TrainConfig;
use std::path::Path;

const SMALL: &str = r#"
[study]
title = "A small study"
base = "data/base-tiny"
seeds = [1, 2]

[puzzles.bare]
images = "scenes"
grid = "2x2"
count = 400
question_first = true

[puzzles.thought]
images = "scenes"
grid = "2x2"
count = 400
style = "think"

[prior]
suite = "vqa,pope,lists:2"
count = 100

[benchmarks]
mine = "MINE.tsv:vqa"

[rollouts.grpo]
from = "rft@1e-4"
data = "thought"
num_generations = 4
max_per_prompt = 2

[rollouts.foreign]
data = "thought"
teacher = "scripted"

[regimes.rft]
about = "GRPO"
method = "rft"
data = "thought"
learning_rate = [5e-5, 1e-4]
[regimes.rft.train]
steps = 10
[regimes.rft.rollout]
num_generations = 4

[regimes.sft]
method = "sft"
data = "bare"
learning_rate = 1e-3
[regimes.sft.train]
steps = 20
batch_size = 8
[regimes.sft.sft]
replay = "prior"

[regimes.grpo-rollout]
method = "sft"
data = "grpo"
learning_rate = 1e-5
train = { epochs = 1 }

[regimes.wise-ft]
interpolate = "sft"
alpha = [0.25, 0.5]

[eval]
checkpoints = 2
limit = 20
kl_prompts = 8

[dynamics]
pairs = 4
train = ["bare", "grpo"]
prior = ["vqa-direct", "mine"]
over = ["sft"]
"#;

fn study(sets: &[&str]) -> crate::Result<Study> {
    Study::from_text("study.toml", SMALL, &sets.iter().map(|s| s.to_string()).collect::<Vec<_>>(), TrainConfig::resolve)
}

fn planned(sets: &[&str]) -> crate::Result<Plan> {
    study(sets).and_then(|study| plan(&study, Path::new("out")))
}

fn command(plan: &Plan, task: &str) -> String {
    let found = plan.tasks.iter().find(|t| t.name == task);
    found.unwrap_or_else(|| panic!("{task} is none of {:?}", plan.tasks)).arguments().join(" ")
}

#[test]
fn each_task_is_a_command_and_comes_after_what_it_needs() {
    let plan = planned(&[]).unwrap();
    assert_eq!(
        command(&plan, "puzzles.bare"),
        "gen --images scenes --grid 2x2 --count 400 --question-first --out out/puzzles/bare --overwrite"
    );
    assert_eq!(
        command(&plan, "train.sft.lr-1e-3.seed-2"),
        "train --model data/base-tiny --data out/puzzles/bare --method sft --set train.steps=20 --set train.batch_size=8 \
         --set sft.replay=\"out/prior\" --set train.learning_rate=1e-3 --set train.seed=2 --out out/runs/sft.lr-1e-3.seed-2"
    );
    // From the point that is named, with the run's own seed.
    assert_eq!(
        command(&plan, "rollout.grpo.seed-2"),
        "rollout --model out/runs/rft.lr-1e-4.seed-2/model --data out/puzzles/thought --num-generations 4 --max-per-prompt 2 --seed 2 \
         --out out/rollouts/grpo.seed-2"
    );
    assert_eq!(
        command(&plan, "model.wise-ft.alpha-0.25.seed-1"),
        "model interpolate data/base-tiny out/runs/sft.lr-1e-3.seed-1/model --alpha 0.25 --overwrite --out out/models/wise-ft.alpha-0.25.seed-1"
    );
    assert_eq!(
        command(&plan, "solver.colour.bare"),
        "eval --solver colour --data out/puzzles/bare --limit 20 --out out/solvers/bare/colour"
    );
    assert!(!plan.find("solver.edges.bare").unwrap().command.uses_device());
    let comparison = command(&plan, "compare.sft.lr-1e-3.seed-1");
    assert!(
        comparison.starts_with(
            "eval --model out/runs/sft.lr-1e-3.seed-1/checkpoints/* out/runs/sft.lr-1e-3.seed-1/model --baseline \
             data/base-tiny --baseline-results out/base/bare --data out/puzzles/bare --bench vqa-direct=out/prior/bench/vqa-direct.tsv"
        ),
        "{comparison}"
    );
    assert!(
        comparison
            .ends_with("--bench mine=MINE.tsv:vqa --limit 20 --kl-prompts 8 --out out/compare/sft.lr-1e-3.seed-1"),
        "{comparison}"
    );
    assert!(
        !command(&plan, "compare.wise-ft.alpha-0.5.seed-1").contains("checkpoints"),
        "an interpolated model has no intermediate checkpoints"
    );
    let base = command(&plan, "base.thought");
    assert!(
        base.contains("--bench new-task=out/puzzles/thought")
            && !base.contains("--kl-prompts")
            && !base.contains("lists")
    );
    for (i, task) in plan.tasks.iter().enumerate() {
        for need in &task.needs {
            assert!(plan.tasks[..i].iter().any(|t| t.name == *need), "{} comes before {need}", task.name);
        }
    }
    assert!(!plan.tasks.iter().any(|task| task.name.starts_with("rollout.foreign")), "nobody asked for it");
    assert_eq!(plan.index.runs.len(), 2 * (2 + 1 + 1 + 2));
    assert_eq!(
        plan.index.regimes.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(),
        ["rft", "sft", "grpo-rollout", "wise-ft"]
    );
    let run = plan.index.runs.iter().find(|run| run.name == "grpo-rollout.lr-1e-5.seed-2").unwrap();
    assert_eq!(run.data.as_deref(), Some(Path::new("rollouts/grpo.seed-2")));
}

#[test]
fn every_setting_of_a_section_is_a_flag_of_its_command() {
    let plan = planned(&[
        "puzzles.bare.split=\"0.7,0.2,0.1\"",
        "puzzles.bare.scenes=0.0",
        "puzzles.bare.tile_any=true",
        "puzzles.bare.preview=3",
        "rollouts.grpo.temperature=0.7",
        "rollouts.grpo.keep=well-formed",
        "eval.batch_size=4",
        "dynamics.eta=1e-3",
        "dynamics.learning_rate=5e-4",
        "dynamics.on_policy=grpo",
        "dynamics.loss=sum",
        "dynamics.freeze=[\"vision\"]",
        "dynamics.prior_split=dev",
    ]);
    let plan = plan.unwrap();
    assert_eq!(
        command(&plan, "puzzles.bare"),
        "gen --images scenes --grid 2x2 --tile-any --count 400 --question-first --preview 3 --split 0.7,0.2,0.1 \
         --out out/puzzles/bare --overwrite"
    );
    assert_eq!(command(&plan, "prior"), "gen --suite vqa,pope,lists:2 --count 100 --out out/prior --overwrite");
    assert_eq!(
        command(&plan, "rollout.grpo.seed-1"),
        "rollout --model out/runs/rft.lr-1e-4.seed-1/model --data out/puzzles/thought --num-generations 4 --temperature 0.7 \
         --keep well-formed --max-per-prompt 2 --seed 1 --out out/rollouts/grpo.seed-1"
    );
    assert!(command(&plan, "base.bare").ends_with("--limit 20 --batch-size 4 --out out/base/bare"));
    let over = command(&plan, "dynamics.sft.lr-1e-3.seed-1");
    let models = "dynamics --model data/base-tiny out/runs/sft.lr-1e-3.seed-1/checkpoints/* out/runs/sft.lr-1e-3.seed-1/model \
                  --base data/base-tiny --train bare=out/puzzles/bare grpo=out/rollouts/grpo.seed-1 --prior \
                  vqa-direct=out/prior/bench/vqa-direct.tsv mine=MINE.tsv:vqa";
    let flags = "--pairs 4 --eta 0.001 --learning-rate 0.0005 --on-policy grpo --loss sum --freeze vision --prior-split dev --out \
         out/dynamics/sft.lr-1e-3.seed-1";
    assert_eq!(over, format!("{models} {flags}"));
    assert!(command(&plan, "dynamics.base").contains("--forgetting out/compare/rft.lr-5e-5.seed-1 "));
}

#[test]
fn held_out_prior_prompts_are_a_split_of_the_suite() {
    let plan = planned(&["prior.split=\"0.7,0.1,0.2\"", "eval.prior_split=validation"]).unwrap();
    assert!(command(&plan, "compare.sft.lr-1e-3.seed-1").contains(" --prior prior=out/prior "));
    let train = planned(&["eval.prior_split=train"]).unwrap();
    assert!(command(&train, "compare.sft.lr-1e-3.seed-1").contains(" --prior prior=out/prior --prior-split train "));
    for (sets, said) in [
        (["prior.split=\"0.8,0,0.2\"", "eval.prior_split=validation"], "leaves no questions there"),
        (["prior.seed=3", "eval.prior_split=test"], "the benchmarks are of \"test\""),
        (["prior.seed=3", "eval.prior_split=dev"], "give \"train\" or \"validation\""),
    ] {
        let error = planned(&sets).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains(said), "{error}");
        assert!(error.to_string().contains("[eval]: prior_split = "), "{error}");
    }
}

#[test]
fn a_recovery_trains_the_model_of_each_run_and_compares_it_with_the_base() {
    let plan =
        planned(&["recovery.learning_rate=2e-4", "recovery.regimes=[\"sft\"]", "recovery.examples=[10,50]"]).unwrap();
    assert_eq!(
        command(&plan, "train.sft.lr-1e-3.seed-1.recovery-10"),
        "train --model out/runs/sft.lr-1e-3.seed-1/model --data out/prior --method sft --set train.steps=20 --set train.batch_size=10 \
         --set train.max_examples=10 --set train.lr_scheduler_type=\"constant\" --set train.save_steps=0 --set eval.steps=0 \
         --set train.learning_rate=2e-4 --set train.seed=1 --out out/recovery/sft.lr-1e-3.seed-1/examples-10"
    );
    let compare = command(&plan, "compare.sft.lr-1e-3.seed-2.recovery-50");
    assert!(
        compare.starts_with("eval --model out/recovery/sft.lr-1e-3.seed-2/examples-50/model --baseline data/base-tiny"),
        "{compare}"
    );
    assert!(compare.ends_with("--kl-prompts 0 --out out/recovery/sft.lr-1e-3.seed-2/compare-50"), "{compare}");
    let recovering: Vec<&str> = plan.index.recoveries.iter().map(|recovery| recovery.run.as_str()).collect();
    assert_eq!(recovering.len(), 4, "two seeds, two numbers of examples: {recovering:?}");
    assert!(recovering.iter().all(|run| run.starts_with("sft.lr-1e-3.seed-")));
    let report = plan.find("report").unwrap();
    assert!(report.needs.contains(&"compare.sft.lr-1e-3.seed-1.recovery-50".to_string()));
    assert!(planned(&["recovery.steps=5"]).unwrap().index.recoveries.len() > 4, "every measured run");
    for (set, said) in [
        ("recovery.examples=[]", "give at least one number"),
        ("recovery.examples=[10,10]", "given twice"),
        ("recovery.regimes=[]", "name at least one"),
        ("recovery.regimes=[\"sft\", \"nowhere\"]", "there is no [regimes.nowhere]"),
        ("recovery.data=nowhere", "no puzzles and no rollouts of this name"),
        ("recovery.regimes=[\"nowhere\"]", "there is no [regimes.nowhere]"),
        ("recovery.learning_rate=2.0", "train.learning_rate"),
        ("recovery.stepz=5", "did you mean steps"),
    ] {
        let error = planned(&[set]).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains(said), "{set}: {error}");
    }
}

#[test]
fn work_is_counted_by_kind() {
    let plan = planned(&[]).unwrap();
    let work = |name: &str| plan.tasks.iter().find(|t| t.name == name).unwrap().work;
    assert_eq!(work("train.sft.lr-1e-3.seed-1"), TaskSize { kind: TaskKind::Sft, units: 160.0 });
    let rft = work("train.rft.lr-1e-4.seed-1");
    assert_eq!(rft.kind, TaskKind::Rft);
    assert!(rft.units >= 40.0);
    // Three models, 20 questions of five benchmarks and of the new task.
    assert_eq!(work("compare.sft.lr-1e-3.seed-1"), TaskSize { kind: TaskKind::Respond, units: 3.0 * 20.0 * 6.0 });
}

#[test]
fn a_wave_needs_only_earlier_ones() {
    let plan = planned(&[]).unwrap();
    let waves = plan.waves();
    assert_eq!(waves.iter().map(Vec::len).sum::<usize>(), plan.tasks.len());
    let wave = |name: &str| waves.iter().position(|wave| wave.iter().any(|t| t.name == name)).unwrap();
    for task in &plan.tasks {
        assert!(task.needs.iter().all(|need| wave(need) < wave(&task.name)), "{}", task.name);
    }
    assert_eq!((wave("prior"), waves.len() - 1), (0, wave("report")));
}

#[test]
fn a_regime_may_go_on_from_another_that_is_not_shown() {
    let plan = planned(&["regimes.rft.start=sft", "regimes.sft.measured=false"]).unwrap();
    assert!(command(&plan, "train.rft.lr-5e-5.seed-2").contains("--model out/runs/sft.lr-1e-3.seed-2/model"));
    assert!(!plan.index.regimes.iter().any(|regime| regime.name == "sft"));
    assert!(!plan.tasks.iter().any(|task| task.name.starts_with("compare.sft")));
}

#[test]
fn what_does_not_fit_is_refused_with_its_section() {
    for (set, named) in [
        ("regimes.rft.data=nothing", "study.toml:36: [regimes.rft]: data = \"nothing\""),
        ("regimes.rft.start=rft", "starts from itself"),
        ("rollouts.grpo.from=rft@3e-4", "rft@5e-5, rft@1e-4"),
        ("rollouts.grpo.from=raft", "there is no [regimes.raft]; there are rft, sft"),
        ("regimes.sft.train.stesp=3", "train.steps"),
        ("regimes.sft.method=dpo", "method = \"dpo\""),
        ("regimes.sft.test=foreign", "there is no [puzzles.foreign]"),
        ("regimes.wise-ft.learning_rate=1e-3", "interpolate goes with alpha"),
        ("regimes.sft.alpha=0.5", "alpha is for interpolate"),
        ("puzzles.bare.out=x", "the study sets this itself"),
        ("dynamics.prior=[\"vpa\"]", "no benchmark is called \"vpa\"; there are vqa-direct"),
        ("dynamics.over=[\"x\"]", "[regimes.x]"),
        ("eval.model=x", "the study sets this itself"),
        ("regimes.sft.learning_rate=fast", "learning_rate = \"fast\": must be a number or a list of numbers"),
        ("regimes.sft.learning_rate=[]", "learning_rate = []: an empty list"),
        ("regimes.sft.train.seed=9", "train.seed: the study sets this itself"),
        ("regimes.sft.train.learning_rate=9", "learning_rate and train.learning_rate are the same"),
        ("study.seeds=[-1]", "[study]: seeds = [-1]: "),
        ("study.title=5", "[study]: title = 5: "),
        ("eval.checkpoints=-1", "[eval]: checkpoints = -1: "),
        ("study.seeds=[]", "seeds = []"),
        ("study.seeds=[1,2,1]", "[study]: seeds: 1 is given twice"),
        ("regimes.sft.seeds=[3,3]", "[regimes.sft]: seeds: 3 is given twice"),
        ("regimes.rft.learning_rate=[1e-4,5e-5,1e-4]", "[regimes.rft]: learning_rate: 0.0001 is given twice"),
        ("regimes.wise-ft.alpha=[0.5,0.5]", "[regimes.wise-ft]: alpha: 0.5 is given twice"),
        ("regimes.sft.lora.rank=4", "[regimes.wise-ft]: interpolate = \"sft\": that regime trains an adapter"),
        ("study.sedes=[1]", "sedes"),
        ("stduy.title=x", "unknown section [stduy]"),
        ("study.title.x=1", "study.title is a value"),
        ("puzzles.sft.grid=2x2", "this name is taken"),
        ("prior.suite=3", "suite is missing"),
        ("prior.suite=riddles", "no family is named `riddles`"),
        ("puzzles.bare.gird=2x2", "[puzzles.bare]: unknown key gird; did you mean grid?"),
        ("puzzles.bare.tile=50", "[puzzles.bare]: tile 50"),
        ("eval.limit=0", "--limit 0"),
        ("dynamics.pairs=0", "--pairs 0"),
        ("rollouts.grpo.temperature=0", "--num-generations above 1 needs --temperature above 0"),
        ("rollouts.grpo.teacher=scripted", "--teacher cannot be used with --model"),
        ("regimes.wise-ft.alpha=2", "alpha 2"),
    ] {
        let error = planned(&[set]).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{set}");
        assert!(error.to_string().contains(named), "{set}: {error}");
    }
    let none = Study::from_text("s.toml", "[study]\nbase = \"b\"\n", &[], TrainConfig::resolve).unwrap_err();
    assert!(none.to_string().contains("no regime"), "{none}");
    let broken = Study::from_text("s.toml", "[study\n", &[], TrainConfig::resolve).unwrap_err();
    assert!(broken.to_string().contains("line 1"), "{broken}");
}

#[test]
fn intermediate_checkpoints_are_evenly_spread_without_the_last() {
    let dir = tempfile::tempdir().unwrap();
    for step in [2, 4, 6, 8, 10] {
        std::fs::create_dir_all(dir.path().join(format!("checkpoints/step-{step:08}"))).unwrap();
    }
    std::fs::write(dir.path().join("finished.json"), r#"{"step":10}"#).unwrap();
    let steps = |most| -> Vec<String> {
        let found = CheckpointChoice { run: dir.path().into(), most }.find(TrainConfig::resolve).unwrap();
        found
            .iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap()[5..].trim_start_matches('0').to_string())
            .collect()
    };
    assert_eq!(steps(9), ["2", "4", "6", "8"]);
    assert_eq!(steps(2), ["4", "8"]);
    assert_eq!(steps(1), ["6"]);
    assert!(CheckpointChoice { run: dir.path().join("none"), most: 1 }.find(TrainConfig::resolve).is_err());
    // Steps 3 and 7 are there because the run was stopped after them.
    for step in [3, 7] {
        std::fs::create_dir_all(dir.path().join(format!("checkpoints/step-{step:08}"))).unwrap();
    }
    let config = |text: &str| std::fs::write(dir.path().join("config.toml"), text).unwrap();
    assert_eq!(steps(9), ["2", "3", "4", "6", "7", "8"], "no settings to tell them by");
    config("[train]\nmethod = \"sft\"\nsave_steps = 2\n");
    assert_eq!(steps(9), ["2", "4", "6", "8"]);
    config("[train]\nmethod = \"sft\"\nsave_steps = 0\n");
    assert_eq!(steps(9).len(), 6);
    // Rounds of two steps: what is due at step 5 is saved after step 6.
    config("[train]\nmethod = \"rft\"\nsave_steps = 5\n[grpo]\nnum_iterations = 2\n");
    assert_eq!(steps(9), ["6"]);
}

#[test]
fn intermediate_checkpoints_are_spread_over_validation_accuracy_where_it_was_measured() {
    let dir = tempfile::tempdir().unwrap();
    // Learnt abruptly: by steps, the middle of the run is as bad as its start.
    let accuracies = [(0, 0.04), (2, 0.05), (4, 0.06), (6, 0.30), (8, 0.58), (10, 0.60)];
    let lines = |measured: &[(u64, f64)]| -> String {
        measured.iter().map(|(step, accuracy)| format!("{{\"step\":{step},\"eval/accuracy\":{accuracy}}}\n")).collect()
    };
    for (step, _) in &accuracies[1..] {
        std::fs::create_dir_all(dir.path().join(format!("checkpoints/step-{step:08}"))).unwrap();
    }
    std::fs::write(dir.path().join("finished.json"), r#"{"step":10}"#).unwrap();
    let steps = |measured: &[(u64, f64)], most| -> Vec<String> {
        std::fs::write(dir.path().join("metrics.jsonl"), lines(measured)).unwrap();
        let found = CheckpointChoice { run: dir.path().into(), most }.find(TrainConfig::resolve).unwrap();
        found
            .iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap()[5..].trim_start_matches('0').into())
            .collect()
    };
    assert_eq!(steps(&accuracies, 1), ["6"]);
    assert_eq!(steps(&accuracies, 2), ["6", "8"], "0.23 and 0.41 are wanted, and each is taken once");
    assert_eq!(steps(&accuracies[..3], 1), ["6"], "not all were measured: the middle of the steps");
    assert_eq!(steps(&accuracies, 4), ["2", "4", "6", "8"]);
}

#[test]
fn steps_at_a_rate_are_in_proportion_to_its_inverse() {
    let at = "regimes.rft.steps_at={ learning_rate = 1e-4, steps = 100, eval_steps = 20, most = 150 }";
    // Rounds of three steps.
    let rounds = "regimes.rft.grpo.num_iterations=3";
    let plan = study(&[at, rounds]);
    let said = plan.and_then(|study| super::plan(&study, Path::new("out"))).unwrap_err().to_string();
    assert!(said.contains("[regimes.rft]: steps_at: it takes the place of train.steps"), "{said}");
    let text = SMALL.replace("[regimes.rft.train]\nsteps = 10\n", "");
    let sets: Vec<String> = [at, rounds].map(String::from).to_vec();
    let read = |sets: &[String]| Study::from_text("study.toml", &text, sets, TrainConfig::resolve);
    let plan = super::plan(&read(&sets).unwrap(), Path::new("out")).unwrap();
    let (fast, slow) = (command(&plan, "train.rft.lr-1e-4.seed-1"), command(&plan, "train.rft.lr-5e-5.seed-1"));
    assert!(fast.contains("--set train.steps=99 ") && fast.contains("--set eval.steps=21 "), "{fast}");
    assert!(slow.contains("--set train.steps=150 ") && slow.contains("--set eval.steps=39 "), "{slow}");
    assert_eq!(plan.find("train.rft.lr-1e-4.seed-1").unwrap().work.units, 99.0 * 8.0 * 4.0);
    for (set, why) in [
        ("regimes.rft.steps_at={ learning_rate = 0, steps = 5 }", "learning_rate = 0: must be above 0"),
        ("regimes.rft.steps_at={ learning_rate = 1e-4, steps = 0 }", "must be at least 1"),
        ("regimes.rft.steps_at={ learning_rate = 1e-4 }", "`steps` is missing"),
        ("regimes.rft.steps_at={ lr = 1e-4, steps = 5 }", "unknown key lr"),
    ] {
        let error = read(&[set.to_string()]).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains(why), "{set}: {error}");
    }
}

#[test]
fn settings_of_training_may_name_data_of_the_study() {
    let plan = planned(&[
        "regimes.sft.train.prompts_of=grpo",
        "regimes.sft.eval.prior=prior",
        "regimes.sft.train.stop_when_forgotten=0.02",
    ]);
    let plan = plan.unwrap();
    let task = plan.find("train.sft.lr-1e-3.seed-2").unwrap();
    let said = task.arguments().join(" ");
    assert!(
        said.contains("train.prompts_of=\"out/rollouts/grpo.seed-2\"") && said.contains("eval.prior=\"out/prior\""),
        "{said}"
    );
    let answered =
        planned(&["rollouts.grpo.from=base", "rollouts.grpo.data=prior", "regimes.grpo-rollout.test=bare"]).unwrap();
    assert!(command(&answered, "rollout.grpo").contains("rollout --model data/base-tiny --data out/prior "));
    assert!(["rollout.grpo.seed-2", "prior"].iter().all(|need| task.needs.iter().any(|name| name == need)));
}

#[test]
fn files_of_the_users_are_inputs_of_the_tasks_that_read_them() {
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), "[train]\nweight_decay = 0.1\n").unwrap();
    let plan = planned(&[&format!("regimes.sft.config={:?}", file.path())]).unwrap();
    let inputs = |name: &str| -> Vec<String> {
        let task = plan.tasks.iter().find(|t| t.name == name).unwrap();
        task.inputs.iter().map(|input| input.path.display().to_string()).collect()
    };
    assert_eq!(inputs("train.sft.lr-1e-3.seed-2"), [file.path().display().to_string()]);
    assert!(inputs("train.rft.lr-1e-4.seed-1").is_empty() && inputs("puzzles.bare").is_empty());
    for name in ["base.bare", "compare.sft.lr-1e-3.seed-1", "dynamics.base"] {
        assert_eq!(inputs(name), ["MINE.tsv"], "{name}");
    }
    let most = |name: &str| plan.find(name).unwrap().checkpoints.as_ref().map(|checkpoints| checkpoints.most);
    assert_eq!((most("compare.sft.lr-1e-3.seed-1"), most("compare.wise-ft.alpha-0.5.seed-1")), (Some(2), None));
}

#[test]
fn the_studies_of_the_repository_can_be_planned() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = 0;
    for entry in std::fs::read_dir(root.join("configs")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !(name.starts_with("study-") || name.starts_with("paper-")) {
            continue;
        }
        found += 1;
        let mut study = Study::read(&path, &[], TrainConfig::resolve).unwrap();
        // Files that they name are named from the root of the repository.
        study
            .regimes
            .iter_mut()
            .for_each(|(_, regime)| regime.config = regime.config.take().map(|file| root.join(file)));
        plan(&study, Path::new("out")).unwrap();
    }
    assert!(found >= 4, "{found}");
}

#[test]
fn puzzles_that_differ_in_their_wording_alone_are_known_to_be_the_same() {
    let same = |sets: &[&str]| planned(sets).unwrap().index.same_puzzles;
    assert_eq!(same(&[]), [["bare", "thought"]]);
    let other: [[&str; 2]; 0] = [];
    for set in [
        "puzzles.bare.grid=\"3x3\"",
        "puzzles.bare.seed=8",
        "puzzles.thought.count=500",
        "puzzles.bare.split=\"0.8,0.1,0.1\"",
    ] {
        assert_eq!(same(&[set]), other, "{set}");
    }
    assert_eq!(same(&["puzzles.thought.preview=4"]), [["bare", "thought"]]);
    for run in planned(&[]).unwrap().index.runs {
        let bare = ["sft", "wise-ft"].contains(&run.regime.as_str());
        assert_eq!(run.new_task.as_deref(), Some(if bare { "bare" } else { "thought" }), "{}", run.name);
    }
}
