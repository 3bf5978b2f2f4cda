//! Forms of letters, digits and marks that mean the same: full-width, circled, of other scripts.

use std::borrow::Cow;

/// Digits other than ASCII ones by their zero: Arabic, Persian, Devanagari, Bengali, Thai and full-width.
const ZEROS: [char; 6] = ['\u{660}', '\u{6f0}', '\u{966}', '\u{9e6}', '\u{e50}', '\u{ff10}'];

/// A decimal digit of any of these scripts as an ASCII one; any other character as it is.
fn digit(c: char) -> char {
    let value = |zero: char| u32::from(c).checked_sub(u32::from(zero)).filter(|value| *value < 10);
    ZEROS.into_iter().find_map(value).and_then(|value| char::from_digit(value, 10)).unwrap_or(c)
}

/// Decimal digits of other scripts as ASCII ones, nothing else changed.
pub fn ascii_digits(text: &str) -> Cow<'_, str> {
    if text.is_ascii() { Cow::Borrowed(text) } else { Cow::Owned(text.chars().map(digit).collect()) }
}

/// Other forms of letters, digits, brackets and marks as ASCII: full-width forms, circled letters, digits of other scripts, Chinese, Japanese and
/// Arabic punctuation, hyphens, the minus sign.
pub fn fold(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let shifted = |c: char, from: u32, to: u8| char::from_u32(u32::from(c) - from + u32::from(to)).unwrap_or(c);
    let fold = |c: char| match c {
        '\u{ff01}'..='\u{ff5e}' => shifted(c, 0xff01, b'!'),
        '\u{24b6}'..='\u{24cf}' => shifted(c, 0x24b6, b'A'),
        '\u{24d0}'..='\u{24e9}' => shifted(c, 0x24d0, b'a'),
        '\u{1f130}'..='\u{1f149}' => shifted(c, 0x1f130, b'A'),
        '\u{1f150}'..='\u{1f169}' => shifted(c, 0x1f150, b'A'),
        '\u{1f170}'..='\u{1f189}' => shifted(c, 0x1f170, b'A'),
        '\u{3000}' => ' ',
        '\u{3001}' | '\u{60c}' | '\u{66c}' => ',',
        '\u{3002}' | '\u{66b}' => '.',
        '\u{61f}' => '?',
        '\u{66a}' => '%',
        '\u{2010}' | '\u{2011}' | '\u{2212}' | '\u{fe63}' => '-',
        '\u{3008}' | '\u{300a}' | '\u{300c}' | '\u{300e}' | '\u{3010}' | '\u{3014}' | '\u{3016}' => '(',
        '\u{3009}' | '\u{300b}' | '\u{300d}' | '\u{300f}' | '\u{3011}' | '\u{3015}' | '\u{3017}' => ')',
        _ => digit(c),
    };
    Cow::Owned(text.chars().map(fold).collect())
}

/// A Chinese, Japanese or Korean letter. Between them there are no spaces.
pub fn is_cjk(c: char) -> bool {
    matches!(c, '\u{1100}'..='\u{11ff}' | '\u{3005}' | '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}'
        | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_forms_are_folded() {
        assert_eq!(fold("\u{ff21}\u{ff1a}\u{ff11}\u{3000}\u{2212}5\u{3002}"), "A:1 -5.");
        assert_eq!(fold("【Ｂ】 「b」 Ⓒ ⓓ 🅱"), "(B) (b) C d B");
        assert_eq!(fold("١٢٫٥٪ ۳ ४ ২ ๗"), "12.5% 3 4 2 7");
        assert_eq!(fold("é"), "é");
        assert_eq!(ascii_digits("１２．٥"), "12．5");
    }
}
