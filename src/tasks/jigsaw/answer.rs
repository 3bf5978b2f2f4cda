//! Reading an answer out of a response, strictly: nothing is guessed, repaired or taken at random.
//!
//! - The answer is the content of the one `<answer>...</answer>` outside `<think>...</think>`. Tags are matched exactly.
//!   Two answer blocks, a tag inside the answer block, a block never closed or a stray closing tag: no answer.
//! - A tile order is numbers in ASCII digits without leading zeros, separated by white space or single commas
//!   (`3 1 2`, `3, 1, 2`); it must be a permutation of 1..=tiles.
//! - A choice is a single ASCII letter, upper or lower case.
//!
//! Whether the response as a whole has the requested form ([`check_format`]) is a question of its own: an answer can be
//! read from a response with words around its block, which is not well formed.

use super::{Permutation, Style};
use std::fmt;

/// Why an answer could not be read, or why a response is not well formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
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
    /// Something that is no number in the answer block.
    NotNumbers,
    /// Fewer numbers than tiles.
    TooFew,
    /// More numbers than tiles.
    TooMany,
    /// As many numbers as tiles, but not each tile once.
    NotPermutation,
    /// Not one letter of the choices.
    NotChoice,
    /// Think style without a think block at its beginning.
    NoThink,
    /// Something besides the blocks that were asked for.
    ExtraText,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::NoAnswer => "no answer block",
            Fault::SeveralAnswers => "several answer blocks",
            Fault::Unclosed => "unclosed block",
            Fault::StrayTag => "stray tag",
            Fault::Empty => "empty answer",
            Fault::NotNumbers => "not numbers",
            Fault::TooFew => "too few numbers",
            Fault::TooMany => "too many numbers",
            Fault::NotPermutation => "not a permutation",
            Fault::NotChoice => "not one of the choices",
            Fault::NoThink => "no think block first",
            Fault::ExtraText => "text outside the blocks",
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
pub fn answer_block(response: &str) -> Result<&str, Fault> {
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
            (State::Outside, Tag::AnswerOpen) if block.is_some() => return Err(Fault::SeveralAnswers),
            (State::Outside, Tag::AnswerOpen) => State::Answer(end),
            (State::Answer(from), Tag::AnswerClose) => {
                block = Some(&response[from..start]);
                State::Outside
            }
            (State::Answer(_), _) | (State::Outside, _) => return Err(Fault::StrayTag),
        };
    }
    match state {
        State::Outside => block.ok_or(Fault::NoAnswer),
        State::Think | State::Answer(_) => Err(Fault::Unclosed),
    }
}

/// The numbers of an answer block, at most `max` of them; a number too large to be a tile is kept as `u32::MAX`.
/// Stops at the first fault, so that an endless answer costs nothing.
pub fn numbers(block: &str, max: usize) -> Result<Vec<u32>, Fault> {
    if is_blank(block) {
        return Err(Fault::Empty);
    }
    let mut numbers = Vec::with_capacity(max);
    for part in block.split(',') {
        if is_blank(part) {
            return Err(Fault::NotNumbers);
        }
        for word in part.split_ascii_whitespace() {
            if !word.bytes().all(|b| b.is_ascii_digit()) || (word.len() > 1 && word.starts_with('0')) {
                return Err(Fault::NotNumbers);
            }
            if numbers.len() == max {
                return Err(Fault::TooMany);
            }
            numbers.push(word.parse().unwrap_or(u32::MAX));
        }
    }
    Ok(numbers)
}

/// The tile numbers (from 1) of an answer block as a permutation of `tiles` tiles.
pub fn permutation_answer(block: &str, tiles: usize) -> Result<Permutation, Fault> {
    let numbers = numbers(block, tiles)?;
    if numbers.len() < tiles {
        return Err(Fault::TooFew);
    }
    numbers
        .into_iter()
        .map(|n| (n as usize).checked_sub(1))
        .collect::<Option<Vec<usize>>>()
        .and_then(Permutation::new)
        .ok_or(Fault::NotPermutation)
}

/// The choice (from 0) that an answer block names by its letter, of `choices` choices.
pub fn letter(block: &str, choices: usize) -> Result<usize, Fault> {
    match block.trim_ascii().as_bytes() {
        [] => Err(Fault::Empty),
        [byte] => match byte.to_ascii_uppercase().checked_sub(b'A').map(usize::from) {
            Some(choice) if choice < choices => Ok(choice),
            _ => Err(Fault::NotChoice),
        },
        _ => Err(Fault::NotChoice),
    }
}

/// Does the whole response have the form that `style` asks for: `<answer>...</answer>`, in think style after
/// `<think>...</think>`, each block once, no tags inside, something in the answer, only white space around?
pub fn check_format(response: &str, style: Style) -> Result<(), Fault> {
    let mut rest = response.trim_ascii();
    if style == Style::Think {
        rest = rest.strip_prefix("<think>").ok_or(Fault::NoThink)?;
        let (thought, after) = rest.split_once("</think>").ok_or(Fault::Unclosed)?;
        no_tags(thought)?;
        rest = after.trim_ascii_start();
    }
    let Some(inside) = rest.strip_prefix("<answer>") else {
        let answered = tags(rest).any(|(_, _, tag)| tag == Tag::AnswerOpen);
        return Err(if answered { Fault::ExtraText } else { Fault::NoAnswer });
    };
    let (block, after) = inside.split_once("</answer>").ok_or(Fault::Unclosed)?;
    no_tags(block)?;
    if is_blank(block) {
        return Err(Fault::Empty);
    }
    if tags(after).any(|(_, _, tag)| tag == Tag::AnswerOpen) {
        return Err(Fault::SeveralAnswers);
    }
    if after.is_empty() { Ok(()) } else { Err(Fault::ExtraText) }
}

fn no_tags(text: &str) -> Result<(), Fault> {
    if tags(text).next().is_some() { Err(Fault::StrayTag) } else { Ok(()) }
}

fn is_blank(text: &str) -> bool {
    text.trim_ascii().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(response: &str) -> Result<String, Fault> {
        answer_block(response).and_then(|block| permutation_answer(block, 4)).map(|p| p.to_string())
    }

    #[test]
    fn an_honest_answer_is_read() {
        for response in [
            "<answer>2 1 4 3</answer>",
            "<answer>\n2\t1  4 3 </answer>",
            "<answer>2, 1,4 , 3</answer>",
            "The order is <answer>2 1 4 3</answer>.",
            "<think>1 2 3 4?</think>\n<answer>2 1 4 3</answer>",
            "<think>is it <answer>1 2 3 4</answer>? no</think><answer>2 1 4 3</answer>",
            "<think>a <think> b</think><answer>2 1 4 3</answer>",
            "a < b <b>bold</b> <answer>2 1 4 3</answer>",
        ] {
            assert_eq!(read(response).as_deref(), Ok("2 1 4 3"), "{response}");
        }
    }

    #[test]
    fn an_answer_that_is_not_one_is_refused_with_its_fault() {
        for (response, fault) in [
            ("", Fault::NoAnswer),
            ("2 1 4 3", Fault::NoAnswer),
            ("<ANSWER>2 1 4 3</ANSWER>", Fault::NoAnswer),
            ("< answer>2 1 4 3</answer >", Fault::NoAnswer),
            ("<answer></answer>", Fault::Empty),
            ("<answer> \n </answer>", Fault::Empty),
            ("<answer>1 1 1 1</answer>", Fault::NotPermutation),
            ("<answer>0 1 2 3</answer>", Fault::NotPermutation),
            ("<answer>1 2 3 5</answer>", Fault::NotPermutation),
            ("<answer>1 2 3 4294967297</answer>", Fault::NotPermutation),
            ("<answer>1 2 3 99999999999999999999999999999999</answer>", Fault::NotPermutation),
            ("<answer>2 1 4</answer>", Fault::TooFew),
            ("<answer>2143</answer>", Fault::TooFew),
            ("<answer>2 1 4 3 2</answer>", Fault::TooMany),
            ("<answer>2 1 4 3</answer><answer>2 1 4 3</answer>", Fault::SeveralAnswers),
            ("<answer>2 1 4 3</answer> or <answer>1 2 3 4</answer>", Fault::SeveralAnswers),
            ("<think><answer>2 1 4 3</answer></think>", Fault::NoAnswer),
            ("<think><answer>2 1 4 3</answer>", Fault::Unclosed),
            ("<answer>2 1 4 3", Fault::Unclosed),
            ("<answer>2 1 4 3</answer><think>", Fault::Unclosed),
            ("<answer><answer>2 1 4 3</answer></answer>", Fault::StrayTag),
            ("<answer><think>x</think>2 1 4 3</answer>", Fault::StrayTag),
            ("<answer>2 1 4 3</answer></answer>", Fault::StrayTag),
            ("2 1 4 3</answer>", Fault::StrayTag),
            ("thought</think><answer>2 1 4 3</answer>", Fault::StrayTag),
            ("<answer>٢ ١ ٤ ٣</answer>", Fault::NotNumbers),
            ("<answer>\u{ff12} \u{ff11} \u{ff14} \u{ff13}</answer>", Fault::NotNumbers),
            ("<answer>2\u{a0}1\u{a0}4\u{a0}3</answer>", Fault::NotNumbers),
            ("<answer>²  1 4 3</answer>", Fault::NotNumbers),
            ("<answer>two one four three</answer>", Fault::NotNumbers),
            ("<answer>+2 1 4 3</answer>", Fault::NotNumbers),
            ("<answer>-2 1 4 3</answer>", Fault::NotNumbers),
            ("<answer>2.0 1 4 3</answer>", Fault::NotNumbers),
            ("<answer>02 1 4 3</answer>", Fault::NotNumbers),
            ("<answer>2,,1 4 3</answer>", Fault::NotNumbers),
            ("<answer>2 1 4 3,</answer>", Fault::NotNumbers),
            ("<answer>[2, 1, 4, 3]</answer>", Fault::NotNumbers),
            ("<answer>2 1 4 3\0</answer>", Fault::NotNumbers),
        ] {
            assert_eq!(read(response), Err(fault), "{response}");
        }
    }

    #[test]
    fn ten_thousand_numbers_are_too_many_and_read_no_further_than_needed() {
        let response = format!("<answer>{}</answer>", "1 2 3 4 ".repeat(2500));
        assert_eq!(read(&response), Err(Fault::TooMany));
        assert_eq!(read(&"<answer>".repeat(100_000)), Err(Fault::StrayTag));
        assert_eq!(read(&"<".repeat(1_000_000)), Err(Fault::NoAnswer));
        let long = format!("<answer>{}</answer>", "9".repeat(1_000_000));
        assert_eq!(numbers(answer_block(&long).unwrap(), 4), Ok(vec![u32::MAX]));
    }

    #[test]
    fn the_requested_form_is_the_whole_response() {
        for (style, response, expected) in [
            (Style::Direct, "<answer>1 1 1 1</answer>", Ok(())),
            (Style::Direct, " \n<answer>x</answer>\n", Ok(())),
            (Style::Direct, "", Err(Fault::NoAnswer)),
            (Style::Direct, "<answer> </answer>", Err(Fault::Empty)),
            (Style::Direct, "It is <answer>1 2</answer>", Err(Fault::ExtraText)),
            (Style::Direct, "<answer>1 2</answer>.", Err(Fault::ExtraText)),
            (Style::Direct, "<think>a</think><answer>1 2</answer>", Err(Fault::ExtraText)),
            (Style::Direct, "<answer>1</answer><answer>2</answer>", Err(Fault::SeveralAnswers)),
            (Style::Direct, "<answer><answer>1</answer></answer>", Err(Fault::StrayTag)),
            (Style::Direct, "<answer>1 2", Err(Fault::Unclosed)),
            (Style::Think, "<think>a</think><answer>1 2</answer>", Ok(())),
            (Style::Think, "<think></think>\n\n<answer>1 2</answer> ", Ok(())),
            (Style::Think, "<answer>1 2</answer>", Err(Fault::NoThink)),
            (Style::Think, "<answer>1 2</answer><think>a</think>", Err(Fault::NoThink)),
            (Style::Think, "<think>a<answer>1 2</answer>", Err(Fault::Unclosed)),
            (Style::Think, "<think>a</think>", Err(Fault::NoAnswer)),
            (Style::Think, "<think>a</think> so <answer>1 2</answer>", Err(Fault::ExtraText)),
            (Style::Think, "<think>a</think><think>b</think><answer>1 2</answer>", Err(Fault::ExtraText)),
            (Style::Think, "<think><think>a</think></think><answer>1</answer>", Err(Fault::StrayTag)),
            (Style::Think, "<think><answer>1</answer></think><answer>1</answer>", Err(Fault::StrayTag)),
        ] {
            assert_eq!(check_format(response, style), expected, "{style:?} {response}");
        }
    }

    #[test]
    fn a_choice_is_one_letter_of_those_offered() {
        assert_eq!(letter(" C\n", 8), Ok(2));
        assert_eq!(letter("c", 8), Ok(2));
        assert_eq!(letter("", 8), Err(Fault::Empty));
        for block in ["I", "AB", "A.", "3", "Ä", "А", "@", "["] {
            assert_eq!(letter(block, 8), Err(Fault::NotChoice), "{block}");
        }
    }
}
