//! `choice`: the letter of an option, as MMStar (arXiv 2403.20330), MMMU (arXiv 2311.16502), MMBench (arXiv 2307.06281) ask.
//!
//! Tokens are what white space leaves after `.()[],:;!*#{}` are made spaces. The readings, in order:
//!
//! 1. exactly one option letter, in upper case, occurs as a token, and it does so among the last 5 tokens;
//! 2. the letter (upper or lower case) after `answer is` or `answer:`, if every such place names the same one;
//! 3. a lower-case letter that is the whole answer, or stands alone in brackets;
//! 4. the one option whose text occurs as whole words; where one option's text holds another's, the longer counts.
//!
//! Strictly, only the first, in an answer of at most 5 tokens. Leniently, all, with full-width letters as ASCII. `A` and `I` before
//! a word in lower case are an article and a pronoun (`A dog`), unless marked as letters (`A. dog`, `(A) dog`) or before one of
//! a few words that follow a letter (`A is right`). An answer that
//! none of them can read is unparsed and wrong: no option is ever drawn at random.

use super::answer_score::{AnswerScore, AnswerScorer, EMPTY, share};
use super::gold::gold;
use super::text::{find_words, fold_width, plain};
use crate::data::Record;
use crate::tasks::chance::Chance;
use crate::tasks::meta::meta;
use crate::tasks::response::choice_letter;
use crate::{Error, Result};

/// Name of the scorer.
pub const NAME: &str = "choice";
/// Version of the scorer.
pub const VERSION: u32 = 1;

/// A letter counts among so many tokens at the end; a strict answer has no more of them.
const LAST: usize = 5;

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
        Ok(Choice { right, options: options.iter().map(|option| plain(&fold_width(option))).collect() })
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
    fn last_letter(&self, tokens: &[Token]) -> Result<usize, &'static str> {
        let mut found: Option<(usize, usize)> = None;
        for (i, token) in tokens.iter().enumerate() {
            let upper = token.text.len() == 1 && token.text.as_bytes()[0].is_ascii_uppercase();
            let Some(option) = self.option(token.text).filter(|_| upper) else { continue };
            if !token.marked && is_article(token.text, tokens.get(i + 1).map(|next| next.text)) {
                continue;
            }
            match found {
                Some((other, _)) if other != option => return Err("several option letters"),
                _ => found = Some((option, i)),
            }
        }
        match found {
            Some((option, i)) if i + LAST >= tokens.len() => Ok(option),
            _ => Err("no option letter"),
        }
    }

    /// Step 2.
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
                let article = matches!(word, "a" | "i") && is_article(word, next);
                let Some(option) = self.option(word).filter(|_| !article) else { continue };
                if said.is_some_and(|said| said != option) {
                    return None;
                }
                said = Some(option);
            }
        }
        said
    }

    /// Step 3.
    fn small_letter(&self, text: &str, tokens: &[Token]) -> Option<usize> {
        if let [token] = tokens {
            return self.option(token.text);
        }
        let mut said = None;
        for (at, _) in text.match_indices('(') {
            let Some((inside, _)) = text[at + 1..].get(..2).and_then(|two| two.split_once(')')) else { continue };
            let Some(option) = self.option(inside) else { continue };
            if said.is_some_and(|said| said != option) {
                return None;
            }
            said = Some(option);
        }
        said
    }

    /// Step 4.
    fn only_text(&self, text: &str) -> Option<usize> {
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
            if !at.is_empty() {
                found.push(i);
            }
            for start in at {
                text[start..start + option.len()].fill(b'\n'); // so that no shorter option is found within it
            }
        }
        match found[..] {
            [only] => Some(only),
            _ => None,
        }
    }

    fn lenient(&self, answer: &str) -> Option<usize> {
        let text = fold_width(answer);
        let tokens = tokens(&text);
        self.last_letter(&tokens)
            .ok()
            .or_else(|| self.announced(&text))
            .or_else(|| self.small_letter(&text, &tokens))
            .or_else(|| self.only_text(&text))
    }
}

/// Words in lower case that follow a letter used as a letter, and hardly an article.
const AFTER_A_LETTER: [&str; 11] = ["is", "was", "because", "since", "as", "and", "or", "but", "for", "seems", "would"];

/// Is this letter, without marks around it, an article or a pronoun before this word?
fn is_article(letter: &str, next: Option<&str>) -> bool {
    let word = next.is_some_and(|next| next.starts_with(char::is_lowercase) && !AFTER_A_LETTER.contains(&next));
    word && matches!(letter, "A" | "I" | "a" | "i")
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Token<'a> {
    text: &'a str,
    /// A mark stands directly before or after it.
    marked: bool,
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    text.split_whitespace()
        .flat_map(|word| {
            let parts = word.split(MARKS).filter(|part| !part.is_empty());
            parts.map(move |part| Token { text: part, marked: part.len() < word.len() })
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
            return AnswerScore::unread(EMPTY, 0.0);
        }
        let tokens = tokens(answer);
        let strict = if tokens.len() > LAST { Err("more than a letter") } else { self.last_letter(&tokens) };
        match strict {
            Ok(said) => AnswerScore::read(share(said == self.right), share(said == self.right)),
            Err(fault) => AnswerScore::unread(fault, share(self.lenient(answer) == Some(self.right))),
        }
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
            assert_eq!(choice.only_text(text), option, "{text:?}");
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
