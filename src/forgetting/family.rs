//! Which kind of knowledge a benchmark asks for.

/// The family of a known benchmark, or else of the scorer that scores it.
pub fn family(benchmark: Option<&str>, scorer: &str) -> &'static str {
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
    use super::family;

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
