//! Text of others on its way to a person: what a terminal would obey becomes visible, and keys in addresses are left out.

use std::borrow::Cow;

/// What stands in place of a key.
const HIDDEN: &str = "***";
/// Most bytes of a message that is printed: a value from a file can be as long as the file.
pub const MAX_MESSAGE: usize = 8000;
/// Names of parameters of an address whose values are keys, and of parts of such names.
const KEY_NAMES: [&str; 8] = ["key", "token", "secret", "password", "passwd", "signature", "credential", "sig"];

/// `text` with control characters and those that change the direction of text written as escapes, as in `\u{1b}`. Line breaks and tabs stay.
pub fn visible(text: &str) -> Cow<'_, str> {
    let obeyed = |c: char| c.is_control() && c != '\n' && c != '\t' || is_bidi_control(c);
    if !text.contains(obeyed) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if obeyed(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// A number with what it counts: `1 task`, `2 tasks`, `2 measurements of dynamics`.
pub fn counted(n: usize, what: &str) -> String {
    let (noun, rest) = what.find(" of ").map_or((what, ""), |end| what.split_at(end));
    format!("{n} {noun}{}{rest}", if n == 1 { "" } else { "s" })
}

/// A word quoted for a shell, where it must be.
pub fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:+*@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_string()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// A text in lines that fit, broken between words; a word that does not fit has a line of its own.
pub fn wrapped(text: &str, fits: impl Fn(&str) -> bool) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        let longer = lines.last().map(|last| format!("{last} {word}")).filter(|line| fits(line));
        match (longer, lines.last_mut()) {
            (Some(longer), Some(last)) => *last = longer,
            _ => lines.push(word.to_string()),
        }
    }
    lines
}

/// A message as it is printed: [`visible`], without keys, no longer than [`MAX_MESSAGE`], and with every line after the first indented, so
/// that a name with a line break in it cannot pass for a message of its own.
pub fn message(text: &str) -> String {
    let hidden = hide_keys(text);
    let text = shortened(&visible(&hidden));
    let mut lines = text.trim_end_matches('\n').split('\n');
    let mut out = lines.next().unwrap_or_default().to_string();
    for line in lines {
        out.push('\n');
        if !line.is_empty() && !line.starts_with([' ', '\t']) {
            out.push_str("  ");
        }
        out.push_str(line);
    }
    out
}

/// A text without its middle, if it is longer than [`MAX_MESSAGE`] bytes: it begins with the place, and ends with what to do.
fn shortened(text: &str) -> String {
    if text.len() <= MAX_MESSAGE {
        return text.to_string();
    }
    let boundary = |from: usize| (from..text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
    let (head, tail) = (boundary(MAX_MESSAGE * 3 / 4), boundary(text.len() - MAX_MESSAGE / 4));
    format!("{} [... {} bytes are left out ...] {}", &text[..head], tail - head, &text[tail..])
}

/// Whether a character changes the direction of the text after it, so that a terminal shows something else than was sent.
pub fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `text` without the keys in the addresses in it: user and password (`https://USER:KEY@HOST`), and the values of parameters that are
/// named like keys (`?api_key=KEY`).
pub fn hide_keys(text: &str) -> Cow<'_, str> {
    if !text.contains("://") {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, address) = rest.split_at(at + 3);
        let end = address.find(|c: char| c.is_whitespace() || matches!(c, '`' | '"' | '\'' | '<' | '>'));
        let (address, after) = address.split_at(end.unwrap_or(address.len()));
        out.push_str(before);
        hide_keys_of(address, &mut out);
        rest = after;
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Write what follows the `://` of an address, without its keys.
fn hide_keys_of(address: &str, out: &mut String) {
    let (server, query) = address.split_at(address.find('?').unwrap_or(address.len()));
    match server.rsplit_once('@') {
        // Where a path has an `@` of its own, the part before it is no user.
        Some((user, _)) if user.contains('/') && !user.split('/').next().is_some_and(|first| first.contains(':')) => {
            out.push_str(server);
        }
        Some((_, host)) => {
            out.push_str(HIDDEN);
            out.push('@');
            out.push_str(host);
        }
        None => out.push_str(server),
    }
    for (i, part) in query.split('&').enumerate() {
        if i > 0 {
            out.push('&');
        }
        match part.split_once('=') {
            Some((name, value)) if !value.is_empty() && is_key_name(name) => {
                out.push_str(name);
                out.push('=');
                out.push_str(HIDDEN);
            }
            _ => out.push_str(part),
        }
    }
}

fn is_key_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    KEY_NAMES.iter().any(|key| name.contains(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(shell_word("a=b/c-1.5e-3"), "a=b/c-1.5e-3");
        assert_eq!(shell_word("train.lr_scheduler_type=\"linear\""), "'train.lr_scheduler_type=\"linear\"'");
        assert_eq!(shell_word("it's"), r"'it'\''s'");
    }

    #[test]
    fn one_has_no_plural_and_lines_break_between_words() {
        assert_eq!(counted(1, "task") + &counted(2, "task"), "1 task2 tasks");
        assert_eq!(counted(2, "measurement of learning dynamics"), "2 measurements of learning dynamics");
        assert_eq!(wrapped("ab cd efghijk l", |line| line.len() <= 5), ["ab cd", "efghijk", "l"]);
    }

    #[test]
    fn a_terminal_obeys_nothing_and_a_name_with_a_line_break_is_no_message_of_its_own() {
        assert_eq!(visible("plain\ttext\n"), "plain\ttext\n");
        assert_eq!(visible("a\u{1b}[31mb\r\u{7}\u{9b}\u{202e}c"), "a\\u{1b}[31mb\\r\\u{7}\\u{9b}\\u{202e}c");
        assert_eq!(message("no file x\nerror: done\n"), "no file x\n  error: done");
        assert_eq!(message("two things:\n  one\n  two"), "two things:\n  one\n  two");
        assert_eq!(message("a\n\n\tb"), "a\n\n\tb");
        let long = message(&format!("x.toml:3: `{}`; write another", "\u{e9}".repeat(50_000)));
        assert!(long.len() < MAX_MESSAGE + 100 && long.starts_with("x.toml:3: `\u{e9}"), "{}", long.len());
        assert!(
            long.contains("bytes are left out") && long.ends_with("; write another"),
            "{}",
            &long[long.len() - 60..]
        );
    }

    #[test]
    fn keys_in_addresses_are_left_out() {
        for (given, shown) in [
            ("--api https://me:sk-1@host:8000/v1: no", "--api https://***@host:8000/v1: no"),
            ("`http://sk-1@host/v1`", "`http://***@host/v1`"),
            ("http://me:a/b@host/v1", "http://***@host/v1"),
            ("http://h/v1?api_key=sk-1&api-version=2 and", "http://h/v1?api_key=***&api-version=2 and"),
            (
                "http://h/x?X-Amz-Signature=ab&X-Amz-Credential=cd",
                "http://h/x?X-Amz-Signature=***&X-Amz-Credential=***",
            ),
            ("two: http://a:b@c, ftp://d:e@f", "two: http://***@c, ftp://***@f"),
            ("https://host/a@b/c", "https://host/a@b/c"),
            ("owner/name@main, ?key=1", "owner/name@main, ?key=1"),
        ] {
            assert_eq!(hide_keys(given), shown);
        }
    }
}
