//! Lists as they stand in a field: as Python prints them (`['a', "b's"]`) and as JSON writes them (`["a", "b"]`).

/// The items of a list as text; `None` if the text is not meant as a list of strings or numbers.
///
/// # Errors
/// Why a text that begins as a list of strings is not one.
pub fn list(text: &str) -> Result<Option<Vec<String>>, String> {
    let text = text.trim();
    let Some(rest) = text.strip_prefix('[').map(str::trim_start) else { return Ok(None) };
    let of_strings = rest.starts_with(['\'', '"']);
    match rest.strip_suffix(']') {
        Some(items) if of_strings => strings(items).map(Some),
        Some(items) => Ok(numbers(items)),
        None if of_strings => Err("the list does not end with `]`".into()),
        None => Ok(None),
    }
}

/// Items in quotes, bare numbers among them allowed, and a comma after the last one.
fn strings(text: &str) -> Result<Vec<String>, String> {
    let mut items = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let number = items.len() + 1;
        let (item, after) = match rest.chars().next() {
            Some(quote @ ('\'' | '"')) => string(&rest[1..], quote).map_err(|why| format!("item {number}: {why}"))?,
            _ => {
                let (word, after) = rest.split_at(rest.find(',').unwrap_or(rest.len()));
                if !is_number(word.trim()) {
                    return Err(format!("item {number}: `{}` is neither in quotes nor a number", brief(word.trim())));
                }
                (word.trim().to_string(), after)
            }
        };
        items.push(item);
        let after = after.trim_start();
        rest = match after.strip_prefix(',') {
            Some(next) => next.trim_start(),
            None if after.is_empty() => after,
            // As numpy prints an array: Python would join the two.
            None => return Err(format!("a comma is missing after item {number}")),
        };
    }
    Ok(items)
}

/// The string that ends with the next `quote`, and what follows.
fn string(text: &str, quote: char) -> Result<(String, &str), String> {
    let mut item = String::new();
    let mut rest = text;
    loop {
        let at = rest.find([quote, '\\']).ok_or("its quote is not closed")?;
        let (before, found) = rest.split_at(at);
        item.push_str(before);
        match found.strip_prefix(quote) {
            Some(after) => return Ok((item, after)),
            None => rest = escape(&found[1..], quote, &mut item)?,
        }
    }
}

/// What a backslash and the text after it stand for. As in Python, a backslash before any other character is itself.
fn escape<'a>(text: &'a str, quote: char, item: &mut String) -> Result<&'a str, String> {
    let first = text.chars().next().ok_or("it ends with a backslash")?;
    let rest = &text[first.len_utf8()..];
    let simple = match first {
        'n' => '\n',
        't' => '\t',
        'r' => '\r',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'a' => '\u{7}',
        'v' => '\u{b}',
        '\\' | '\'' | '"' => first,
        // Only JSON escapes it, and JSON has double quotes only.
        '/' if quote == '"' => '/',
        '\n' => return Ok(rest),
        'x' => return code(rest, 2, item),
        'u' => return code(rest, 4, item),
        'U' => return code(rest, 8, item),
        other => {
            item.push('\\');
            other
        }
    };
    item.push(simple);
    Ok(rest)
}

/// A character by its number in `digits` hexadecimal digits; JSON writes those beyond 16 bits as two halves.
fn code<'a>(text: &'a str, digits: usize, item: &mut String) -> Result<&'a str, String> {
    let hex = |text: &str| {
        let hex = text.get(..digits).filter(|h| h.chars().all(|c| c.is_ascii_hexdigit()));
        hex.and_then(|h| u32::from_str_radix(h, 16).ok())
    };
    let bad = || format!("`\\` with {digits} hexadecimal digits that are no character");
    let first = hex(text).ok_or_else(bad)?;
    let mut rest = &text[digits..];
    let mut number = first;
    if (0xD800..0xDC00).contains(&first) {
        rest = rest.strip_prefix("\\u").ok_or_else(bad)?;
        let second = hex(rest).filter(|n| (0xDC00..0xE000).contains(n)).ok_or_else(bad)?;
        number = 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
        rest = &rest[digits..];
    }
    item.push(char::from_u32(number).ok_or_else(bad)?);
    Ok(rest)
}

/// Numbers between commas, as they are written; `None` if one of them is none.
fn numbers(text: &str) -> Option<Vec<String>> {
    let text = text.trim();
    if text.is_empty() {
        return Some(Vec::new());
    }
    let items = text.strip_suffix(',').unwrap_or(text).split(',').map(str::trim);
    items.map(|item| is_number(item).then(|| item.to_string())).collect()
}

/// A finite decimal number; `nan` and `inf` are words.
fn is_number(text: &str) -> bool {
    text.parse::<f64>().is_ok_and(f64::is_finite)
}

/// The beginning of a text for a message.
pub(in crate::data) fn brief(text: &str) -> String {
    const SHOWN: usize = 40;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(text: &str) -> Option<Vec<String>> {
        list(text).unwrap()
    }

    #[test]
    fn lists_of_python_and_json_are_read() {
        let of = |items: &[&str]| Some(items.iter().map(|i| i.to_string()).collect::<Vec<_>>());
        assert_eq!(items(r#"['a', "b's", 'c']"#), of(&["a", "b's", "c"]));
        assert_eq!(items(r#" [ "a" , "b" , ] "#), of(&["a", "b"]));
        assert_eq!(items(r#"['it\'s', "say \"no\"", 'back\\slash']"#), of(&["it's", "say \"no\"", "back\\slash"]));
        assert_eq!(items(r"['\x41\u00e9\U0001F600', '\d', '\n\t']"), of(&["A\u{e9}\u{1F600}", "\\d", "\n\t"]));
        assert_eq!(items(r#"["\ud83d\ude00", "a\/b"]"#), of(&["\u{1F600}", "a/b"]));
        assert_eq!(items("['a, b]', '']"), of(&["a, b]", ""]));
        assert_eq!(items("['14', 14, 1.5]"), of(&["14", "14", "1.5"]));
        assert_eq!(items("[0.5, -2, 1e3]"), of(&["0.5", "-2", "1e3"]));
        assert_eq!(items("[]"), of(&[]));
        assert_eq!(items("['\u{4f60}', '\u{597d}']"), of(&["\u{4f60}", "\u{597d}"]));
    }

    #[test]
    fn text_in_brackets_is_not_a_list() {
        for text in ["", "a", "[a]", "[3, x)", "[0, 1)", "[nan, 1]", "[A] and [B]", "]["] {
            assert_eq!(items(text), None, "{text}");
        }
    }

    #[test]
    fn a_broken_list_says_where() {
        for (text, why) in [
            ("['a', 'b'", "does not end with `]`"),
            ("['a' 'b']", "a comma is missing after item 1"),
            ("['it's']", "a comma is missing after item 1"),
            ("['a', 'b]", "item 2: its quote is not closed"),
            ("['a', b]", "item 2: `b` is neither in quotes nor a number"),
            (r"['\xg1']", "item 1: `\\` with 2 hexadecimal digits"),
            (r"['\ud83d']", "item 1: `\\` with 4 hexadecimal digits"),
            (r"['a\']", "item 1: its quote is not closed"),
        ] {
            let error = list(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
