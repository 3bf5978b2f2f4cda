//! Which part of a response is its answer.

use super::super::negation::negated;
use super::super::text::plain;
use super::parser::formula;
use super::tokens::braced;
use super::value::Answer;

/// Words of an answer that may be text.
const MAX_WORDS: usize = 6;
/// Boxes that are looked at, from the end.
const MAX_BOXES: usize = 32;

/// The answer of a text.
pub fn read(text: &str) -> Option<Answer> {
    if let Some(boxed) = boxed(text) {
        return formula(boxed).or_else(|| words(boxed));
    }
    let announced =
        after_last(text, &["####"]).or_else(|| after_last(text, &["answer is", "answer:", "answer**:", "answer:**"]));
    if let Some(said) = announced
        .map(bare)
        .and_then(|said| formula(said).or_else(|| words(said)).or_else(|| formula(last_formula(said)?)))
    {
        return Some(said);
    }
    let whole = bare(text);
    let by_place = || formula(last_formula(text)?);
    let by_number = || {
        let number = last_number(text)?;
        let start = number.as_ptr() as usize - text.as_ptr() as usize;
        formula(number).filter(|_| !negated(text, start))
    };
    formula(whole).or_else(by_place).or_else(by_number).or_else(|| words(whole))
}

/// A short text without a number.
fn words(text: &str) -> Option<Answer> {
    let is_short = (1..=MAX_WORDS).contains(&text.split_whitespace().count());
    let said = plain(text.trim_matches(|c: char| !c.is_alphanumeric()));
    (is_short && !said.is_empty() && !text.contains(|c: char| c.is_ascii_digit())).then_some(Answer::Text(said))
}

/// What stands in the last `\boxed{...}` that is whole, of the last few.
fn boxed(text: &str) -> Option<&str> {
    let command = |(at, _): (usize, &str)| {
        let rest = &text[at + 1..];
        rest.strip_prefix("boxed").or_else(|| rest.strip_prefix("fbox"))
    };
    text.rmatch_indices('\\').filter_map(command).take(MAX_BOXES).find_map(|rest| braced(rest.trim_start()))
}

/// What follows the last of these words, in any case, to the end of its line or sentence.
fn after_last<'a>(text: &'a str, words: &[&str]) -> Option<&'a str> {
    let lower = text.to_ascii_lowercase();
    let at = words.iter().filter_map(|word| Some(lower.rfind(word)? + word.len())).max()?;
    let rest = text[at..].trim_start_matches(|c: char| c.is_whitespace() || matches!(c, ':' | '*'));
    let line = rest.lines().next()?;
    let sentence = line.find(". ").map_or(line, |end| &line[..end]);
    Some(sentence).filter(|said| !said.trim().is_empty())
}

/// A text without the signs of a formula around it, marks of emphasis, quotes and a full stop at its end.
fn bare(text: &str) -> &str {
    let mut text = text.trim();
    loop {
        let before = text.len();
        text = text.trim_end_matches(['.', ',', ':', ';']).trim_matches(['*', '"', '`', '\u{201c}', '\u{201d}']).trim();
        for (open, close) in [("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")] {
            let inside = text.strip_prefix(open).and_then(|text| text.strip_suffix(close));
            text = inside.filter(|inside| !inside.contains(open)).unwrap_or(text).trim();
        }
        if text.len() == before {
            return text;
        }
    }
}

/// The last formula of a text.
fn last_formula(text: &str) -> Option<&str> {
    let spans = [("\\(", "\\)"), ("\\[", "\\]"), ("$", "$")].into_iter().filter_map(|(open, close)| {
        let end = text.rfind(close)?;
        let start = text[..end].trim_end_matches('$').rfind(open)? + open.len();
        Some((end, text.get(start..end)?.trim_matches('$')))
    });
    spans.max_by_key(|(end, _)| *end).map(|(_, span)| span).filter(|span| !span.trim().is_empty())
}

/// The last number of a text, with its sign, fraction and percent sign.
pub fn last_number(text: &str) -> Option<&str> {
    let is_part = |c: char| c.is_ascii_digit() || matches!(c, '.' | ',' | '/');
    let end = text.rfind(|c: char| c.is_ascii_digit())? + 1;
    let start = text[..end]
        .rfind(|c: char| !is_part(c))
        .map_or(0, |at| at + text[at..].chars().next().map_or(1, char::len_utf8));
    let digits = start + text[start..end].find(|c: char| c.is_ascii_digit() || c == '.')?;
    let before = &text[..digits];
    let signed =
        before.ends_with('-') && !before[..before.len() - 1].ends_with(|c: char| c.is_alphanumeric() || c == ')');
    let percent = text[end..].starts_with('%');
    text.get(digits - usize::from(signed)..end + usize::from(percent))
}
