//! The comments of `--print-config`, made of the doc comments of the settings' types.

use crate::Result;
use crate::io::schema::Setting;
use crate::io::toml::{literal, to_table};
use crate::study::{StudySection, sections};
use crate::train::known_names::settings;
use crate::train::settings::TrainConfig;
use std::fmt::Write;
use toml::{Table, Value};

/// Width of the comments.
const WIDTH: usize = 100;

impl TrainConfig {
    /// As [`TrainConfig::to_toml`], with a comment above each key, and the keys that are not set as comments. It reads back as the same plan.
    ///
    /// # Errors
    /// A value that TOML cannot hold.
    pub fn to_commented_toml(&self) -> Result<String> {
        let table = to_table(self)?;
        let mut out = String::new();
        for section in settings().iter().filter(|setting| setting.is_section()) {
            let Some(Value::Table(written)) = table.get(&section.key) else { continue };
            comment(&mut out, &section.meaning);
            let _ = writeln!(out, "[{}]", section.key);
            let prefix = format!("{}.", section.key);
            for setting in settings().iter().filter(|setting| setting.key.starts_with(&prefix)) {
                comment(&mut out, &setting.describe());
                let _ = match written.get(setting.name()) {
                    Some(value) => writeln!(out, "{} = {}", setting.name(), literal(value)),
                    None => writeln!(out, "# {} = (not set)", setting.name()),
                };
            }
            out.push('\n');
        }
        let absent: Vec<&str> = ["lora", "prior_kl"].into_iter().filter(|name| !table.contains_key(*name)).collect();
        for name in absent {
            let meaning = settings().iter().find(|s| s.key == name).map_or("", |s| s.meaning.as_str());
            comment(&mut out, &format!("A section that is not there: [{name}]. {meaning}"));
        }
        out.push_str("# All keys: docs/settings.md\n");
        Ok(out)
    }
}

/// The file of a study with a comment above each key. It reads back as the same study.
///
/// # Errors
/// A default that TOML cannot hold.
pub fn commented_study(study: &Table) -> Result<String> {
    let sections = sections()?;
    let mut out = String::new();
    write_section(&mut out, study, &mut Vec::new(), &sections);
    Ok(out)
}

fn write_section<'a>(out: &mut String, table: &'a Table, path: &mut Vec<&'a str>, sections: &[StudySection]) {
    // A table's own keys come before its sections.
    let (inner, own): (Vec<_>, Vec<_>) = table.iter().partition(|(_, value)| value.is_table());
    if !path.is_empty() && (inner.is_empty() || !own.is_empty()) {
        let keys: Vec<String> = path.iter().map(|name| bare(name)).collect();
        let _ = writeln!(out, "{}[{}]", if out.is_empty() { "" } else { "\n" }, keys.join("."));
    }
    for (key, value) in own {
        path.push(key);
        if let Some(setting) = of_study(path, sections) {
            comment(out, &setting.describe());
        }
        path.pop();
        let _ = writeln!(out, "{} = {}", bare(key), literal(value));
    }
    for (key, value) in inner {
        path.push(key);
        if let Value::Table(table) = value {
            write_section(out, table, path, sections);
        }
        path.pop();
    }
}

/// The setting at a path of a study's file.
fn of_study<'a>(path: &[&str], sections: &'a [StudySection]) -> Option<&'a Setting> {
    let find = |section: &str, key: &str| {
        let own = sections.iter().filter(|of| of.name.trim_end_matches(".NAME") == section);
        own.flat_map(|of| &of.settings).find(|setting| setting.key == key)
    };
    match path {
        ["regimes", _, rest @ ..] => {
            let key = rest.join(".");
            find("regimes", &key).or_else(|| settings().iter().find(|setting| setting.key == key))
        }
        ["puzzles" | "rollouts", _, rest @ ..] => find(path[0], &rest.join(".")),
        [section, rest @ ..] => find(section, &rest.join(".")),
        [] => None,
    }
}

/// A key as TOML has it.
fn bare(key: &str) -> String {
    let is_bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if is_bare { key.to_string() } else { Value::String(key.to_string()).to_string() }
}

/// A text as comment lines.
fn comment(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() + word.len() >= WIDTH {
            let _ = writeln!(out, "{line}");
            line = String::from("#");
        }
        line += " ";
        line += word;
    }
    let _ = writeln!(out, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::toml::flatten;
    use crate::train::settings::Method;
    use std::path::Path;

    #[test]
    fn every_setting_is_explained() {
        let study = sections().unwrap().into_iter().flat_map(|section| section.settings);
        for setting in settings().iter().cloned().chain(study) {
            assert!(!setting.meaning.is_empty(), "{} has no doc comment", setting.key);
            let words = setting.words.iter().map(|(_, meaning)| meaning);
            let is_link = |text: &String| text.contains("](") || text.contains("::");
            assert!(![&setting.meaning].into_iter().chain(words).any(is_link), "{}: a path of the code", setting.key);
            assert!(setting.is_section() || setting.kind != "left out", "{}: its type has no words", setting.key);
        }
        // Every key that a configuration takes.
        for (key, _) in flatten(&to_table(&TrainConfig::every_key()).unwrap()) {
            assert!(settings().iter().any(|setting| setting.key == key), "{key}");
        }
    }

    #[test]
    fn what_is_printed_with_comments_reads_back_as_the_same_plan() {
        for (method, sets) in [
            (Method::Sft, vec!["train.steps=6", "lora.rank=4", "prior_kl.data=there", "train.freeze=[\"vision\"]"]),
            (Method::Rft, vec!["train.learning_rate=3e-7", "rollout.temperature=0.7", "eval.prior=a \"b\"\\c"]),
        ] {
            let sets: Vec<String> = sets.into_iter().map(String::from).collect();
            let plan = TrainConfig::from_text(Some(method), None, &sets).unwrap();
            let text = plan.to_commented_toml().unwrap();
            assert_eq!(TrainConfig::from_text(None, Some(("config.toml", &text)), &[]).unwrap(), plan);
            let values = |line: &&str| line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
            let (keys, lines) = (flatten(&to_table(&plan).unwrap()).len(), text.lines().filter(values).count());
            assert_eq!(keys, lines, "{text}");
            assert!(text.lines().all(|line| line.len() <= 120) && text.contains("TRL: per_device_train_batch_size."));
        }
    }

    #[test]
    fn a_study_is_printed_with_comments_and_reads_back_as_the_same() {
        let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
        let mut seen = 0;
        for entry in std::fs::read_dir(configs).unwrap() {
            let path = entry.unwrap().path();
            let table: Table = std::fs::read_to_string(&path).unwrap().parse().unwrap();
            if !table.contains_key("study") {
                continue;
            }
            seen += 1;
            let text = commented_study(&table).unwrap();
            assert_eq!(text.parse::<Table>().unwrap(), table, "{}", path.display());
            let lines: Vec<&str> = text.lines().collect();
            for pair in lines.windows(2).filter(|pair| pair[1].contains(" = ") && !pair[1].starts_with('#')) {
                let explained = pair[0].starts_with('#') || path_of(&text, pair[1]).starts_with("benchmarks");
                assert!(explained, "{}: {}", path.display(), pair[1]);
            }
        }
        assert!(seen >= 4);
    }

    /// The section in which a line stands.
    fn path_of<'a>(text: &'a str, line: &str) -> &'a str {
        let at = text.find(line).unwrap_or_default();
        text[..at].lines().rev().find_map(|line| line.strip_prefix('[')).unwrap_or_default()
    }
}
