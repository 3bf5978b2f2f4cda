//! Which part of a response is its answer.

use crate::tasks::response::{Style, answer_block, check_format};

/// The fault of a response that uses answer tags though the prompt did not ask for them.
const TAGS_NOT_ASKED_FOR: &str = "answer tags not asked for";

/// The two readings of a response.
#[derive(Debug, Clone, PartialEq)]
pub struct ExtractedAnswer<'a> {
    /// The answer by the letter of what was asked, or why there is none; with its white space where it is the whole response.
    pub strict: Result<&'a str, String>,
    /// The answer by a reading that forgives form, trimmed; the strict one again where that went by one answer block.
    pub lenient: &'a str,
    /// Whether the response keeps the form that was asked for, as far as its tags go.
    pub form: Result<(), String>,
}

impl<'a> ExtractedAnswer<'a> {
    /// Read a response to a prompt that asked for `style`; `None`: that did not ask for tags.
    ///
    /// With a style, strictly: the content of the one answer block. Leniently: of the last complete one after the thought,
    /// else what follows the thought, else all of it. What is only thought is no answer in either reading.
    ///
    /// Without: the response as it is, but for a block of thought that begins it. A model that was tuned to use answer tags
    /// and uses them unasked is still read by them: it is faulted for its form, not for its knowledge.
    pub fn of(response: &'a str, style: Option<Style>) -> Self {
        let block = || answer_block(response).map(str::trim).map_err(|fault| fault.to_string());
        if let Some(style) = style {
            let (block, tail) = (block(), after_thought(response));
            let lenient = block.as_ref().map_or_else(|_| last_block(tail).unwrap_or(tail), |&block| block);
            return ExtractedAnswer {
                strict: block,
                lenient,
                form: check_format(response, style).map_err(|f| f.to_string()),
            };
        }
        let text = without_thought(response);
        match last_block(text) {
            Some(last) => {
                let block = block();
                let lenient = block.as_ref().map_or(last, |&block| block);
                ExtractedAnswer { strict: block, lenient, form: Err(TAGS_NOT_ASKED_FOR.into()) }
            }
            None => ExtractedAnswer { strict: Ok(text), lenient: after_thought(text), form: Ok(()) },
        }
    }
}

/// What follows a block of thought that begins the response; the whole response if none does.
fn without_thought(response: &str) -> &str {
    let rest = response.trim_start().strip_prefix("<think>").and_then(|rest| rest.split_once("</think>"));
    rest.map_or(response, |(_, after)| after)
}

/// What follows the last `</think>`; the whole text if nothing does.
fn after_thought(text: &str) -> &str {
    let after = text.rsplit_once("</think>").map(|(_, after)| after.trim());
    after.filter(|after| !after.is_empty()).unwrap_or(text.trim())
}

/// Content of the last complete answer block.
fn last_block(text: &str) -> Option<&str> {
    const OPEN: &str = "<answer>";
    const CLOSE: &str = "</answer>";
    let last = text.rfind(CLOSE)?;
    let inside = text[..last].rfind(OPEN)? + OPEN.len();
    let close = inside + text[inside..].find(CLOSE)?;
    Some(text[inside..close].trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(response: &str, style: Option<Style>) -> (Result<&str, String>, &str, Option<String>) {
        let reading = ExtractedAnswer::of(response, style);
        (reading.strict, reading.lenient, reading.form.err())
    }

    #[test]
    fn with_a_style_the_answer_is_in_the_one_block() {
        let fault = |text: &str| Some(text.to_string());
        let no = |text: &str| Err(text.to_string());
        for (style, response, expected) in [
            (Style::Direct, "<answer> Yes </answer>", (Ok("Yes"), "Yes", None)),
            (Style::Direct, "It is <answer>Yes</answer>.", (Ok("Yes"), "Yes", fault("text outside the blocks"))),
            (Style::Direct, "Yes", (no("no answer block"), "Yes", fault("no answer block"))),
            (
                Style::Direct,
                "<answer>No</answer> <answer>Yes</answer>",
                (no("several answer blocks"), "Yes", fault("several answer blocks")),
            ),
            (
                Style::Direct,
                "<answer>Yes</answer> <answer>No",
                (no("several answer blocks"), "Yes", fault("several answer blocks")),
            ),
            (Style::Direct, "<answer>Yes", (no("unclosed block"), "<answer>Yes", fault("unclosed block"))),
            (Style::Think, "<think>No?</think>\n<answer>Yes</answer>", (Ok("Yes"), "Yes", None)),
            (Style::Think, "<answer>Yes</answer>", (Ok("Yes"), "Yes", fault("no think block first"))),
            (Style::Think, "No?</think> Yes", (no("stray tag"), "Yes", fault("no think block first"))),
            (
                Style::Think,
                "<think><answer>No</answer>?</think> Yes",
                (no("no answer block"), "Yes", fault("stray tag")),
            ),
            (
                Style::Think,
                "<think>so <answer>Yes</answer></think>",
                (no("no answer block"), "Yes", fault("stray tag")),
            ),
        ] {
            assert_eq!(read(response, Some(style)), expected, "{style:?} {response}");
        }
    }

    #[test]
    fn without_a_style_the_answer_is_the_response() {
        let asked_not = || Some(TAGS_NOT_ASKED_FOR.to_string());
        for (response, expected) in [
            ("", (Ok(""), "", None)),
            ("  Yes\n", (Ok("  Yes\n"), "Yes", None)),
            ("<think>No?</think> Yes", (Ok(" Yes"), "Yes", None)),
            ("<think>No?", (Ok("<think>No?"), "<think>No?", None)),
            ("No?</think> Yes", (Ok("No?</think> Yes"), "Yes", None)),
            ("The <think> tag", (Ok("The <think> tag"), "The <think> tag", None)),
            ("<answer>Yes</answer>", (Ok("Yes"), "Yes", asked_not())),
            ("<think>No?</think><answer>Yes</answer>", (Ok("Yes"), "Yes", asked_not())),
            ("<think><answer>No</answer>?</think> Yes", (Ok(" Yes"), "Yes", None)),
            ("<answer>No</answer><answer>Yes</answer>", (Err("several answer blocks".into()), "Yes", asked_not())),
            ("<answer>Yes", (Ok("<answer>Yes"), "<answer>Yes", None)),
            ("</answer>Yes", (Ok("</answer>Yes"), "</answer>Yes", None)),
        ] {
            assert_eq!(read(response, None), expected, "{response}");
        }
    }

    #[test]
    fn the_last_complete_block_is_found() {
        assert_eq!(last_block("<answer>a</answer> </answer>"), Some("a"));
        assert_eq!(last_block("<answer><answer>a</answer>"), Some("a"));
        assert_eq!(last_block("</answer><answer>"), None);
        assert_eq!(last_block(&"<answer>".repeat(100_000)), None);
    }
}
