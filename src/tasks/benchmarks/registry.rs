//! The benchmarks that are known by name, and for each scorer the same for a file of one's own.
//!
//! Prompts and bounds are those that VLMEvalKit registers for Qwen2.5-VL (`vlmeval/config.py`, `vlmeval/dataset/`), except the
//! prompt of RefCOCO, which is the one that the model's authors evaluate with (QwenLM/Qwen3-VL issue 991).

use super::boxes::Corners;
use crate::tasks::scorers::{Aggregate, CoordinateSpace};
use crate::{Error, Result};

/// How a benchmark's file is read, put to the model and scored.
#[derive(Debug, Clone, PartialEq)]
pub struct Benchmark {
    /// The name it is known by, or that of a scorer.
    pub name: &'static str,
    /// Other names, such as VLMEvalKit's where it differs by more than case.
    pub aliases: &'static [&'static str],
    /// Rule that scores the answers.
    pub scorer: &'static str,
    /// The question as it is asked, after the images; see [`prompt`](super::prompt).
    pub prompt: &'static str,
    /// Put after it unless the question ends with it already.
    pub ask: &'static str,
    /// Rule and `ask` for questions without options, in a benchmark of choices.
    pub open: Option<(&'static str, &'static str)>,
    /// Fewest and most pixels of a resized image; `None` for the checkpoint's own.
    pub pixels: Option<(usize, usize)>,
    /// What the coordinates of an answer count.
    pub space: Option<CoordinateSpace>,
    /// What the numbers of a gold box are.
    pub corners: Option<Corners>,
    /// Longest response in tokens.
    pub max_new_tokens: usize,
    /// The rows it is about, by their `split` or `category`; empty for all.
    pub rows: &'static [&'static str],
    /// Indices are unique within a `split` (or, without that column, a `category`) only.
    pub prefixed: bool,
    /// The column that its numbers are given by, as `category`.
    pub category: &'static str,
    /// What questions belong together by.
    pub group: Group,
    /// How it sums up its questions.
    pub aggregate: Aggregate,
}

/// What makes questions belong together; they are not independent of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// They are about the same first image.
    Image,
    /// They are one question with its options in turn in other places: their indices differ by a multiple of a million
    /// (MMBench's CircularEval).
    Circular,
}

/// What separates the rotations of a question in MMBench.
pub(super) const CIRCULAR: u64 = 1_000_000;

/// VLMEvalKit's bounds for Qwen2.5-VL: 1280 to 16384 image tokens.
const TOKENS: Option<(usize, usize)> = Some((1280 * 28 * 28, 16384 * 28 * 28));

const SHORT_ASK: &str = "\nAnswer the question using a single word or phrase.";

/// Of Qwen2.5-Math and of lighteval's MATH.
const MATHS_ASK: &str = "\nPlease reason step by step, and put your final answer within \\boxed{}.";

const SHORT: Benchmark = Benchmark {
    name: "exact",
    aliases: &[],
    scorer: "exact",
    prompt: "{question}",
    ask: SHORT_ASK,
    open: None,
    pixels: None,
    space: None,
    corners: None,
    max_new_tokens: 64,
    rows: &[],
    prefixed: false,
    category: "category",
    group: Group::Image,
    aggregate: Aggregate::Mean,
};
const CHOICE: Benchmark = Benchmark {
    name: "choice",
    scorer: "choice",
    prompt: "{hint}Question: {question}\n{options}",
    ask: "Please select the correct answer from the options above.",
    max_new_tokens: 512,
    ..SHORT
};
const YES_NO: Benchmark =
    Benchmark { name: "yes-no", scorer: "yes-no", ask: " Please answer yes or no.", max_new_tokens: 32, ..SHORT };
const BOX: Benchmark = Benchmark {
    name: "iou",
    scorer: "iou",
    prompt: "Locate {expression} in this image and output the bbox coordinates in JSON format.",
    ask: "",
    space: Some(CoordinateSpace::AbsoluteResized),
    corners: Some(Corners::Xyxy),
    max_new_tokens: 128,
    ..SHORT
};

/// A benchmark for each scorer, for files that are not known by name.
static BY_SCORER: [Benchmark; 11] = [
    CHOICE,
    YES_NO,
    SHORT,
    Benchmark { name: "anls", scorer: "anls", ..SHORT },
    Benchmark { name: "vqa", scorer: "vqa", ..SHORT },
    Benchmark { name: "relaxed", scorer: "relaxed", ..SHORT },
    Benchmark { name: "containment", scorer: "containment", ask: "", max_new_tokens: 128, ..SHORT },
    Benchmark {
        name: "list",
        scorer: "list",
        ask: "\nAnswer with a list separated by commas.",
        max_new_tokens: 128,
        ..SHORT
    },
    Benchmark { name: "maths", scorer: "maths", ask: MATHS_ASK, max_new_tokens: 1024, ..SHORT },
    BOX,
    Benchmark { name: "iou-xywh", corners: Some(Corners::Xywh), ..BOX },
];

const fn refcoco(name: &'static str, rows: &'static [&'static str]) -> Benchmark {
    Benchmark { name, rows, prefixed: true, ..BOX }
}

/// The known benchmarks.
static KNOWN: [Benchmark; 28] = [
    refcoco("refcoco", &[]),
    refcoco("refcoco_val", &["refcocoval", "val", "validation"]),
    refcoco("refcoco_testA", &["refcocotesta", "testa"]),
    refcoco("refcoco_testB", &["refcocotestb", "testb"]),
    refcoco("refcoco+_val", &["refcoco+val", "val", "validation"]),
    refcoco("refcoco+_testA", &["refcoco+testa", "testa"]),
    refcoco("refcoco+_testB", &["refcoco+testb", "testb"]),
    refcoco("refcocog_val", &["refcocogval", "val", "validation"]),
    refcoco("refcocog_test", &["refcocogtest", "test"]),
    Benchmark { name: "docvqa_val", scorer: "anls", pixels: TOKENS, ..SHORT },
    Benchmark { name: "infovqa_val", scorer: "anls", pixels: TOKENS, ..SHORT },
    Benchmark {
        name: "ocrbench",
        scorer: "containment",
        ask: "",
        pixels: Some((100 * 28 * 28, 16384 * 28 * 28)),
        max_new_tokens: 128,
        ..SHORT
    },
    Benchmark { name: "textvqa_val", scorer: "vqa", pixels: TOKENS, ..SHORT },
    Benchmark { name: "chartqa_test", scorer: "relaxed", pixels: TOKENS, category: "split", ..SHORT },
    Benchmark { name: "gqa_testdev_balanced", aliases: &["gqa"], pixels: TOKENS, ..SHORT },
    Benchmark { name: "mme", pixels: TOKENS, aggregate: Aggregate::Mme, ..YES_NO },
    Benchmark { name: "pope", pixels: TOKENS, aggregate: Aggregate::Pope, ..YES_NO },
    Benchmark { name: "hallusionbench", pixels: TOKENS, ..YES_NO },
    Benchmark { name: "mmstar", pixels: TOKENS, ..CHOICE },
    Benchmark {
        name: "mmmu_val",
        aliases: &["mmmu_dev_val"],
        open: Some(("exact", SHORT_ASK)),
        pixels: TOKENS,
        rows: &["validation", "val"],
        ..CHOICE
    },
    Benchmark {
        name: "mmbench_dev_en",
        aliases: &["mmbench_dev_en_v11"],
        pixels: TOKENS,
        group: Group::Circular,
        ..CHOICE
    },
    Benchmark {
        name: "mmbench_dev_cn",
        aliases: &["mmbench_dev_cn_v11"],
        pixels: TOKENS,
        group: Group::Circular,
        ..CHOICE
    },
    Benchmark { name: "ai2d_test", aliases: &["ai2d_test_no_mask"], pixels: TOKENS, ..CHOICE },
    Benchmark { name: "scienceqa_val", pixels: TOKENS, ..CHOICE },
    Benchmark { name: "scienceqa_test", pixels: TOKENS, ..CHOICE },
    Benchmark { name: "seedbench_img", pixels: TOKENS, ..CHOICE },
    Benchmark { name: "realworldqa", pixels: TOKENS, ..CHOICE },
    Benchmark { name: "ocrvqa_testcore", aliases: &["ocrvqa_test"], pixels: TOKENS, ..SHORT },
];

/// The benchmark of this name, in any case, or the one for this scorer.
///
/// # Errors
/// An input error that says which names there are, the most similar one first.
pub fn find(name: &str) -> Result<&'static Benchmark> {
    let wanted = normal(name);
    let all = || KNOWN.iter().chain(&BY_SCORER);
    let named = |b: &&Benchmark| normal(b.name) == wanted || b.aliases.iter().any(|alias| normal(alias) == wanted);
    if let Some(found) = all().find(named) {
        return Ok(found);
    }
    let names = || all().flat_map(|b| std::iter::once(&b.name).chain(b.aliases));
    let nearest = names()
        .map(|name| (strsim::jaro_winkler(&wanted, &normal(name)), *name))
        .filter(|(likeness, _)| *likeness >= 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let hint = nearest.map(|(_, name)| format!(" (did you mean `{name}`?)")).unwrap_or_default();
    let known: Vec<&str> = KNOWN.iter().map(|b| b.name).collect();
    let scorers: Vec<&str> = BY_SCORER.iter().map(|b| b.name).collect();
    Err(Error::input(format!(
        "`{name}` is no known benchmark and no scorer{hint}. Known benchmarks: {}. Rules: {}",
        known.join(", "),
        scorers.join(", ")
    )))
}

/// Case and the kind of dash do not matter.
fn normal(name: &str) -> String {
    name.to_lowercase().replace('-', "_")
}

/// The table of docs/benchmarks.md, which a test compares with this: neighbours that differ by name only share a line.
#[cfg(test)]
fn markdown() -> String {
    let mut lines: Vec<(Vec<String>, String)> = Vec::new();
    for b in KNOWN.iter().chain(&BY_SCORER) {
        let names = std::iter::once(&b.name).chain(b.aliases).map(|name| format!("`{name}`"));
        let prompt = format!("{}{}", b.prompt, b.ask).replace('\n', "\u{21b5}");
        let scorer = b.open.map_or(b.scorer.to_string(), |(open, _)| format!("{}, without options {open}", b.scorer));
        let pixels = b.pixels.map_or("the checkpoint's".into(), |(min, max)| format!("{min} to {max}"));
        let rows = if b.rows.is_empty() { "all".into() } else { b.rows.join(", ") };
        let rest = format!("{scorer} | {prompt} | {pixels} | {} | {rows} |", b.max_new_tokens);
        match lines.last_mut() {
            Some((before, same)) if *same == rest => before.extend(names),
            _ => lines.push((names.collect(), rest)),
        }
    }
    let head = "| name | scorer | prompt | pixels of an image | longest response | rows |\n|---|---|---|---|---|---|\n";
    let lines = lines.iter().map(|(names, rest)| format!("| {} | {rest}\n", names.join(", ")));
    std::iter::once(head.to_string()).chain(lines).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::scorers::NAMES;

    #[test]
    fn every_name_is_one_benchmarks_and_every_rule_has_one() {
        let mut names: Vec<String> = KNOWN
            .iter()
            .chain(&BY_SCORER)
            .flat_map(|b| std::iter::once(&b.name).chain(b.aliases))
            .map(|n| normal(n))
            .collect();
        let n = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), n);
        for scorer in NAMES {
            assert_eq!(find(scorer).unwrap().scorer, scorer);
        }
        for b in KNOWN.iter().chain(&BY_SCORER) {
            assert!(NAMES.contains(&b.scorer), "{}", b.name);
            assert_eq!(b.scorer == "iou", b.space.is_some() && b.corners.is_some(), "{}", b.name);
            assert!(b.pixels.is_none_or(|(min, max)| min < max) && b.max_new_tokens > 0);
        }
    }

    #[test]
    fn names_are_found_in_any_case_and_a_slip_is_answered_with_the_nearest() {
        for (name, found) in [
            ("MMStar", "mmstar"),
            ("RefCOCO+_testA", "refcoco+_testA"),
            ("MMMU_DEV_VAL", "mmmu_val"),
            ("MMBench_DEV_EN_V11", "mmbench_dev_en"),
            ("yes_no", "yes-no"),
            ("DocVQA_VAL", "docvqa_val"),
        ] {
            assert_eq!(find(name).unwrap().name, found);
        }
        let error = find("mmstra").unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("did you mean `mmstar`?"), "{error}");
        assert!(error.to_string().contains("refcocog_val") && error.to_string().contains("iou-xywh"));
        assert!(!find("zzz").unwrap_err().to_string().contains("did you mean"));
    }

    #[test]
    fn the_documentation_has_this_table() {
        let docs = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/benchmarks.md")).unwrap();
        assert!(docs.contains(&markdown()), "put this into docs/benchmarks.md:\n{}", markdown());
    }
}
