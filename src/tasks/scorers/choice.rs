//! `choice`: the letter of an option, as MMStar (arXiv 2403.20330), MMMU (arXiv 2311.16502), MMBench (arXiv 2307.06281) ask.
//!
//! The rule, after VLMEvalKit's, in order:
//!
//! 1. the one option whose text is the whole answer (but for a letter);
//! 2. exactly one option letter, in upper case, occurs as a token, and it does so among the last 4 tokens, or in an answer of at most 5; tokens are what white space
//!    leaves after `.()[],:;!*#{}` are made spaces;
//! 3. the letter (upper or lower case) after `answer is` or `answer:`, if every such place names the same one;
//! 4. the one option whose text occurs as whole words, in an answer at most twice as long as all options together; where one
//!    option's text holds another's, the longer counts.
//!
//! A letter or a text that is ruled out (`It is not A`) is no answer. `A` and `I` before a word in lower case are an article and a pronoun
//! (`A dog`), unless marked as letters (`A. dog`, `(A) dog`) or before one of a few words that follow a letter (`A is right`).
//!
//! Leniently, any letter that is plainly given counts ([`super::letters`]), letters of any width, the value of a JSON answer, and texts in an answer of
//! any length. The exact form is the letter alone. An answer that cannot be read is unparsed and wrong: no option is ever drawn at random.

use super::answer_score::{AnswerScore, AnswerScorer, EMPTY, share};
use super::forms::fold;
use super::gold::gold;
use super::letters::{is_article, named};
use super::negation::negated;
use super::text::{bare, find_words, plain, unfenced};
use crate::data::Record;
use crate::tasks::chance::Chance;
use crate::tasks::meta::meta;
use crate::tasks::response::choice_letter;
use crate::{Error, Result};

/// Name of the scorer.
pub const NAME: &str = "choice";
/// Version of the scorer.
pub const VERSION: u32 = 2;

/// A letter counts among so many tokens at the end, in a short answer anywhere.
const LAST: usize = 4;
/// The most tokens of a short answer.
const SHORT: usize = 5;

/// Marks that part tokens.
const MARKS: [char; 13] = ['.', '(', ')', '[', ']', ',', ':', ';', '!', '*', '#', '{', '}'];

/// The options of one question and which of them is right.
#[derive(Debug, Clone)]
pub struct Choice {
    right: usize,
    /// Lower case, white space collapsed.
    options: Vec<String>,
}

impl Choice {
    /// A scorer for these option texts (letters A, B, ... in order), of which `right` (from 0) is right. An input error if they
    /// are none, or more than letters.
    pub fn new(options: &[String], right: usize) -> Result<Self> {
        if options.is_empty() || options.len() > 26 {
            return Err(Error::input(format!("field `meta.options`: {} options, not 1 to 26", options.len())));
        }
        if right >= options.len() {
            return Err(Error::input(format!("option {right} (from 0) of {} options is not there", options.len())));
        }
        Ok(Choice { right, options: options.iter().map(|option| plain(&fold(option))).collect() })
    }

    /// From a record's `meta.options` (texts) and `answer` (letter).
    pub fn from_record(record: &Record) -> Result<Self> {
        let options: Vec<String> = meta(record, "options")?;
        let right = choice_letter(gold(record)?, options.len()).map_err(|fault| {
            Error::input(format!(
                "field `answer`: `{}` is no letter of {} options: {fault}",
                record.answer,
                options.len()
            ))
        })?;
        Choice::new(&options, right)
    }

    /// The option (from 0) that a letter of either case names.
    fn option(&self, token: &str) -> Option<usize> {
        choice_letter(token, self.options.len()).ok()
    }

    /// Step 1.
    fn whole(&self, answer: &str) -> Option<usize> {
        let said = plain(bare(answer));
        let said = said.trim_end_matches('.');
        let mut equal = (0..self.options.len()).filter(|&i| self.options[i].trim_end_matches('.') == said);
        let first = equal.next().filter(|_| said.len() > 1 || !said.starts_with(|c: char| c.is_ascii_alphabetic()))?;
        equal.next().is_none().then_some(first).filter(|_| !said.is_empty())
    }

    /// Step 2.
    fn last_letter(&self, text: &str, tokens: &[Token]) -> Result<usize, &'static str> {
        let mut found: Option<(usize, usize)> = None;
        for (i, token) in tokens.iter().enumerate() {
            let upper = token.text.len() == 1 && token.text.as_bytes()[0].is_ascii_uppercase();
            let Some(option) = self.option(token.text).filter(|_| upper) else { continue };
            let before = i.checked_sub(1).map_or("", |before| tokens[before].text);
            if !token.marked && tokens.get(i + 1).is_some_and(|next| is_article(before, token.text, next.text)) {
                continue;
            }
            match found {
                Some((other, _)) if other != option => return Err("several option letters"),
                _ => found = Some((option, i)),
            }
        }
        match found {
            Some((_, i)) if negated(text, tokens[i].start) => Err("an option letter that is ruled out"),
            Some((option, i)) if i + LAST >= tokens.len() || tokens.len() <= SHORT => Ok(option),
            _ => Err("no option letter"),
        }
    }

    /// Step 3.
    fn announced(&self, text: &str) -> Option<usize> {
        let parting = |c: char| c.is_whitespace() || MARKS.contains(&c);
        let lower = text.to_ascii_lowercase();
        let mut said = None;
        for lead in ["answer is", "answer:"] {
            for (at, _) in lower.match_indices(lead) {
                let rest = &text[at + lead.len()..];
                let rest = rest.trim_start_matches(parting);
                let rest = rest.strip_prefix("option ").or_else(|| rest.strip_prefix("Option ")).unwrap_or(rest);
                let rest = rest.trim_start_matches(parting);
                let word = rest.split(parting).next().unwrap_or_default();
                // `the answer is a dog`
                let next = rest[word.len()..].strip_prefix(char::is_whitespace);
                let next = next.and_then(|next| next.trim_start().split(parting).next());
                let article = matches!(word, "a" | "i") && next.is_some_and(|next| is_article("", word, next));
                let Some(option) = self.option(word).filter(|_| !article) else { continue };
                if next == Some("or") {
                    return None;
                }
                if said.is_some_and(|said| said != option) {
                    return None;
                }
                said = Some(option);
            }
        }
        said
    }

    /// Step 4. Leniently, a text that is ruled out does not stand in the way of another.
    fn only_text(&self, text: &str, lenient: bool) -> Option<usize> {
        let mut text = plain(text).into_bytes();
        let mut order: Vec<usize> = (0..self.options.len()).filter(|&i| !self.options[i].is_empty()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(self.options[i].len()));
        let mut found = Vec::new();
        for i in order {
            let option = &self.options[i];
            let Ok(here) = str::from_utf8(&text) else { break };
            let (mut from, mut at) = (0, Vec::new());
            while let Some(start) = find_words(here, option, from) {
                at.push(start);
                from = start + option.len();
            }
            let upheld = at.iter().any(|&start| !negated(here, start));
            if upheld || !lenient && !at.is_empty() {
                found.push((i, upheld));
            }
            for start in at {
                text[start..start + option.len()].fill(b'\n'); // so that no shorter option is found within it
            }
        }
        match found[..] {
            [(only, true)] => Some(only),
            _ => None,
        }
    }

    /// The option that the rule reads, or why it reads none.
    fn published(&self, answer: &str) -> Result<usize, &'static str> {
        if let Some(option) = self.whole(answer) {
            return Ok(option);
        }
        let fault = match self.last_letter(answer, &tokens(answer)) {
            Ok(option) => return Ok(option),
            Err(fault) => fault,
        };
        let short = answer.len() <= 2 * self.options.iter().map(String::len).sum::<usize>();
        self.announced(answer).or_else(|| self.only_text(answer, false).filter(|_| short)).ok_or(fault)
    }

    fn lenient(&self, answer: &str) -> Option<usize> {
        let folded = fold(answer);
        let text = json_answer(&folded).unwrap_or(folded.into_owned());
        let read = |text: &str| self.whole(text).or_else(|| named(text, self.options.len()));
        read(&text).or_else(|| self.published(&text).ok()).or_else(|| self.only_text(&text, true))
    }
}

/// Names of the field that holds the answer in an answer as JSON, in lower case.
const ANSWER_FIELDS: [&str; 12] = [
    "answer",
    "final_answer",
    "final answer",
    "correct_answer",
    "choice",
    "option",
    "correct_option",
    "letter",
    "selected",
    "selection",
    "prediction",
    "response",
];

/// What a JSON answer says: the text itself, the one of a list, or the field of an object that is called the answer; in a code fence or
/// with words around the object. `None` for any other text.
fn json_answer(text: &str) -> Option<String> {
    let whole = unfenced(text.trim());
    let object = || text.get(text.find('{')?..=text.rfind('}')?);
    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
    let value = parse(whole).or_else(|| parse(object()?))?;
    let value = match &value {
        serde_json::Value::Array(parts) if parts.len() == 1 => &parts[0],
        value => value,
    };
    match value {
        serde_json::Value::String(said) => Some(said.clone()),
        serde_json::Value::Object(fields) => {
            let named = |name: &str| fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name));
            let said = ANSWER_FIELDS.into_iter().find_map(named).map(|(_, value)| value);
            let only = || fields.values().next().filter(|_| fields.len() == 1);
            said.or_else(only)?.as_str().map(str::to_string)
        }
        _ => None,
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Token<'a> {
    text: &'a str,
    /// Byte offset of its first character.
    start: usize,
    /// A mark stands directly before or after it.
    marked: bool,
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    text.split_whitespace()
        .flat_map(|word| {
            let parts = word.split(MARKS).filter(|part| !part.is_empty());
            let start = |part: &str| part.as_ptr() as usize - text.as_ptr() as usize;
            parts.map(move |part| Token { text: part, start: start(part), marked: part.len() < word.len() })
        })
        .collect()
}

impl AnswerScorer for Choice {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> u32 {
        VERSION
    }

    fn chance(&self) -> Option<Chance> {
        Chance::one_of(self.options.len())
    }

    fn score_answer(&self, answer: &str) -> AnswerScore {
        if answer.trim().is_empty() {
            return AnswerScore::unread(EMPTY, 0.0).in_form(false);
        }
        let right = |option: usize| share(option == self.right);
        let lenient = self.lenient(answer).map_or(0.0, right);
        let scored = match self.published(answer) {
            Ok(said) => AnswerScore::read(right(said), lenient),
            Err(fault) => AnswerScore::unread(fault, lenient),
        };
        let tokens = tokens(answer);
        scored.in_form(matches!(&tokens[..], [token] if self.option(token.text).is_some() && token.text != token.text.to_lowercase()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_the_longest_option_counts() {
        let options = ["red", "dark red", "blue", ""].map(String::from);
        let choice = Choice::new(&options, 0).unwrap();
        for (text, option) in [
            ("It is dark red.", Some(1)),
            ("It is red", Some(0)),
            ("dark red and red", None),
            ("red or blue", None),
            ("bluered", None),
            ("", None),
            ("\u{ff32}\u{ff25}\u{ff24}", None),
        ] {
            assert_eq!(choice.only_text(text, false), option, "{text:?}");
        }
        assert_eq!(choice.lenient("\u{ff32}\u{ff25}\u{ff24} it is, you see, my friend"), Some(0));
    }

    #[test]
    fn marked_letters_are_told_from_articles() {
        let marked = |text| tokens(text).into_iter().map(|t| (t.text, t.marked)).collect::<Vec<_>>();
        assert_eq!(marked("A dog"), [("A", false), ("dog", false)]);
        assert_eq!(marked("(A) dog."), [("A", true), ("dog", true)]);
        assert_eq!(marked("A.dog **B**"), [("A", true), ("dog", true), ("B", true)]);
        assert!(marked(" .!").is_empty());
    }

    #[test]
    fn options_and_letters_have_to_fit() {
        assert!(Choice::new(&[], 0).is_err());
        assert!(Choice::new(&vec!["x".to_string(); 27], 0).is_err());
        assert!(Choice::new(&["x".to_string()], 1).is_err());
    }
}
