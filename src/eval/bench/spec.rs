//! `--bench NAME=FILE.tsv[:SCORER]`: what is evaluated under which name.

use crate::tasks::benchmarks;
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// One benchmark as the user names it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct BenchmarkSpec {
    /// What it is called: its directory below the output directory, and a known benchmark unless `kind` is given.
    pub name: String,
    /// A TSV file, a dataset directory or a file of records.
    pub path: PathBuf,
    /// A scorer or a known benchmark, if given.
    pub kind: Option<String>,
    /// Split of a dataset directory.
    pub split: String,
}

impl BenchmarkSpec {
    /// From `NAME=FILE.tsv`, `NAME=FILE.tsv:KIND` or `NAME=DIR`.
    ///
    /// # Errors
    /// An input error for another form, a name that is no plain file name, or a kind that is not known.
    pub fn parse(text: &str, split: &str) -> Result<BenchmarkSpec> {
        BenchmarkSpec::of_flag("--bench", text, split)
    }

    /// As [`BenchmarkSpec::parse`], for another flag of the same form.
    pub fn of_flag(flag: &str, text: &str, split: &str) -> Result<BenchmarkSpec> {
        let bad = |why: String| Error::input(format!("{flag} {text}: {why}"));
        let (name, rest) = text
            .split_once('=')
            .filter(|(name, rest)| !name.is_empty() && !rest.is_empty())
            .ok_or_else(|| bad("give NAME=FILE.tsv, NAME=FILE.tsv:SCORER or NAME=DIRECTORY".into()))?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "+-_.".contains(c);
        if !name.chars().all(plain) || name.starts_with('.') {
            return Err(bad(format!(
                "the name `{name}` becomes a directory: letters, digits and + - _ . only, and no . at its beginning"
            )));
        }
        let (path, kind) = match rest.rsplit_once(':') {
            // The colon may belong to the file name or to a drive letter.
            _ if Path::new(rest).exists() => (rest, None),
            Some((path, kind)) if !path.is_empty() && !kind.contains(['/', '\\', '.']) => {
                benchmarks::find(kind).map_err(|e| bad(e.to_string()))?;
                (path, Some(kind.to_string()))
            }
            _ => (rest, None),
        };
        Ok(BenchmarkSpec { name: name.to_string(), path: PathBuf::from(path), kind, split: split.to_string() })
    }
}

/// As it is typed: `NAME=FILE.tsv[:KIND]`.
impl std::fmt::Display for BenchmarkSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = self.kind.as_ref().map(|kind| format!(":{kind}")).unwrap_or_default();
        write!(f, "{}={}{kind}", self.name, self.path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_a_file_and_a_rule_are_told_apart() {
        let of =
            |text: &str| BenchmarkSpec::parse(text, "test").map(|s| (s.name, s.path.display().to_string(), s.kind));
        let is = |name: &str, path: &str, kind: Option<&str>| (name.into(), path.into(), kind.map(String::from));
        assert_eq!(of("mmstar=a/MMStar.tsv").unwrap(), is("mmstar", "a/MMStar.tsv", None));
        assert_eq!(of("mine=a.tsv:choice").unwrap(), is("mine", "a.tsv", Some("choice")));
        assert_eq!(of("again=a.tsv:MMStar").unwrap(), is("again", "a.tsv", Some("MMStar")));
        assert_eq!(of("refcoco+_val=C:\\x.tsv").unwrap(), is("refcoco+_val", "C:\\x.tsv", None));
        assert_eq!(of("puzzles=runs/puzzles").unwrap(), is("puzzles", "runs/puzzles", None));
        for (text, said) in [
            ("mmstar", "NAME=FILE.tsv"),
            ("=a.tsv", "NAME=FILE.tsv"),
            ("mmstar=", "NAME=FILE.tsv"),
            ("a/b=c.tsv", "letters, digits"),
            ("..=c.tsv", "no . at its beginning"),
            ("mine=a.tsv:chioce", "did you mean `choice`"),
        ] {
            let error = of(text).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{text}");
            assert!(error.to_string().contains(said), "{text}: {error}");
        }
        let error = BenchmarkSpec::of_flag("--prior", "mmstar", "test").unwrap_err();
        assert!(error.to_string().starts_with("--prior mmstar: give NAME="), "{error}");
    }
}
