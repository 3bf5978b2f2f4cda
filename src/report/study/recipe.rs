//! What the regimes of a study learn and how, read from the settings of their runs: the factors that their losses are analysed by.

use crate::io::toml::flatten;
use crate::report::discover::TrainRun;
use std::path::PathBuf;

/// Data and method of a regime.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recipe {
    /// The data, or that responses are the model's own.
    pub data: String,
    /// The method with the settings that tell it apart from others of its kind.
    pub method: String,
}

/// What a run samples itself, whatever the prompts come from.
const OWN: &str = "own samples";
/// Sections that do not change what is learnt from a batch.
const OTHER_SECTIONS: [&str; 3] = ["eval", "stall", "rollout"];
/// Settings that belong to other factors, to the length of a run, or to what it keeps.
const OTHER_SETTINGS: [&str; 15] = [
    "train.prompts_of",
    "train.learning_rate",
    "train.seed",
    "train.steps",
    "train.epochs",
    "train.warmup_steps",
    "train.gradient_checkpointing",
    "train.max_length",
    "train.save_steps",
    "train.save_every",
    "train.save_total_limit",
    "train.save_best",
    "sft.resample_every",
    "sft.max_per_prompt",
    "sft.keep",
];

/// The recipe of each regime, from the data and the training run of one of its runs.
pub fn recipes(regimes: &[(Option<PathBuf>, Option<&TrainRun>)]) -> Vec<Recipe> {
    let settings: Vec<Vec<(String, String)>> =
        regimes.iter().map(|(_, run)| run.map(settings).unwrap_or_default()).collect();
    let method = |i: usize| regimes[i].1.map_or("nothing trained", TrainRun::method);
    let recipe = |(i, (data, run)): (usize, &(Option<PathBuf>, Option<&TrainRun>))| {
        let alike = (0..regimes.len()).filter(|other| method(*other) == method(i));
        // What another regime with the same method has otherwise.
        let differs = |(key, value): &&(String, String)| {
            alike.clone().any(|other| !settings[other].iter().any(|(k, v)| k == key && v == value))
        };
        let different: Vec<String> = settings[i].iter().filter(differs).map(describe).collect();
        let method = match different.is_empty() {
            true => method(i).to_string(),
            false => format!("{} with {}", method(i), different.join(", ")),
        };
        let data = match (run.is_some_and(TrainRun::learns_own_responses), data) {
            (true, _) => OWN.to_string(),
            (false, Some(data)) => without_seed(&data.display().to_string()) + &examples_of(*run),
            (false, None) => "unknown data".to_string(),
        };
        Recipe { data, method }
    };
    regimes.iter().enumerate().map(recipe).collect()
}

/// Which part of its data a run learns: the examples that the rollouts of `train.prompts_of` answer.
fn examples_of(run: Option<&TrainRun>) -> String {
    let all = run.map(|run| flatten(&run.config)).unwrap_or_default();
    let named =
        all.into_iter().find(|(key, _)| key == "train.prompts_of").map(|(_, value)| without_seed(&value.to_string()));
    match named.as_deref().map(|path| path.trim_matches('"').trim_end_matches('/')) {
        None | Some("") => String::new(),
        Some(path) => format!(", the examples of {}", path.rsplit('/').next().unwrap_or(path)),
    }
}

/// The settings of a run that make its method.
fn settings(run: &TrainRun) -> Vec<(String, String)> {
    let other = |key: &str| {
        let section = key.split('.').next().unwrap_or(key);
        OTHER_SECTIONS.contains(&section) || OTHER_SETTINGS.contains(&key) || key.starts_with("train.stop_")
    };
    let all = flatten(&run.config).into_iter().filter(|(key, _)| !other(key));
    all.map(|(key, value)| (key, without_seed(&value.to_string()))).collect()
}

/// `sft.kl_coef = 0.1` rather than all of a section.
fn describe((key, value): &(String, String)) -> String {
    let name = key.split_once('.').map_or(key.as_str(), |(_, name)| name);
    format!("{name} {}", value.trim_matches('"'))
}

/// A path without the part that names the seed (`.seed-3`), so that data that each seed has for itself is one level.
fn without_seed(path: &str) -> String {
    match path.split_once(".seed-") {
        Some((before, after)) => before.to_string() + after.trim_start_matches(|c: char| c.is_ascii_digit()),
        None => path.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_and_method_are_told_apart_by_what_differs() {
        let run = TrainRun::of_config;
        let sft = |sft: &str| run(&format!("[train]\nmethod = \"sft\"\nlearning_rate = 1e-4\n[sft]\n{sft}"));
        let runs = [
            sft("loss_type = \"nll\"\nresample_every = 0"),
            sft("loss_type = \"nll\"\nresample_every = 50"),
            sft("loss_type = \"dft\"\nresample_every = 0"),
            run("[train]\nmethod = \"rft\"\nlearning_rate = 2e-4\n[grpo]\nbeta = 0.0\n[rollout]\nnum_generations = 8"),
            run(
                "[train]\nmethod = \"sft\"\nlearning_rate = 1e-4\nprompts_of = \"runs/a/rollouts/grpo.seed-3\"\n[sft]\nloss_type = \"nll\"",
            ),
        ];
        let data = ["puzzles/bare", "puzzles/bare", "rollouts/grpo.seed-12", "puzzles/bare", "puzzles/bare"];
        let of: Vec<_> = runs.iter().zip(data).map(|(run, data)| (Some(PathBuf::from(data)), Some(run))).collect();
        let got = recipes(&of);
        let got: Vec<(&str, &str)> = got.iter().map(|one| (one.data.as_str(), one.method.as_str())).collect();
        let expected = [
            ("puzzles/bare", "sft with loss_type nll"),
            ("own samples", "sft with loss_type nll"),
            ("rollouts/grpo", "sft with loss_type dft"),
            ("own samples", "rft"),
            ("puzzles/bare, the examples of grpo", "sft with loss_type nll"),
        ];
        assert_eq!(got, expected);
    }
}
