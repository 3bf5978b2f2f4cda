//! Is something that an answer names ruled out in the same breath (`not A`, `anything but`, `rather than a dog`)?

use super::forms::is_cjk;

/// How much text before a place is looked at, in bytes: a clause's end, and the time stays linear.
const WINDOW: usize = 64;
/// How many words before it.
const WORDS: usize = 6;

/// Words that rule out what follows.
const NEGATIONS: [&str; 20] = [
    "not",
    "no",
    "never",
    "neither",
    "nor",
    "cannot",
    "without",
    "except",
    "excluding",
    "exclude",
    "excludes",
    "unlike",
    "than",
    "reject",
    "rejects",
    "eliminate",
    "eliminates",
    "eliminated",
    "dismiss",
    "isnt",
];

/// Words that may stand between a negation and what it rules out.
const BETWEEN: [&str; 29] = [
    "the",
    "an",
    "option",
    "options",
    "choice",
    "letter",
    "answer",
    "be",
    "it",
    "is",
    "in",
    "or",
    "any",
    "of",
    "really",
    "likely",
    "necessarily",
    "actually",
    "show",
    "see",
    "contain",
    "depict",
    "have",
    "think",
    "believe",
    "choose",
    "that",
    "it's",
    "this",
];

/// The same in Chinese and Japanese, directly before it.
const NEGATIONS_CJK: [&str; 9] = ["不是", "不选", "不選", "不应选", "不應選", "并非", "並非", "排除", "除了"];

/// Is what starts at this byte of `text` ruled out by the words of its clause before it?
pub fn negated(text: &str, start: usize) -> bool {
    let from = (start.saturating_sub(WINDOW)..start).find(|&at| text.is_char_boundary(at)).unwrap_or(start);
    let before = &text[from..start];
    let clause = before.rsplit(['.', ',', ';', ':', '!', '?', '\n']).next().unwrap_or_default();
    let bare = clause.trim_end_matches(|c: char| !c.is_alphanumeric());
    if bare.ends_with(is_cjk) {
        return NEGATIONS_CJK.iter().any(|word| bare.ends_with(word));
    }
    let part = |c: char| !(c.is_alphanumeric() || matches!(c, '\'' | '\u{2019}'));
    let mut words = bare.rsplit(part).filter(|word| !word.is_empty()).take(WORDS).peekable();
    while let Some(word) = words.next() {
        if word.len() == 1 {
            continue; // `not A or B`
        }
        let is = |other: &&str| word.eq_ignore_ascii_case(other);
        let next = words.peek().copied().unwrap_or_default().to_ascii_lowercase();
        let after = |first: &str| next.starts_with(first);
        let two = is(&"of") && after("instead") || is(&"out") && after("rul");
        let short = |end: &str| word.to_ascii_lowercase().ends_with(end);
        if two || NEGATIONS.iter().any(is) || word.len() > 3 && (short("n't") || short("n\u{2019}t")) {
            return true;
        }
        if !BETWEEN.iter().any(is) {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_negation_reaches_to_the_end_of_its_clause_and_no_further() {
        for (before, expected) in [
            ("It is not ", true),
            ("Not ", true),
            ("It isn't ", true),
            ("it isn\u{2019}t option ", true),
            ("It cannot be ", true),
            ("not (", true),
            ("neither A nor ", true),
            ("not A or ", true),
            ("rather than ", true),
            ("instead of ", true),
            ("I rule out option ", true),
            ("The image does not show a ", true),
            ("I don't think it is ", true),
            ("There is no ", true),
            ("答案不是", true),
            ("排除", true),
            ("It is ", false),
            ("It is not A, it is ", false),
            ("It is not A but ", false),
            ("Not sure that it is ", false),
            ("No. It is ", false),
            ("答案是", false),
            ("knot ", false),
            ("", false),
        ] {
            let text = format!("{before}B");
            assert_eq!(negated(&text, before.len()), expected, "{before:?}");
        }
        let long = "é".repeat(100_000);
        assert!(!negated(&long, long.len()));
    }
}
