//! From a row of a benchmark's file to the record that everything else works on.

use super::boxes::{Corners, gold_box};
use super::prompt_template::{Slots, render, with_images};
use super::registry::{Benchmark, CIRCULAR, Group};
use crate::data::tsv::{Tsv, TsvRow, list};
use crate::data::{Message, Record};
use crate::tasks::response::asked_style;
use crate::tasks::scorers::{CoordinateSpace, NAMES};
use serde_json::{Map, Value, json};

/// Most bytes of a further column that is kept with a record.
const LONGEST_EXTRA: usize = 1024;
/// What the fields of `meta` mean to scorers; a column of such a name is not copied there.
const MEANINGFUL: [&str; 8] = ["answers", "options", "style", "space", "size", "resized", "formula", "group"];
/// Columns that are read here and not copied.
const READ: [&str; 10] =
    ["index", "question", "hint", "answer", "image", "image_path", "scorer", "category", "bbox", "corners"];
/// OCRBench's category of formulas.
const FORMULAS: &str = "Handwritten Mathematical Expression Recognition";

/// A column and what is wrong with its field.
pub(super) type Fault = (&'static str, String);

/// What a row is read by.
#[derive(Clone, Copy)]
pub(super) struct RowContext<'a> {
    /// The benchmark; `None` if each row names its scorer itself.
    pub benchmark: Option<&'static Benchmark>,
    /// `(width, height)` that an image of these sides is resized to.
    pub resize: &'a dyn Fn((u32, u32)) -> Result<(u32, u32), String>,
    /// The file has answers.
    pub is_scored: bool,
}

/// The record of a row.
pub(super) fn record(tsv: &Tsv, row: &TsvRow, reading: RowContext) -> Result<Record, Fault> {
    let options = options(row)?;
    let question = row.get("question").unwrap_or_default();
    let (scorer, text) = match reading.benchmark {
        Some(benchmark) => {
            let scorer = match benchmark.open {
                Some((scorer, _)) if options.is_empty() => scorer,
                _ => benchmark.scorer,
            };
            (scorer, render(benchmark, Slots { question, hint: row.get("hint"), options: &options }))
        }
        None => (rule_of(row)?, question.to_string()),
    };
    let content = with_images(&text, row.images.len()).map_err(|why| ("question", why))?;
    let mut meta = extras(row, &options);
    if let Some(style) = asked_style(&text).filter(|_| !meta.contains_key("style")) {
        meta.insert("style".into(), json!(style));
    }
    if !reading.is_scored {
        return Ok(finish(tsv, row, reading, scorer, content, String::new(), meta));
    }
    let answer = answer(scorer, row, &options, &mut meta)?;
    if scorer == "iou" {
        let answer = place_box(tsv, row, reading, &mut meta)?;
        return Ok(finish(tsv, row, reading, scorer, content, answer, meta));
    }
    let answer = answer.ok_or(("answer", "is empty: without its answer a question cannot be scored".to_string()))?;
    Ok(finish(tsv, row, reading, scorer, content, answer, meta))
}

fn finish(
    tsv: &Tsv,
    row: &TsvRow,
    reading: RowContext,
    scorer: &str,
    content: String,
    answer: String,
    mut meta: Map<String, Value>,
) -> Record {
    let category = reading.benchmark.map_or("category", |b| b.category);
    if let Some(category) = row.get(category) {
        meta.insert("category".into(), category.into());
    }
    if let Some(group) = group(tsv, row, reading.benchmark) {
        meta.insert("group".into(), group.into());
    }
    if reading.benchmark.is_some_and(|b| b.name == "ocrbench") {
        meta.insert("formula".into(), (row.get("category") == Some(FORMULAS)).into());
    }
    let images: Vec<String> = (0..row.images.len()).map(|k| format!("{}:{k}", row.id)).collect();
    Record {
        file_name: images.first().cloned().unwrap_or_default(),
        id: row.id.clone(),
        task: scorer.to_string(),
        messages: vec![Message { role: "user".into(), content }],
        images,
        answer,
        source: row.get("image_path").unwrap_or_default().to_string(),
        seed: 0,
        meta,
    }
}

/// Texts of the options, from column A on.
fn options(row: &TsvRow) -> Result<Vec<String>, Fault> {
    const LETTERS: [&str; 26] = [
        "A", "B", "C", "D", "E", "F", "G", "H", "I", "J", "K", "L", "M", "N", "O", "P", "Q", "R", "S", "T", "U", "V",
        "W", "X", "Y", "Z",
    ];
    let texts: Vec<Option<&str>> = LETTERS.iter().map(|letter| row.get(letter)).collect();
    let options: Vec<String> = texts.iter().map_while(|text| text.map(String::from)).collect();
    match texts.iter().skip(options.len()).position(Option::is_some) {
        None => Ok(options),
        Some(after) => Err((
            LETTERS[options.len()],
            format!("is empty, but option {} is not; options must follow each other", LETTERS[options.len() + after]),
        )),
    }
}

/// The scorer that a row names.
fn rule_of(row: &TsvRow) -> Result<&'static str, Fault> {
    let name = row.get("scorer").ok_or_else(|| ("scorer", format!("is empty; give one of: {}", NAMES.join(", "))))?;
    let known = NAMES.into_iter().find(|scorer| *scorer == name);
    known.ok_or_else(|| ("scorer", format!("`{name}` is no scorer; known: {}", NAMES.join(", "))))
}

/// What is kept of a row besides what scorers ask for.
fn extras(row: &TsvRow, options: &[String]) -> Map<String, Value> {
    let mut meta = Map::new();
    if !options.is_empty() {
        meta.insert("options".into(), json!(options));
    }
    for (column, field) in row.fields() {
        let letter = column.len() == 1 && column.as_bytes()[0].is_ascii_uppercase();
        let read = letter || column.is_empty() || READ.contains(&column) || MEANINGFUL.contains(&column);
        if !read && field.len() <= LONGEST_EXTRA {
            meta.insert(column.to_string(), field.into());
        }
    }
    if let Some(style) = row.get("style") {
        meta.insert("style".into(), style.into());
    }
    meta
}

/// The gold answer as its scorer reads it; all of them into `meta.answers` where a question may have several.
fn answer(
    scorer: &str,
    row: &TsvRow,
    options: &[String],
    meta: &mut Map<String, Value>,
) -> Result<Option<String>, Fault> {
    let Some(field) = row.get("answer") else { return Ok(None) };
    match scorer {
        "choice" => letter(field, options).map(Some),
        "yes-no" | "iou" => Ok(Some(field.to_string())),
        _ => {
            let Some(golds) = list(field).map_err(|why| ("answer", why))? else { return Ok(Some(field.to_string())) };
            if golds.is_empty() || golds.iter().any(|gold| gold.trim().is_empty()) {
                return Err(("answer", format!("`{field}` is an empty list or has a blank answer in it")));
            }
            if scorer == "list" {
                return Ok(Some(golds.join(", ")));
            }
            let first = golds[0].clone();
            meta.insert("answers".into(), json!(golds));
            Ok(Some(first))
        }
    }
}

/// The letter of an option that is there.
fn letter(field: &str, options: &[String]) -> Result<String, Fault> {
    let upper = field.to_ascii_uppercase();
    let &[letter @ b'A'..=b'Z'] = upper.as_bytes() else {
        return Err(("answer", format!("`{field}` is not the letter of an option")));
    };
    if options.is_empty() {
        return Err((
            "answer",
            format!("is the letter {upper}, but column A is empty or missing: there are no options"),
        ));
    }
    if usize::from(letter - b'A') >= options.len() {
        let last = char::from(b'A' + options.len() as u8 - 1);
        return Err(("answer", format!("is the letter {upper}, but the options end with {last}")));
    }
    Ok(upper)
}

/// The gold box in pixels of the image; and into `meta` what a scorer needs to compare a box with it.
fn place_box(tsv: &Tsv, row: &TsvRow, reading: RowContext, meta: &mut Map<String, Value>) -> Result<String, Fault> {
    let &[image] = row.images.as_slice() else {
        return Err(("image", format!("there are {} images; a box is a place in one", row.images.len())));
    };
    let size = tsv.size(image);
    let resized = (reading.resize)(size).map_err(|why| ("image", why))?;
    let space = match (row.get("space"), reading.benchmark) {
        (Some(name), None) => {
            let bad = |_| ("space", format!("`{name}` is none of absolute-resized, absolute, per-mille, unit"));
            serde_json::from_value(json!(name)).map_err(bad)?
        }
        (_, benchmark) => benchmark.and_then(|b| b.space).unwrap_or(CoordinateSpace::AbsoluteResized),
    };
    let corners = match (row.get("corners"), reading.benchmark) {
        (Some(name), None) => serde_json::from_value(json!(name))
            .map_err(|_| ("corners", format!("`{name}` is neither xyxy nor xywh")))?,
        (_, benchmark) => benchmark.and_then(|b| b.corners).unwrap_or(Corners::Xyxy),
    };
    let (column, text) = match (row.get("bbox"), row.get("answer")) {
        (Some(text), _) => ("bbox", text),
        (None, Some(text)) => ("answer", text),
        (None, None) => return Err(("answer", "is empty, and so is `bbox`: there is no box to score by".into())),
    };
    meta.insert("space".into(), json!(space));
    meta.insert("size".into(), json!([size.0, size.1]));
    meta.insert("resized".into(), json!([resized.0, resized.1]));
    gold_box(text, corners, size).map_err(|why| (column, why))
}

/// The questions that this one belongs to.
fn group(tsv: &Tsv, row: &TsvRow, benchmark: Option<&Benchmark>) -> Option<String> {
    if let (Some(group), None) = (row.get("group"), benchmark) {
        return Some(group.to_string());
    }
    if benchmark.is_some_and(|b| b.group == Group::Circular)
        && let Some(index) = row.get("index").and_then(|index| index.parse::<u64>().ok())
    {
        return Some((index % CIRCULAR).to_string());
    }
    if let Some(path) = row.get("image_path") {
        return Some(path.to_string());
    }
    // As many bytes as tell all images of a benchmark apart.
    row.images.first().map(|&image| crate::io::hex(&tsv.digest(image)[..8]))
}
