//! The plan of tasks in a row, and what is refused.

use super::*;
use crate::train::settings::TrainConfig;
use std::path::Path;

const SMALL: &str = r#"
[study]
base = "data/base-tiny"
seeds = [1, 2]

[puzzles.row]
images = "scenes"
grid = "1x3"
count = 40

[puzzles.sums]
task = "countdown"
numbers = "2"
count = 40

[puzzles.shades]
suite = "order"
count = 40
seed = 9

[prior]
suite = "vqa,pope"
count = 40

[sequence]
tasks = ["row", "sums", "shades"]
methods = ["sft", "replay", "lora"]

[regimes.sft]
method = "sft"
learning_rate = 1e-3
train = { steps = 8 }

[regimes.replay]
about = "a quarter of the examples from tasks before"
method = "sft"
learning_rate = 1e-3
train = { steps = 8, mix = ["earlier:0.5"] }

[regimes.lora]
method = "sft"
learning_rate = 2e-3
train = { steps = 8 }
lora = { rank = 4 }

[eval]
limit = 10
"#;

fn planned(text: &str, sets: &[&str]) -> crate::Result<Plan> {
    let sets: Vec<String> = sets.iter().map(|s| s.to_string()).collect();
    plan(&Study::from_text("study.toml", text, &sets, TrainConfig::resolve)?, Path::new("out"))
}

fn task<'a>(plan: &'a Plan, name: &str) -> &'a StudyTask {
    plan.find(name).unwrap_or_else(|| {
        panic!("{name} is none of {:?}", plan.tasks.iter().map(|task| task.name.as_str()).collect::<Vec<_>>())
    })
}

#[test]
fn a_sequence_is_ordinary_training_of_each_stage_from_the_one_before() {
    let plan = planned(SMALL, &[]).unwrap();
    let command = |name: &str| task(&plan, name).arguments().join(" ");
    assert_eq!(
        command("train.sft-2-sums.lr-1e-3.seed-2"),
        "train --model out/runs/sft-1-row.lr-1e-3.seed-2/model --data out/puzzles/sums --method sft --set train.steps=8 \
         --set train.learning_rate=1e-3 --set train.seed=2 --out out/runs/sft-2-sums.lr-1e-3.seed-2"
    );
    // Nothing comes before the first task, so replay begins as SFT does, and that run serves both.
    assert!(plan.find("train.replay-1-row.lr-1e-3.seed-1").is_none());
    let second = command("train.replay-2-sums.lr-1e-3.seed-1");
    assert!(
        second.contains("--model out/runs/sft-1-row.lr-1e-3.seed-1/model")
            && second.contains("[\"out/puzzles/row:0.5\"]"),
        "{second}"
    );
    let third = command("train.replay-3-shades.lr-1e-3.seed-1");
    assert!(third.contains("[\"out/puzzles/row:0.25\", \"out/puzzles/sums:0.25\"]"), "{third}");
    // One adapter learns all tasks.
    assert!(command("train.lora-1-row.lr-2e-3.seed-1").contains("--set lora.rank=4"));
    assert!(!command("train.lora-2-sums.lr-2e-3.seed-1").contains("lora.rank"));
    let measured = command("compare.replay-2-sums.lr-1e-3.seed-1");
    assert_eq!(
        measured,
        "eval --model out/runs/replay-2-sums.lr-1e-3.seed-1/model --baseline data/base-tiny --baseline-results out/sequence/base --bench \
         row=out/puzzles/row --bench sums=out/puzzles/sums --bench shades=out/puzzles/shades --bench vqa-direct=out/prior/bench/vqa-direct.tsv \
         --bench vqa-think=out/prior/bench/vqa-think.tsv --bench pope-direct=out/prior/bench/pope-direct.tsv --bench \
         pope-think=out/prior/bench/pope-think.tsv --limit 10 --kl-prompts 0 --out out/sequence/stages/replay-2-sums.lr-1e-3.seed-1"
    );
    assert!(
        command("puzzles.shades").starts_with("gen --suite order --count 40 --seed 9"),
        "{}",
        command("puzzles.shades")
    );
    for (i, task) in plan.tasks.iter().enumerate() {
        let known = |need: &String| plan.tasks[..i].iter().any(|other| other.name == *need);
        assert!(task.needs.iter().all(known), "{} comes before what it needs: {:?}", task.name, task.needs);
    }
    // 2 seeds x (3 + 2 + 3) stages, trained when all data are there; and no run of a method by itself.
    let trained: Vec<&StudyTask> = plan.tasks.iter().filter(|task| task.name.starts_with("train.")).collect();
    assert_eq!(trained.len(), 16);
    for one in &trained {
        let all = ["puzzles.row", "puzzles.sums", "puzzles.shades", "prior"];
        assert!(one.apart.is_some() && all.iter().all(|need| one.needs.iter().any(|own| own == need)), "{}", one.name);
    }
    assert_eq!(task(&plan, "train.replay-2-sums.lr-1e-3.seed-1").section, "regimes.replay");
    let sequence = plan.index.sequence.as_ref().unwrap();
    assert_eq!(
        (sequence.stages.len(), sequence.methods[1].about.as_str()),
        (18, "a quarter of the examples from tasks before")
    );
    assert!(plan.index.runs.is_empty() && plan.index.regimes.is_empty());
    assert!(task(&plan, "report").needs.contains(&"compare.lora-3-shades.lr-2e-3.seed-2".to_string()));
}

/// A regime that a sequence may start from, of one seed.
const FORM: &str = "\n[regimes.form]\nmethod = \"sft\"\ndata = \"row\"\nlearning_rate = 1e-4\nseeds = [1]\nmeasured = false\n\
                    train = { steps = 1, mix = [\"sums:1\"] }\n";

#[test]
fn a_sequence_may_start_from_a_regime_that_takes_the_place_of_the_base() {
    let plan = planned(&format!("{SMALL}{FORM}"), &["sequence.start=\"form\""]).unwrap();
    let (form, command) = ("out/runs/form.lr-1e-4.seed-1/model", |name: &str| task(&plan, name).arguments().join(" "));
    for seed in [1, 2] {
        for stage in [format!("sft-1-row.lr-1e-3.seed-{seed}"), format!("lora-1-row.lr-2e-3.seed-{seed}")] {
            assert!(command(&format!("train.{stage}")).starts_with(&format!("train --model {form} ")), "{stage}");
            assert!(command(&format!("compare.{stage}")).contains(&format!("--baseline {form} ")), "{stage}");
        }
    }
    let second = command("train.sft-2-sums.lr-1e-3.seed-2");
    assert!(second.starts_with("train --model out/runs/sft-1-row.lr-1e-3.seed-2/model "), "{second}");
    assert!(command("sequence.base").starts_with(&format!("eval --model {form} ")));
    assert!(task(&plan, "sequence.base").needs.contains(&"train.form.lr-1e-4.seed-1".to_string()));
}

#[test]
fn other_regimes_may_go_on_from_a_stage() {
    let more = "\n[regimes.after]\nmethod = \"sft\"\ndata = \"row\"\nstart = \"sft-3-shades\"\nlearning_rate = 1e-4\ntrain = { steps = 1 }\n";
    let plan = planned(&format!("{SMALL}{more}"), &[]).unwrap();
    let command = task(&plan, "train.after.lr-1e-4.seed-1").arguments().join(" ");
    assert!(command.contains("--model out/runs/sft-3-shades.lr-1e-3.seed-1/model"), "{command}");
    assert!(plan.find("compare.after.lr-1e-4.seed-1").is_some() && plan.index.runs.len() == 2);
}

#[test]
fn what_does_not_fit_is_refused_by_section_and_key() {
    for (set, said) in [
        (
            "sequence.tasks=[\"row\", \"nope\"]",
            "[sequence]: tasks: there is no [puzzles.nope]; there are row, sums, shades",
        ),
        ("sequence.methods=[\"nope\"]", "[sequence]: methods: there is no [regimes.nope]; there are sft, replay, lora"),
        ("sequence.tasks=[\"row\"]", "[sequence]: tasks: give at least two"),
        ("sequence.tasks=[\"row\", \"sums\", \"row\"]", "[sequence]: tasks: row is given twice"),
        ("sequence.methods=[\"sft\", \"sft\"]", "[sequence]: methods: sft is given twice"),
        ("sequence.methods=[]", "[sequence]: methods = []"),
        ("sequence.order=\"row\"", "[sequence]: unknown key order"),
        ("regimes.sft.data=\"row\"", "[regimes.sft]: data: this regime is a method of [sequence]"),
        ("regimes.lora.start=\"sft\"", "[regimes.lora]: start: this regime is a method"),
        ("sequence.start=\"nope\"", "there is no [regimes.nope]"),
        ("sequence.start=\"sft\"", "[sequence]: start: sft is one of the methods"),
        ("regimes.sft.learning_rate=[1e-3, 2e-3]", "[regimes.sft]: learning_rate: a method of [sequence] has one"),
        ("regimes.sft.train.steps=\"many\"", "[regimes.sft]"),
        ("regimes.sft.tarin.steps=3", "tarin"),
    ] {
        let error = planned(SMALL, &[set]).map(|_| ()).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{set}");
        assert!(error.to_string().contains("study.toml:") && error.to_string().contains(said), "{set}: {error}");
    }
    for (from, to, said) in [
        (
            "[puzzles.sums]\ntask = \"countdown\"\nnumbers = \"2\"",
            "[puzzles.sums]\nimages = \"scenes\"\ngrid = \"1x3\"",
            "row and sums are made with the same settings",
        ),
        ("suite = \"vqa,pope\"", "suite = \"vqa\"\nbenches = [\"row\"]", "a prior set is called row, too"),
        (
            "[regimes.sft]",
            "[puzzles.sft-1-row]\nimages = \"scenes\"\n[regimes.sft]",
            "sft-1-row is the name of a stage",
        ),
        ("[puzzles.sums]", "[puzzles.earlier]\nimages = \"scenes\"\n[puzzles.sums]", "rename the data of this name"),
    ] {
        let text = SMALL.replace(from, to);
        assert_ne!(text, SMALL);
        let error = planned(&text, &[]).map(|_| ()).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains(said), "{said}: {error}");
    }
    for (set, said) in [
        ("regimes.form.seeds=[1, 2]", "[sequence]: start: form has several seeds; give [regimes.form] one"),
        ("regimes.form.lora.rank=4", "[sequence]: start: form trains an adapter"),
    ] {
        let error = planned(&format!("{SMALL}{FORM}"), &["sequence.start=\"form\"", set]).map(|_| ()).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains(said), "{said}: {error}");
    }
}
