//! `docs/settings.md`, made of the doc comments of the settings' types, and the test that it is up to date.

use crate::Result;
use crate::io::schema::Setting;
use crate::io::toml::{flatten, literal, to_table};
use crate::study::sections;
use crate::train::known_names::settings;
use crate::train::settings::{Method, TrainConfig};
use std::collections::HashMap;
use std::fmt::Write;
use std::path::Path;
use toml::Value;

/// How the page is made again.
const RENEW: &str = "RENEW_DOCS=1 cargo test --lib settings_page";

/// `docs/settings.md`.
///
/// # Errors
/// A default that TOML cannot hold.
fn page() -> Result<String> {
    let mut out = format!(
        "# Settings\n\n\
         Every key of a configuration, made from the doc comments of the code; `{RENEW}` makes this page again.\n\n\
         - `jigsaw train --config FILE` and `--set section.key=value` take the sections of [Training](#training).\n\
         - `jigsaw study --config FILE` and `--set` take those of [Studies](#studies); a regime's own sections are those of training.\n\
         - `jigsaw train --method sft --print-config` (or `rft`) prints every value in force, each with its comment; the output is a configuration.\n\
         - A name of TRL, LLaMA-Factory, transformers or verl is refused with the key that does the same here.\n\n\
         The column TRL has the name in TRL 1.16, `=` for the same name; the meaning says where the two differ.\n\n## Training\n"
    );
    let defaults = training_defaults()?;
    let default = |setting: &Setting| match &defaults {
        [sft, rft] => match (sft.get(&setting.key), rft.get(&setting.key)) {
            (Some(sft), Some(rft)) if sft != rft => format!("`{}` (sft), `{}` (rft)", literal(sft), literal(rft)),
            (Some(value), _) | (None, Some(value)) => format!("`{}`", literal(value)),
            (None, None) => "not set".into(),
        },
    };
    for section in settings().iter().filter(|setting| setting.is_section()) {
        let prefix = format!("{}.", section.key);
        let own: Vec<&Setting> = settings().iter().filter(|setting| setting.key.starts_with(&prefix)).collect();
        let _ = write!(out, "\n### [{}]\n\n{}\n\n", section.key, section.meaning);
        table(&mut out, &own, &prefix, &default, true);
    }
    out.push_str("\n## Studies\n");
    for section in sections()? {
        let _ = write!(out, "\n### [{}]\n\n{}\n\n", section.name, section.about);
        let default = |setting: &Setting| {
            let value = section.defaults.iter().find(|(key, _)| *key == setting.key).map(|(_, value)| literal(value));
            let own = || setting.default.as_ref().map(ToString::to_string);
            let missing = if setting.required { "required" } else { "not set" };
            value.or_else(own).map_or(missing.into(), |value| format!("`{value}`"))
        };
        let own: Vec<&Setting> = section.settings.iter().filter(|setting| !setting.is_section()).collect();
        table(&mut out, &own, "", &default, false);
    }
    Ok(out)
}

/// The defaults of SFT and of RFT by their keys, with those of the sections that are not there unless they are written.
fn training_defaults() -> Result<[HashMap<String, Value>; 2]> {
    let of = |method: Method| -> Result<_> {
        let mut defaults = TrainConfig::defaults(method);
        defaults.lora = Some(Default::default());
        defaults.prior_kl = Some(Default::default());
        Ok(flatten(&to_table(&defaults)?).into_iter().collect())
    };
    Ok([of(Method::Sft)?, of(Method::Rft)?])
}

fn table(out: &mut String, settings: &[&Setting], prefix: &str, default: &dyn Fn(&Setting) -> String, trl: bool) {
    let cell = |text: &str| text.replace('|', "\\|");
    let (head, rule) = if trl { (" TRL |", "---|") } else { ("", "") };
    let _ = writeln!(out, "| key | type | default | meaning |{head}\n|---|---|---|---|{rule}");
    for setting in settings {
        let kind = match setting.words.as_slice() {
            [] => setting.kind.clone(),
            words => words.iter().map(|(word, _)| format!("`{word}`")).collect::<Vec<_>>().join(", "),
        };
        let theirs = match setting.trl.as_str() {
            _ if !trl => String::new(),
            "" => " |".into(),
            same if same == setting.name() => " = |".into(),
            other => format!(" `{}` |", other.replace(", ", "`, `")),
        };
        let key = setting.key.strip_prefix(prefix).unwrap_or(&setting.key);
        let _ =
            writeln!(out, "| `{key}` | {kind} | {} | {} |{theirs}", cell(&default(setting)), cell(&setting.meaning));
    }
    for setting in settings.iter().filter(|setting| setting.words.iter().any(|(_, meaning)| !meaning.is_empty())) {
        let key = setting.key.strip_prefix(prefix).unwrap_or(&setting.key);
        let _ = write!(out, "\nValues of `{key}`:\n\n");
        for (word, meaning) in &setting.words {
            let _ = writeln!(out, "- `{word}`: {meaning}");
        }
    }
}

#[test]
fn the_page_is_what_the_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/settings.md");
    let page = page().unwrap();
    if std::env::var_os("RENEW_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let stale = format!("docs/settings.md is stale; make it again: {RENEW}");
    assert!(std::fs::read_to_string(&path).is_ok_and(|written| written == page), "{stale}");
}
