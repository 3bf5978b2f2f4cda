//! The words of a question, and where its images go.
//!
//! A template has slots: `{question}`; `{expression}`, the same or what stands in `<ref>...</ref>` in it; `{hint}`, a line
//! `Hint: ...` if there is one; `{options}`, a line `Options:` and one `A. ...` for each.

use super::registry::Benchmark;
use crate::data::IMAGE_PLACEHOLDER;

/// What goes into the slots.
#[derive(Debug, Clone, Copy)]
pub struct Slots<'a> {
    /// The question.
    pub question: &'a str,
    /// Text before it.
    pub hint: Option<&'a str>,
    /// Texts of the options, A first.
    pub options: &'a [String],
}

/// The question as a benchmark asks it.
pub fn render(benchmark: &Benchmark, slots: Slots) -> String {
    let mut text = String::new();
    let mut rest = benchmark.prompt;
    while let Some((before, after)) = rest.split_once('{') {
        text += before;
        let Some((slot, after)) = after.split_once('}') else { break };
        match slot {
            "question" => text += slots.question,
            "expression" => text += expression(slots.question),
            "hint" => slots.hint.iter().for_each(|hint| text += &format!("Hint: {hint}\n")),
            _ => text += &options(slots.options),
        }
        rest = after;
    }
    text += rest;
    let ask = match benchmark.open {
        Some((_, ask)) if slots.options.is_empty() => ask,
        _ => benchmark.ask,
    };
    let asked = |text: &str| text.trim_end().to_lowercase().ends_with(&ask.trim().to_lowercase());
    if !ask.is_empty() && !asked(slots.question) {
        if ask.starts_with('\n') {
            text.truncate(text.trim_end().len());
        }
        text += ask;
    }
    text.truncate(text.trim_end().len());
    text
}

/// What is referred to: VLMEvalKit's RefCOCO has it in tags, within a question of its own.
fn expression(question: &str) -> &str {
    let tagged = question.split_once("<ref>").and_then(|(_, rest)| rest.split_once("</ref>"));
    tagged.map_or(question, |(expression, _)| expression).trim()
}

fn options(options: &[String]) -> String {
    if options.is_empty() {
        return String::new();
    }
    let lines = options.iter().zip('A'..).map(|(option, letter)| format!("{letter}. {option}\n"));
    std::iter::once("Options:\n".to_string()).chain(lines).collect()
}

/// The message: images before the text, unless the text says itself where they go.
///
/// # Errors
/// The text has placeholders, but not one for each image.
pub fn with_images(text: &str, images: usize) -> Result<String, String> {
    match text.matches(IMAGE_PLACEHOLDER).count() {
        0 => Ok(IMAGE_PLACEHOLDER.repeat(images) + text),
        n if n == images => Ok(text.to_string()),
        n => Err(format!("has `{IMAGE_PLACEHOLDER}` {n} time(s), and the row has {images} image(s)")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::registry::find;
    use super::*;

    fn asked(benchmark: &str, question: &str, hint: Option<&str>, options: &[&str]) -> String {
        let options: Vec<String> = options.iter().map(|o| o.to_string()).collect();
        render(find(benchmark).unwrap(), Slots { question, hint, options: &options })
    }

    #[test]
    fn each_kind_of_question_is_asked_in_its_own_words() {
        assert_eq!(
            asked("mmstar", "What is it?", Some("Look."), &["a cat", "a {hint}"]),
            "Hint: Look.\nQuestion: What is it?\nOptions:\nA. a cat\nB. a {hint}\n\
             Please select the correct answer from the options above."
        );
        assert_eq!(
            asked("mmmu_val", "How many {options}?", None, &[]),
            "Question: How many {options}?\nAnswer the question using a single word or phrase."
        );
        assert_eq!(asked("pope", "Is there a cat?", None, &[]), "Is there a cat? Please answer yes or no.");
        assert_eq!(
            asked("mme", "Is it red? Please answer yes or no.", None, &[]),
            "Is it red? Please answer yes or no.",
            "asked once"
        );
        assert_eq!(
            asked("docvqa_val", "Who signed?", Some("not shown"), &[]),
            "Who signed?\nAnswer the question using a single word or phrase."
        );
        assert_eq!(asked("ocrbench", "what is written?", None, &[]), "what is written?");
        let box_prompt = "Locate the left dog in this image and output the bbox coordinates in JSON format.";
        assert_eq!(asked("refcoco_val", "the left dog", None, &[]), box_prompt);
        let tagged =
            "Please provide the bounding box coordinate of the region this sentence describes: <ref>the left dog</ref>";
        assert_eq!(asked("RefCOCO", tagged, None, &[]), box_prompt);
    }

    #[test]
    fn images_come_first_unless_the_text_places_them() {
        assert_eq!(with_images("Which?", 2).unwrap(), "<image><image>Which?");
        assert_eq!(with_images("Is <image> like <image>?", 2).unwrap(), "Is <image> like <image>?");
        assert_eq!(with_images("No picture.", 0).unwrap(), "No picture.");
        assert!(with_images("Is <image> red?", 2).unwrap_err().contains("1 time(s), and the row has 2 image(s)"));
    }
}
