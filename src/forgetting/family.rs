//! Which kind of knowledge a benchmark asks for.

use crate::Result;
use crate::data::{IMAGE_PLACEHOLDER, Record};

/// The family of one example: the one it names itself (`meta.family`, a column `family` of its file); else that of the known benchmark; else
/// "text" if its question has no image, or that of its scorer.
pub fn family_of(example: &Record, benchmark: Option<&str>, scorer: &str) -> String {
    let named = example.meta.get("family").and_then(serde_json::Value::as_str);
    let has_image = || example.prompt().iter().any(|message| message.content.contains(IMAGE_PLACEHOLDER));
    named.unwrap_or_else(|| if benchmark.is_some() || has_image() { family(benchmark, scorer) } else { "text" }).into()
}

/// The family that all examples of a benchmark are of; of examples of several, that of the known benchmark, or else of the scorer.
///
/// # Errors
/// Those of the examples.
pub fn common_family(
    mut examples: impl Iterator<Item = Result<String>>,
    benchmark: Option<&str>,
    scorer: &str,
) -> Result<String> {
    let of_scorer = || family(benchmark, scorer).to_string();
    let first = examples.next().transpose()?.unwrap_or_else(of_scorer);
    for other in examples {
        if other? != first {
            return Ok(of_scorer());
        }
    }
    Ok(first)
}

/// The family of a known benchmark, or else of the scorer that scores it.
fn family(benchmark: Option<&str>, scorer: &str) -> &'static str {
    let name = benchmark.unwrap_or(scorer).to_lowercase();
    let begins = |with: &[&str]| with.iter().any(|start| name.starts_with(start));
    if begins(&["refcoco", "iou"]) {
        "grounding"
    } else if begins(&["docvqa", "infovqa", "ocr", "textvqa", "chartqa", "anls", "containment", "vqa", "relaxed"]) {
        "OCR and documents"
    } else if begins(&["pope", "hallusion"]) {
        "hallucination"
    } else if begins(&["mmmu", "scienceqa", "ai2d"]) {
        "college and science"
    } else if begins(&["jigsaw"]) {
        "puzzles"
    } else {
        "general VQA"
    }
}

#[cfg(test)]
mod tests {
    use super::{common_family, family, family_of};
    use crate::data::Record;
    use serde_json::json;

    #[test]
    fn a_question_without_image_is_text_unless_it_or_its_benchmark_says_otherwise() {
        let example = |question: &str, meta: serde_json::Value| -> Record {
            let turns = json!([{"role": "user", "content": question}, {"role": "assistant", "content": "Au"}]);
            let rest = json!({"id": "1", "task": "containment", "answer": "Au", "source": "s", "seed": 0});
            let mut record = rest.as_object().unwrap().clone();
            record.extend([("messages".to_string(), turns), ("meta".to_string(), meta)]);
            serde_json::from_value(record.into()).unwrap()
        };
        let plain = example("Symbol of gold?", json!({}));
        assert_eq!(family_of(&plain, None, "containment"), "text");
        assert_eq!(family_of(&plain, Some("mmmu_val"), "choice"), "college and science");
        assert_eq!(family_of(&example("<image>Which word?", json!({})), None, "containment"), "OCR and documents");
        assert_eq!(family_of(&example("Symbol of gold?", json!({"family": "facts"})), None, "containment"), "facts");
    }

    #[test]
    fn a_benchmark_has_the_family_of_all_its_examples_or_that_of_its_scorer() {
        let common = |families: &[&str]| {
            common_family(families.iter().map(|name| Ok(name.to_string())), None, "containment").unwrap()
        };
        assert_eq!(common(&["facts", "facts"]), "facts");
        assert_eq!(common(&["facts", "facts", "text"]), "OCR and documents");
        assert_eq!(common(&[]), "OCR and documents");
    }

    #[test]
    fn a_known_benchmark_decides_before_its_rule() {
        for (benchmark, scorer, expected) in [
            (Some("refcoco+_testA"), "iou", "grounding"),
            (Some("pope"), "yes-no", "hallucination"),
            (Some("mme"), "yes-no", "general VQA"),
            (Some("mmmu_val"), "choice+exact", "college and science"),
            (Some("ocrbench"), "containment", "OCR and documents"),
            (None, "iou", "grounding"),
            (None, "choice", "general VQA"),
            (None, "jigsaw", "puzzles"),
        ] {
            assert_eq!(family(benchmark, scorer), expected, "{benchmark:?} {scorer}");
        }
    }
}
