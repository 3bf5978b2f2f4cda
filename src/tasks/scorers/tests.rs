//! Golden cases of every scorer (`tests/fixtures/scorers`), and what holds for all scorers alike.

use super::*;
use crate::io::files;
use crate::rng::{self, Rng};
use crate::tasks::scorer;
use rand::RngExt;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

fn fixture<T: serde::de::DeserializeOwned>(name: &str) -> T {
    files::read_json(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/scorers").join(name)).unwrap()
}

fn record(task: &str, answer: &str, meta: &Value) -> Record {
    Record {
        file_name: String::new(),
        id: "0".into(),
        task: task.into(),
        messages: Vec::new(),
        images: Vec::new(),
        answer: answer.into(),
        source: String::new(),
        seed: 0,
        meta: meta.as_object().cloned().unwrap_or_default(),
    }
}

/// A number, or a fraction as text (`8/9`).
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Expected {
    Number(f64),
    Fraction(String),
}

impl Expected {
    fn get(&self) -> f64 {
        match self {
            Expected::Number(number) => *number,
            Expected::Fraction(text) => {
                let (a, b) = text.split_once('/').unwrap();
                a.parse::<f64>().unwrap() / b.parse::<f64>().unwrap()
            }
        }
    }
}

/// Cases for one gold answer.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    answer: String,
    #[serde(default)]
    meta: Map<String, Value>,
    cases: Vec<Case>,
}

/// A response and the score it should get.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    response: String,
    value: Expected,
    /// The value if absent.
    lenient: Option<Expected>,
    /// True if absent.
    parsed: Option<bool>,
    /// Not looked at if absent.
    partial_credit: Option<Expected>,
    /// Not looked at if absent.
    well_formed: Option<bool>,
    /// For people.
    #[serde(rename = "why")]
    _why: Option<String>,
}

#[test]
fn golden_cases() {
    for task in NAMES {
        let questions: Vec<Question> = fixture(&format!("{task}.json"));
        assert!(questions.iter().map(|q| q.cases.len()).sum::<usize>() >= 25, "{task}");
        let mut graded = false;
        for question in &questions {
            let scorer = scorer(&record(task, &question.answer, &Value::Object(question.meta.clone()))).unwrap();
            for case in &question.cases {
                let score = scorer.score(&case.response);
                graded |= ![0.0, 1.0].contains(&score.partial_credit);
                let place = format!("{task}, gold `{}`: {:?}: {score:?}", question.answer, case.response);
                let near = |got: f64, expected: &Expected| (got - expected.get()).abs() < 1e-12;
                assert!(near(score.value, &case.value), "{place}");
                assert!(near(score.lenient, case.lenient.as_ref().unwrap_or(&case.value)), "{place}");
                assert_eq!(score.parsed, case.parsed.unwrap_or(true), "{place}");
                assert_eq!(score.correct, case.value.get() == 1.0, "{place}");
                assert!(score.parsed || !score.fault.is_empty(), "{place}");
                assert!(!score.well_formed || score.fault.is_empty() || !score.parsed, "{place}");
                assert!(
                    case.partial_credit
                        .as_ref()
                        .is_none_or(|partial_credit| near(score.partial_credit, partial_credit)),
                    "{place}"
                );
                assert!(case.well_formed.is_none_or(|formed| score.well_formed == formed), "{place}");
            }
        }
        // Partial credit has a name where there is any.
        assert_eq!(graded, partial_credit_label(task).is_some(), "{task}");
    }
}

/// A response with its scores here and those that the functions of VLMEvalKit and lmms-eval give it (`record_peer_scores.py`).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Beside {
    task: String,
    answer: String,
    #[serde(default)]
    meta: Map<String, Value>,
    response: String,
    value: f64,
    lenient: f64,
    exact_form: f64,
    /// The value if absent.
    partial_credit: Option<f64>,
    /// Why the value is not VLMEvalKit's; absent if it is.
    differs: Option<String>,
    /// By harness and benchmark; `None` where an option is drawn at random.
    peers: BTreeMap<String, Option<f64>>,
}

#[test]
fn scores_beside_those_of_vlmevalkit_and_lmms_eval() {
    let cases: Vec<Beside> = fixture("peers.json");
    assert!(cases.len() >= 380);
    let mut wrong = Vec::new();
    for case in &cases {
        let score =
            scorer(&record(&case.task, &case.answer, &Value::Object(case.meta.clone()))).unwrap().score(&case.response);
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        let got = (score.value, score.lenient, score.exact_form());
        let expected = (case.value, case.lenient, case.exact_form);
        let ours = near(got.0, expected.0) && near(got.1, expected.1) && near(got.2, expected.2);
        let partial_credit = case.partial_credit.is_none_or(|expected| near(score.partial_credit, expected));
        let published = case.peers["vlmevalkit"].is_some_and(|published| near(published, case.value));
        if !(ours && partial_credit && published == case.differs.is_none()) {
            wrong.push(format!(
                "{} `{}` {:?}: {got:?}, expected {expected:?}: {case:?}",
                case.task, case.answer, case.response
            ));
        }
        assert!(got.2 <= got.0 && got.0 <= got.1, "{case:?}: {score:?}");
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn recorded_numbers_of_the_published_formulas() {
    #[derive(Deserialize)]
    struct Recorded {
        answer: String,
        meta: Value,
        response: String,
        value: f64,
        partial_credit: Option<f64>,
    }
    let scorers: Map<String, Value> = fixture("reference.json");
    for task in ["anls", "vqa", "relaxed", "iou"] {
        let cases: Vec<Recorded> = serde_json::from_value(scorers[task].clone()).unwrap();
        assert!(cases.len() >= 200);
        let scored = cases.iter().filter(|case| case.value > 0.0).count();
        assert!(scored > cases.len() / 5 && scored < cases.len(), "{task}: {scored} cases earn something");
        for case in &cases {
            let score = scorer(&record(task, &case.answer, &case.meta)).unwrap().score(&case.response);
            let place = format!("{task}: `{}` {} {:?}: {score:?}", case.answer, case.meta, case.response);
            assert!((score.value - case.value).abs() <= 1e-12, "{place}, expected {}", case.value);
            assert!(
                case.partial_credit.is_none_or(|partial_credit| (score.partial_credit - partial_credit).abs() <= 1e-12),
                "{place}, expected {:?}",
                case.partial_credit
            );
        }
    }
}

/// A question or two for each scorer.
fn questions() -> Vec<Record> {
    let ten = ["2", "two", "2", "red", "red", "red", "don't", "a b", "1,000", "50%"];
    [
        ("iou", "10 10 60 60", json!({"space": "absolute-resized", "size": [100, 80], "resized": [112, 84]})),
        ("iou", "1 2 30 40", json!({"space": "unit", "size": [100, 80], "style": "direct"})),
        ("anls", "12.5% of it", json!({"answers": ["12.5% of it", "answer"]})),
        ("anls", "yes", json!({"style": "think"})),
        ("containment", "no", json!({})),
        ("containment", "1 2", json!({"formula": true, "style": "direct"})),
        ("vqa", "2", json!({"answers": ten})),
        ("relaxed", "12.5%", json!({"answers": ["12.5%", "red"]})),
        ("relaxed", "1", json!({"style": "direct"})),
        ("yes-no", "yes", json!({})),
        ("yes-no", "no", json!({"style": "think"})),
        ("choice", "A", json!({"options": ["red", "dark red", "2", "no"]})),
        ("choice", "B", json!({"options": ["1", "12", "yes"], "style": "direct"})),
        ("exact", "2.5", json!({"answers": ["2.5", "dark red"]})),
        ("list", "red, 2, no", json!({})),
        ("maths", "\\frac{1}{2}", json!({})),
        ("maths", "(2, 50\\%)", json!({"style": "direct", "chance": 0.1})),
    ]
    .into_iter()
    .map(|(task, answer, meta)| record(task, answer, &meta))
    .collect()
}

/// Text out of pieces that scorers look for, and of random characters and bytes.
fn scribble(rng: &mut Rng) -> String {
    const PIECES: [&str; 62] = [
        "<answer>",
        "</answer>",
        "<think>",
        "</think>",
        "yes",
        "no",
        "A",
        "b",
        "(",
        ")",
        "[",
        "]",
        "{\"bbox_2d\": ",
        "}",
        "```json\n",
        "```",
        "1",
        "2",
        "12.5",
        "%",
        ",",
        ", ",
        ".",
        " ",
        "\n",
        "\t",
        "red",
        "dark red",
        "the answer is ",
        "answer:",
        "answer:a.",
        "don't",
        "dont",
        "two",
        "1,000",
        "-",
        "+",
        "e5",
        "\"",
        "'",
        "\u{ff21}",
        "\u{ff12}",
        "\u{3002}",
        "\0",
        "\u{1f642}",
        "\u{130}",
        "\u{3a3}",
        "10 10 60 60",
        "A dog",
        "B",
        "not ",
        "wait, no, ",
        "option ",
        "so ",
        " is right",
        "答案是",
        "ではなく",
        "\u{201c}",
        "?",
        "because ",
        "\u{661}",
        "{\"answer\": \"B\"}",
    ];
    let mut text = String::new();
    for _ in 0..rng.random_range(0..20) {
        match rng.random_range(0..10) {
            0 => text.extend(char::from_u32(rng.random_range(0..0x11_0000))),
            1 => {
                let bytes: Vec<u8> = (0..rng.random_range(0..8)).map(|_| rng.random_range(0..=255)).collect();
                text += &String::from_utf8_lossy(&bytes);
            }
            _ => text += PIECES[rng.random_range(0..PIECES.len())],
        }
    }
    text
}

#[test]
fn scores_keep_their_bounds_whatever_the_response() {
    let questions = questions();
    let scorers: Vec<_> = questions.iter().map(|question| scorer(question).unwrap()).collect();
    let mut rng = rng::stream(7, "scribble", &[]);
    let mut parsed = 0;
    for _ in 0..4000 {
        let response = scribble(&mut rng);
        for (question, scorer) in questions.iter().zip(&scorers) {
            let score = scorer.score(&response);
            let place = format!("{} `{}` {response:?}: {score:?}", question.task, question.answer);
            assert!((0.0..=1.0).contains(&score.value) && (0.0..=1.0).contains(&score.partial_credit), "{place}");
            assert!(score.lenient >= score.value && score.lenient <= 1.0, "{place}");
            assert_eq!(score.correct, score.value == 1.0, "{place}");
            assert_eq!(score.raw_partial_credit, score.partial_credit, "{place}");
            assert!(
                score.parsed || score.value == 0.0 && score.partial_credit == 0.0 && !score.fault.is_empty(),
                "{place}"
            );
            assert!(!score.well_formed || score.parsed || question.meta.contains_key("style"), "{place}");
            parsed += usize::from(score.parsed);
        }
    }
    assert!(parsed > 4000, "only {parsed} responses could be read: the bounds were hardly tried");
}

#[test]
fn a_blank_response_earns_nothing_by_any_rule() {
    for question in questions() {
        for blank in ["", " ", "\n\t", "\u{3000}", "<answer></answer>", "<answer> </answer>"] {
            let score = scorer(&question).unwrap().score(blank);
            assert_eq!((score.value, score.lenient, score.parsed), (0.0, 0.0, false), "{} {blank:?}", question.task);
        }
    }
}

#[test]
fn the_time_is_linear_in_the_response() {
    let long = |piece: &str| piece.repeat(200_000 / piece.len());
    let pieces = [
        "the answer is A or B, 12.5% (1, 2) yes no ",
        "answer:",
        "answer is a ",
        "answer:a.",
        "answer is\ta",
        "<answer>",
        "</answer>",
        "<think>",
        "\"",
        "[",
        "(1,2,",
        "```",
        "1.",
        "1,",
        "9",
        " ",
        "red ",
        "a a ",
        ".",
        "\n",
        "\u{ff21}",
        "((((((b)",
        "{\"bbox_2d\":",
        "not A ",
        "wait, no, B. ",
        "答案是B",
        "-",
        "A-",
        "{\"answer\": \"B\"}",
        "yes/no ",
    ];
    let questions = questions();
    for piece in pieces {
        let response = long(piece);
        for question in &questions {
            let scorer = scorer(question).unwrap();
            let time = |_| {
                let started = Instant::now();
                assert!(scorer.score(&response).lenient <= 1.0, "{piece}");
                started.elapsed()
            };
            // Milliseconds; with a square in the length, many seconds each time. Another program may take the processor once.
            let quick = (0..3).map(time).any(|took| took < Duration::from_secs(2));
            assert!(quick, "{} {piece:?}", question.task);
        }
    }
}

#[test]
fn every_scorer_has_its_name_and_a_version() {
    for question in questions() {
        let scorer = scorer(&question).unwrap();
        let (name, version) = (scorer.name(), scorer.version());
        assert_eq!(name, question.task);
        assert!(version >= 1);
        assert!(NAMES.contains(&name));
    }
}

/// A response with what math-verify says of it (`record_maths.py`).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BesideMathVerify {
    answer: String,
    response: String,
    math_verify: u8,
    value: u8,
    why: Option<String>,
}

#[test]
fn maths_agrees_with_math_verify_but_for_what_the_documentation_lists() {
    let cases: Vec<BesideMathVerify> = fixture("math_verify.json");
    assert!(cases.len() >= 300);
    let docs = include_str!("../../../docs/scorers.md");
    for case in &cases {
        let score = scorer(&record("maths", &case.answer, &json!({}))).unwrap().score(&case.response);
        assert_eq!(score.value, f64::from(case.value), "{case:?}");
        assert_eq!(case.why.is_some(), case.value != case.math_verify, "{case:?}");
        assert!(case.why.as_ref().is_none_or(|why| docs.contains(why.as_str())), "docs/scorers.md: {case:?}");
    }
}

#[test]
fn a_record_that_cannot_be_scored_is_refused_by_its_field() {
    for (task, answer, meta, message) in [
        ("iou", "1 2 3 4", json!({}), "`meta.space` is missing"),
        ("iou", "1 2 3 4", json!({"space": "pixels"}), "not `pixels`"),
        ("iou", "1 2 3 4", json!({"space": "unit"}), "`meta.size` is missing"),
        ("iou", "1 2 3 4", json!({"space": "unit", "size": [1]}), "`meta.size`: "),
        ("iou", "1 2", json!({"space": "absolute"}), "`answer`: `1 2` is no box"),
        ("iou", "3 4 1 2", json!({"space": "absolute"}), "has no area"),
        ("anls", " ", json!({}), "`answer` is blank"),
        ("anls", "x", json!({"answers": []}), "`meta.answers` is an empty list"),
        ("anls", "x", json!({"answers": ["x", " "]}), "`meta.answers` is an empty list or has a blank answer"),
        ("anls", "x", json!({"answers": "x"}), "`meta.answers`: "),
        ("containment", "x", json!({"formula": "yes"}), "`meta.formula`: "),
        ("vqa", "x", json!({}), "at least 4 people"),
        ("vqa", "x", json!({"answers": ["x", "y", "z"]}), "at least 4 people"),
        ("yes-no", "maybe", json!({}), "`answer`: `maybe` is neither yes nor no"),
        ("choice", "A", json!({}), "`meta.options` is missing"),
        ("choice", "C", json!({"options": ["x", "y"]}), "`C` is no letter of 2 options"),
        ("choice", "A", json!({"options": []}), "`A` is no letter of 0 options"),
        ("list", "a,,b", json!({}), "`a,,b` has a blank part"),
        ("maths", " ", json!({}), "`answer` is blank"),
        ("maths", "1", json!({"chance": "high"}), "`meta.chance`: "),
        ("exact", "x", json!({"style": "loud"}), "not `loud`"),
        ("sudoku", "x", json!({}), "no scorer is named `sudoku`; known: jigsaw, jigsaw-pair, countdown, iou"),
    ] {
        let error = scorer(&record(task, answer, &meta)).err().unwrap_or_else(|| panic!("{task} {answer} {meta}"));
        assert!(error.to_string().contains(message), "{task} {answer} {meta}: {error}");
        assert_eq!(error.exit_code(), 2);
    }
}
