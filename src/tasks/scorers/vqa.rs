//! `vqa`: VQA accuracy (arXiv 1505.00468), as TextVQA (arXiv 1904.08920) uses it.
//!
//! An answer earns `min(1, matches / 3)`, averaged over the subsets that leave out one of the (10) human answers. Answer
//! and gold answers are first normalised as in the benchmark's evaluation: punctuation, digit words, articles, contractions.

use super::answer_score::{AnswerScore, AnswerScorer, EMPTY};
use super::gold::golds;
use super::text::{bare, contains_words};
use crate::data::Record;
use crate::{Error, Result};
use std::collections::HashMap;
use std::sync::LazyLock;

/// Name of the scorer.
pub const NAME: &str = "vqa";
/// Version of the scorer.
pub const VERSION: u32 = 2;

/// So many agreeing humans make an answer wholly right.
const AGREEING: f64 = 3.0;

/// With fewer gold answers none could be wholly right when one is left out.
const LEAST_GOLDS: usize = 4;

/// The human answers to one question.
#[derive(Debug, Clone)]
pub struct Vqa {
    /// Normalised; the same one as often as it was given.
    golds: Vec<String>,
}

impl Vqa {
    /// A scorer for these human answers; an input error if they are fewer than 4.
    pub fn new(golds: &[String]) -> Result<Self> {
        if golds.len() < LEAST_GOLDS {
            return Err(Error::input(format!(
                "field `meta.answers`: VQA accuracy needs the answers of at least {LEAST_GOLDS} people (TextVQA has 10), not \
                 {}; for one gold answer use the scorer `exact`",
                golds.len()
            )));
        }
        Ok(Vqa { golds: golds.iter().map(|gold| normalise(gold)).collect() })
    }

    /// From a record's `meta.answers`.
    pub fn from_record(record: &Record) -> Result<Self> {
        Vqa::new(&golds(record)?)
    }

    /// Accuracy of a normalised answer.
    fn accuracy(&self, answer: &str) -> f64 {
        let all = self.golds.len() as f64;
        let matches = self.golds.iter().filter(|gold| *gold == answer).count() as f64;
        let one_left_out = ((matches - 1.0).max(0.0) / AGREEING).min(1.0);
        let another_left_out = (matches / AGREEING).min(1.0);
        (matches * one_left_out + (all - matches) * another_left_out) / all
    }
}

impl AnswerScorer for Vqa {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> u32 {
        VERSION
    }

    /// Leniently, the best human answer that occurs in the response as whole words counts.
    fn score_answer(&self, answer: &str) -> AnswerScore {
        if answer.trim().is_empty() {
            return AnswerScore::unread(EMPTY, 0.0);
        }
        let normal = normalise(answer);
        let named = self.golds.iter().filter(|gold| contains_words(&normal, gold)).map(|gold| self.accuracy(gold));
        let bared = self.accuracy(&normalise(bare(answer)));
        AnswerScore::read(self.accuracy(&normal), named.fold(bared, f64::max))
    }
}

const PUNCTUATION: [char; 21] =
    [';', '/', '[', ']', '"', '{', '}', '(', ')', '=', '+', '\\', '_', '-', '>', '<', '@', '`', ',', '?', '!'];

/// The benchmark's normal form of an answer.
///
/// A punctuation mark that stands beside a space anywhere in the text is dropped throughout, another becomes a space; all are
/// dropped if a comma stands between two digits. Full stops go unless a digit follows. Then, word by word in lower case,
/// digit words become digits, articles go, and contractions get the apostrophe that they lack.
fn normalise(text: &str) -> String {
    let text = text.replace(['\n', '\t'], " ");
    let text = text.trim();
    let mut dropped = [false; PUNCTUATION.len()];
    let mut between_digits = false;
    let mut last = ['\0'; 2];
    for c in text.chars() {
        let [before, mark] = last;
        if mark == ' ' || c == ' ' {
            for (dropped, p) in dropped.iter_mut().zip(PUNCTUATION) {
                *dropped |= p == mark || p == c;
            }
        }
        between_digits |= before.is_ascii_digit() && mark == ',' && c.is_ascii_digit();
        last = [mark, c];
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match PUNCTUATION.iter().position(|&p| p == c) {
            Some(i) if dropped[i] || between_digits => {}
            Some(_) => out.push(' '),
            None => out.push(c),
        }
    }
    let words = without_full_stops(&out).to_lowercase();
    let mut normal = String::with_capacity(words.len());
    for word in words.split_whitespace() {
        if matches!(word, "a" | "an" | "the") {
            continue;
        }
        let word = digit(word).or_else(|| CONTRACTED.get(word).copied()).unwrap_or(word);
        if !normal.is_empty() {
            normal.push(' ');
        }
        normal += word;
    }
    normal
}

fn without_full_stops(text: &str) -> String {
    let mut chars = text.chars().peekable();
    let mut out = String::with_capacity(text.len());
    while let Some(c) = chars.next() {
        if c != '.' || chars.peek().is_some_and(char::is_ascii_digit) {
            out.push(c);
        }
    }
    out
}

fn digit(word: &str) -> Option<&'static str> {
    Some(match word {
        "none" | "zero" => "0",
        "one" => "1",
        "two" => "2",
        "three" => "3",
        "four" => "4",
        "five" => "5",
        "six" => "6",
        "seven" => "7",
        "eight" => "8",
        "nine" => "9",
        "ten" => "10",
        _ => return None,
    })
}

/// The contractions that the benchmark restores when one apostrophe is missing. (`shed`, `well`, `were` and the like are
/// words of their own and not among them.)
const CONTRACTIONS: &str = "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't \
    haven't he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've \
    needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll \
    somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd \
    there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll \
    what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't \
    would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've he'd";

/// Each contraction by every spelling of it that lacks one apostrophe.
static CONTRACTED: LazyLock<HashMap<String, &'static str>> = LazyLock::new(|| {
    let mut spellings = HashMap::new();
    for whole in CONTRACTIONS.split_whitespace() {
        for (at, _) in whole.match_indices('\'') {
            spellings.insert(format!("{}{}", &whole[..at], &whole[at + 1..]), whole);
        }
    }
    // The benchmark's table has this one the wrong way round.
    spellings.insert("somebody'd".to_string(), "somebodyd");
    spellings
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_brought_to_the_benchmarks_normal_form() {
        for (text, normal) in [
            ("Yes.", "yes"),
            ("The  Coca-Cola", "coca cola"),
            ("coca - cola", "coca cola"),
            ("Dr. Pepper", "dr pepper"),
            ("3.5", "3.5"),
            (".5", ".5"),
            ("1,000", "1000"),
            ("1,000-2", "10002"),
            ("red,blue", "red blue"),
            ("red, blue", "red blue"),
            ("none", "0"),
            ("Ten", "10"),
            ("eleven", "eleven"),
            ("a the an", ""),
            ("dont", "don't"),
            ("DON'T", "don't"),
            ("well", "well"),
            ("yalld've", "yalld've"),
            ("y'alld've", "y'all'd've"),
            ("ow's'at", "'ow's'at"),
            ("somebody'd", "somebodyd"),
            ("hello!", "hello"),
            ("hello! you", "hello you"),
            ("(a) cat", "cat"),
            ("f(x)", "f x"),
            ("what\nis\tit", "what is it"),
            ("a.b.c", "abc"),
            ("9.", "9"),
            ("\u{ff11}", "\u{ff11}"),
            ("", ""),
        ] {
            assert_eq!(normalise(text), normal, "{text:?}");
        }
    }

    #[test]
    fn one_missing_apostrophe_is_restored_and_no_more() {
        assert_eq!(CONTRACTED.get("couldnt've").copied(), Some("couldn't've"));
        assert_eq!(CONTRACTED.get("couldn'tve").copied(), Some("couldn't've"));
        assert_eq!(CONTRACTED.get("couldntve"), None);
        assert_eq!(CONTRACTED.get("shed"), None);
    }
}
