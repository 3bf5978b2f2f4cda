//! What several scorers share: numbers and words in free text, each found in one pass.

use super::negation::negated;

/// Runs of white space become one space; none at the ends.
pub fn collapse(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        out += word;
    }
    out
}

/// Lower case, collapsed white space.
pub fn plain(text: &str) -> String {
    collapse(&text.to_lowercase())
}

/// The content of a code fence that is the whole text, whatever its language is called; else the text.
pub fn unfenced(text: &str) -> &str {
    let inside = text.trim().strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
    inside.map_or(text, |inside| inside.trim_start_matches(|c: char| c.is_ascii_alphanumeric()).trim())
}

/// Words that lead up to an answer.
const LEADS: [&str; 6] =
    ["the answer is", "the final answer is", "the correct answer is", "answer is", "final answer:", "answer:"];

/// Quotes and marks that go around an answer.
const QUOTES: [(&str, &str); 6] =
    [("\"", "\""), ("'", "'"), ("`", "`"), ("*", "*"), ("\u{201c}", "\u{201d}"), ("\u{2018}", "\u{2019}")];

/// An answer without `the answer is` before it, quotes around it and a full stop after it.
pub fn bare(text: &str) -> &str {
    let mut text = text.trim();
    loop {
        let before = text.len();
        if let Some(rest) = after_lead(text) {
            text = rest.trim();
        }
        text = text.strip_suffix('.').unwrap_or(text).trim_end();
        for (open, close) in QUOTES {
            if let Some(inside) = text.strip_prefix(open).and_then(|t| t.strip_suffix(close)) {
                text = inside.trim();
            }
        }
        if text.len() == before {
            return text;
        }
    }
}

fn after_lead(text: &str) -> Option<&str> {
    LEADS.iter().find_map(|lead| {
        let (head, rest) = text.split_at_checked(lead.len())?;
        let whole = lead.ends_with(':') || !rest.starts_with(char::is_alphanumeric);
        (head.eq_ignore_ascii_case(lead) && whole).then(|| {
            let rest = rest.trim_start();
            rest.strip_prefix(':').unwrap_or(rest)
        })
    })
}

/// Do `words` occur in `text` with no letter or digit directly before or after, and not ruled out (`not red`)?
pub fn contains_words(text: &str, words: &str) -> bool {
    let mut from = 0;
    while let Some(start) = find_words(text, words, from) {
        if !negated(text, start) {
            return true;
        }
        from = start + words.len();
    }
    false
}

/// Byte offset at which `words` occur so at or after `from`, which is a character boundary.
pub fn find_words(text: &str, words: &str, mut from: usize) -> Option<usize> {
    let first = words.chars().next()?;
    loop {
        let start = from + text.get(from..)?.find(words)?;
        let before = text[..start].chars().next_back();
        let after = text[start + words.len()..].chars().next();
        if !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric) {
            return Some(start);
        }
        from = start + first.len_utf8();
    }
}

/// A text that is one finite number in ASCII digits: sign, decimal point, exponent; no `inf`, no separators.
pub fn decimal(text: &str) -> Option<f64> {
    let digits = |b: u8| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E');
    if !text.bytes().all(digits) {
        return None;
    }
    text.parse().ok().filter(|x: &f64| x.is_finite())
}

/// As [`decimal`], with commas allowed between groups of three digits before the point: `1,234.5`, not `12,5`.
pub fn grouped(text: &str) -> Option<f64> {
    if !text.contains(',') {
        return decimal(text);
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let whole = unsigned.split(['.', 'e', 'E']).next().unwrap_or_default();
    let digits = |group: &str| group.bytes().all(|b| b.is_ascii_digit());
    let mut groups = whole.split(',');
    let first = groups.next().unwrap_or_default();
    let sound = (1..=3).contains(&first.len()) && digits(first) && groups.all(|g| g.len() == 3 && digits(g));
    if !sound || unsigned[whole.len()..].contains(',') {
        return None;
    }
    decimal(&text.replace(',', ""))
}

/// A number in running text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FoundNumber {
    /// Byte offset of its first character.
    pub start: usize,
    /// Byte offset behind its last.
    pub end: usize,
    /// `None` for what looks like a number but has no one reading (`1.2.3`, or `12,5` where commas may group).
    pub value: Option<f64>,
}

/// The numbers of a text in order. Digits within a word (`bbox_2d`, `B2`) are none. With `commas`, a comma between digits
/// belongs to the number (`1,234`); without, it parts two numbers.
pub fn numbers(text: &str, commas: bool) -> impl Iterator<Item = FoundNumber> + '_ {
    let bytes = text.as_bytes();
    let at = move |i: usize| bytes.get(i).copied().unwrap_or(0);
    let mut i = 0;
    std::iter::from_fn(move || {
        while i < bytes.len() {
            if at(i).is_ascii_alphabetic() || at(i) == b'_' {
                while at(i).is_ascii_alphanumeric() || at(i) == b'_' {
                    i += 1;
                }
                continue;
            }
            if !(at(i).is_ascii_digit() || at(i) == b'.' && at(i + 1).is_ascii_digit()) {
                i += 1;
                continue;
            }
            let signed = i > 0 && matches!(at(i - 1), b'+' | b'-');
            let apart = i < 2 || !(at(i - 2).is_ascii_alphanumeric() || matches!(at(i - 2), b')' | b']' | b'%'));
            let start = if signed && apart { i - 1 } else { i };
            let mut end = i;
            while at(end).is_ascii_digit() || at(end) == b'.' || commas && at(end) == b',' {
                end += 1;
            }
            while matches!(at(end - 1), b'.' | b',') {
                end -= 1; // the sentence's, not the number's
            }
            if matches!(at(end), b'e' | b'E') {
                let sign = usize::from(matches!(at(end + 1), b'+' | b'-'));
                if at(end + 1 + sign).is_ascii_digit() {
                    end += 1 + sign;
                    while at(end).is_ascii_digit() {
                        end += 1;
                    }
                }
            }
            i = end;
            let written = &text[start..end];
            return Some(FoundNumber { start, end, value: if commas { grouped(written) } else { decimal(written) } });
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_whole_or_not_at_all() {
        for (text, value) in [
            ("12", Some(12.0)),
            ("-0.5", Some(-0.5)),
            ("+3", Some(3.0)),
            (".5", Some(0.5)),
            ("5.", Some(5.0)),
            ("1e3", Some(1000.0)),
            ("1,234", None),
            ("", None),
            ("e", None),
            ("-", None),
            (".", None),
            ("1 2", None),
            ("inf", None),
            ("NaN", None),
            ("1e999", None),
            ("1_000", None),
            ("\u{ff11}", None),
            ("12\0", None),
        ] {
            assert_eq!(decimal(text), value, "{text:?}");
        }
    }

    #[test]
    fn commas_group_by_threes_or_the_number_is_not_read() {
        for (text, value) in [
            ("1,234", Some(1234.0)),
            ("12,345,678.9", Some(12_345_678.9)),
            ("-1,000", Some(-1000.0)),
            ("999", Some(999.0)),
            ("12,5", None),
            ("1,23,456", None),
            ("1234,567", None),
            (",123", None),
            ("1,,234", None),
            ("1,234,", None),
            ("1.5,000", None),
            ("1,234e2", Some(123_400.0)),
        ] {
            assert_eq!(grouped(text), value, "{text:?}");
        }
    }

    #[test]
    fn numbers_are_found_in_running_text() {
        let values = |text: &str, commas| numbers(text, commas).map(|n| n.value).collect::<Vec<_>>();
        assert_eq!(values("bbox_2d: [1,2, -3.5,4e1]", false), [Some(1.0), Some(2.0), Some(-3.5), Some(40.0)]);
        assert_eq!(values("from 3-5, not B2 or x_7.", true), [Some(3.0), Some(5.0)]);
        assert_eq!(values("$1,234.50, then 12,5.", true), [Some(1234.5), None]);
        assert_eq!(values("version 1.2.3 .5 5km 5em", false), [None, Some(0.5), Some(5.0), Some(5.0)]);
        assert!(values("", false).is_empty());
        assert_eq!(values("答案是12。", false), [Some(12.0)]);
        let found = numbers("é -7%", true).next().unwrap();
        assert_eq!((found.start, found.end), (3, 5));
        assert_eq!(numbers(&"9".repeat(1_000_000), true).next().unwrap().value, None);
        assert_eq!(numbers(&"1.".repeat(500_000), true).count(), 1);
    }

    #[test]
    fn an_answer_is_bared_of_what_surrounds_it() {
        for (text, expected) in [
            ("The answer is \"Paris\".", "Paris"),
            ("\u{201c}Paris.\u{201d}", "Paris"),
            ("Answer: **5**", "5"),
            ("the answer is: 5", "5"),
            ("the answer island", "the answer island"),
            ("The answer is", ""),
            ("Paris", "Paris"),
            ("\"", "\""),
            ("  ", ""),
            ("Dr. No.", "Dr. No"),
            ("\"a\" or \"b", "\"a\" or \"b"),
        ] {
            assert_eq!(bare(text), expected, "{text:?}");
        }
        assert_eq!(bare(&"\"".repeat(1_000_001)), "\"");
    }

    #[test]
    fn words_are_found_whole() {
        for (text, words, found) in [
            ("a cat.", "cat", true),
            ("category", "cat", false),
            ("ba a a", "a a", true),
            ("été", "t", false),
            ("x", "", false),
            ("", "x", false),
            ("new york city", "new york", true),
            ("(12)", "12", true),
            ("112", "12", false),
            ("it is not red", "red", false),
            ("not red, but red", "red", true),
        ] {
            assert_eq!(contains_words(text, words), found, "{text:?} {words:?}");
        }
    }

    #[test]
    fn a_fence_is_taken_off_whatever_it_is_called() {
        for text in ["```json\n{}\n```", "```JSON\n{}```", "```{}```", " ```\n{}\n``` "] {
            assert_eq!(unfenced(text), "{}");
        }
        assert_eq!(unfenced("```json {}"), "```json {}");
    }
}
