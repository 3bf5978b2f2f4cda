//! The form of questions and responses that all tasks share: `<answer>...</answer>`, in think style after `<think>...</think>`.
//!
//! Reading is strict: nothing is guessed, repaired or taken at random.
//!
//! - The answer is the content of the one `<answer>...</answer>` outside `<think>...</think>`. Tags are matched exactly.
//!   Two answer blocks, a tag inside the answer block, a block never closed or a stray closing tag: no answer.
//! - A choice is a single ASCII letter, upper or lower case.
//!
//! Whether the response as a whole has the requested form ([`check_format`]) is a separate question: an answer can be read from a
//! response with words around its block, which is not well formed.

use crate::data::IMAGE_PLACEHOLDER;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Which form of response the question asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Style {
    /// Only `<answer>...</answer>`.
    Direct,
    /// `<think>...</think>`, then `<answer>...</answer>`.
    Think,
}

/// Ask for `what` in the answer tags, after thinking if the style says so.
pub fn ask(style: Style, what: &str) -> String {
    match style {
        Style::Direct => format!("Answer only <answer>{what}</answer>."),
        Style::Think => format!("First think in <think></think>, then answer <answer>{what}</answer>."),
    }
}

/// The style that a prompt asks for by naming its tags; `None` if it does not name answer tags.
pub fn asked_style(prompt: &str) -> Option<Style> {
    let thinks = prompt.contains("<think>");
    prompt.contains("<answer>").then_some(if thinks { Style::Think } else { Style::Direct })
}

/// A response in the form that `style` asks for.
pub fn respond(style: Style, thought: &str, answer: &str) -> String {
    match style {
        Style::Direct => format!("<answer>{answer}</answer>"),
        Style::Think => format!("<think>{thought}</think><answer>{answer}</answer>"),
    }
}

/// A question with its image: before it, as is usual, or after it.
pub fn with_image(question: &str, question_first: bool) -> String {
    match question_first {
        true => format!("{question}\n{IMAGE_PLACEHOLDER}"),
        false => format!("{IMAGE_PLACEHOLDER}\n{question}"),
    }
}

/// Why a response holds no answer, or is not well formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResponseError {
    /// No answer block outside think.
    NoAnswer,
    /// More than one answer block.
    SeveralAnswers,
    /// A block is never closed.
    Unclosed,
    /// A tag inside a block, or a closing tag without its opening one.
    StrayTag,
    /// Nothing in the answer block.
    Empty,
    /// Not one letter of the choices.
    NotChoice,
    /// Think style without a think block at its beginning.
    NoThink,
    /// Something besides the blocks that were asked for.
    ExtraText,
}

impl fmt::Display for ResponseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ResponseError::NoAnswer => "no answer block",
            ResponseError::SeveralAnswers => "several answer blocks",
            ResponseError::Unclosed => "unclosed block",
            ResponseError::StrayTag => "stray tag",
            ResponseError::Empty => "empty answer",
            ResponseError::NotChoice => "not one of the choices",
            ResponseError::NoThink => "no think block first",
            ResponseError::ExtraText => "text outside the blocks",
        })
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Tag {
    ThinkOpen,
    ThinkClose,
    AnswerOpen,
    AnswerClose,
}

const TAGS: [(&str, Tag); 4] = [
    ("<think>", Tag::ThinkOpen),
    ("</think>", Tag::ThinkClose),
    ("<answer>", Tag::AnswerOpen),
    ("</answer>", Tag::AnswerClose),
];

/// Every tag of `text` with the byte range it covers.
fn tags(text: &str) -> impl Iterator<Item = (usize, usize, Tag)> {
    text.match_indices('<').filter_map(|(start, _)| {
        let rest = &text[start..];
        TAGS.iter().find(|(word, _)| rest.starts_with(word)).map(|&(word, tag)| (start, start + word.len(), tag))
    })
}

/// Content of the one answer block outside think, untrimmed.
pub fn answer_block(response: &str) -> Result<&str, ResponseError> {
    enum State {
        Outside,
        Think,
        Answer(usize),
    }
    let mut state = State::Outside;
    let mut block = None;
    for (start, end, tag) in tags(response) {
        state = match (state, tag) {
            (State::Outside, Tag::ThinkOpen) => State::Think,
            (State::Think, Tag::ThinkClose) => State::Outside,
            (State::Think, _) => State::Think, // what is only thought is no answer
            (State::Outside, Tag::AnswerOpen) if block.is_some() => return Err(ResponseError::SeveralAnswers),
            (State::Outside, Tag::AnswerOpen) => State::Answer(end),
            (State::Answer(from), Tag::AnswerClose) => {
                block = Some(&response[from..start]);
                State::Outside
            }
            (State::Answer(_), _) | (State::Outside, _) => return Err(ResponseError::StrayTag),
        };
    }
    match state {
        State::Outside => block.ok_or(ResponseError::NoAnswer),
        State::Think | State::Answer(_) => Err(ResponseError::Unclosed),
    }
}

/// The choice (from 0) that an answer block names by its letter, of `choices` choices.
pub fn choice_letter(block: &str, choices: usize) -> Result<usize, ResponseError> {
    match block.trim_ascii().as_bytes() {
        [] => Err(ResponseError::Empty),
        [byte] => match byte.to_ascii_uppercase().checked_sub(b'A').map(usize::from) {
            Some(choice) if choice < choices => Ok(choice),
            _ => Err(ResponseError::NotChoice),
        },
        _ => Err(ResponseError::NotChoice),
    }
}

/// Does the whole response have the form that `style` asks for: `<answer>...</answer>`, in think style after
/// `<think>...</think>`, each block once, no tags inside, something in the answer, only white space around?
pub fn check_format(response: &str, style: Style) -> Result<(), ResponseError> {
    let mut rest = response.trim_ascii();
    if style == Style::Think {
        rest = rest.strip_prefix("<think>").ok_or(ResponseError::NoThink)?;
        let (thought, after) = rest.split_once("</think>").ok_or(ResponseError::Unclosed)?;
        no_tags(thought)?;
        rest = after.trim_ascii_start();
    }
    let Some(inside) = rest.strip_prefix("<answer>") else {
        let answered = tags(rest).any(|(_, _, tag)| tag == Tag::AnswerOpen);
        return Err(if answered { ResponseError::ExtraText } else { ResponseError::NoAnswer });
    };
    let (block, after) = inside.split_once("</answer>").ok_or(ResponseError::Unclosed)?;
    no_tags(block)?;
    if is_blank(block) {
        return Err(ResponseError::Empty);
    }
    if tags(after).any(|(_, _, tag)| tag == Tag::AnswerOpen) {
        return Err(ResponseError::SeveralAnswers);
    }
    if after.is_empty() { Ok(()) } else { Err(ResponseError::ExtraText) }
}

fn no_tags(text: &str) -> Result<(), ResponseError> {
    if tags(text).next().is_some() { Err(ResponseError::StrayTag) } else { Ok(()) }
}

fn is_blank(text: &str) -> bool {
    text.trim_ascii().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_requested_form_is_the_whole_response() {
        for (style, response, expected) in [
            (Style::Direct, "<answer>1 1 1 1</answer>", Ok(())),
            (Style::Direct, " \n<answer>x</answer>\n", Ok(())),
            (Style::Direct, "", Err(ResponseError::NoAnswer)),
            (Style::Direct, "<answer> </answer>", Err(ResponseError::Empty)),
            (Style::Direct, "It is <answer>1 2</answer>", Err(ResponseError::ExtraText)),
            (Style::Direct, "<answer>1 2</answer>.", Err(ResponseError::ExtraText)),
            (Style::Direct, "<think>a</think><answer>1 2</answer>", Err(ResponseError::ExtraText)),
            (Style::Direct, "<answer>1</answer><answer>2</answer>", Err(ResponseError::SeveralAnswers)),
            (Style::Direct, "<answer><answer>1</answer></answer>", Err(ResponseError::StrayTag)),
            (Style::Direct, "<answer>1 2", Err(ResponseError::Unclosed)),
            (Style::Think, "<think>a</think><answer>1 2</answer>", Ok(())),
            (Style::Think, "<think></think>\n\n<answer>1 2</answer> ", Ok(())),
            (Style::Think, "<answer>1 2</answer>", Err(ResponseError::NoThink)),
            (Style::Think, "<answer>1 2</answer><think>a</think>", Err(ResponseError::NoThink)),
            (Style::Think, "<think>a<answer>1 2</answer>", Err(ResponseError::Unclosed)),
            (Style::Think, "<think>a</think>", Err(ResponseError::NoAnswer)),
            (Style::Think, "<think>a</think> so <answer>1 2</answer>", Err(ResponseError::ExtraText)),
            (Style::Think, "<think>a</think><think>b</think><answer>1 2</answer>", Err(ResponseError::ExtraText)),
            (Style::Think, "<think><think>a</think></think><answer>1</answer>", Err(ResponseError::StrayTag)),
            (Style::Think, "<think><answer>1</answer></think><answer>1</answer>", Err(ResponseError::StrayTag)),
        ] {
            assert_eq!(check_format(response, style), expected, "{style:?} {response}");
        }
    }

    #[test]
    fn a_choice_is_one_letter_of_those_offered() {
        assert_eq!(choice_letter(" C\n", 8), Ok(2));
        assert_eq!(choice_letter("c", 8), Ok(2));
        assert_eq!(choice_letter("", 8), Err(ResponseError::Empty));
        for block in ["I", "AB", "A.", "3", "Ä", "А", "@", "["] {
            assert_eq!(choice_letter(block, 8), Err(ResponseError::NotChoice), "{block}");
        }
    }
}
