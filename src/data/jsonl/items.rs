//! The objects of a file, one a line or the items of one JSON array, each with its place.

use crate::data::record_file::{BLOCK, Item, Place, RecordFile};
use crate::io::plain::json_words;
use crate::{Error, Result};
use serde::de::IgnoredAny;
use serde_json::{Deserializer, Map, Value};

/// A JSON object.
pub(super) type Object = Map<String, Value>;

/// What was read, or a line and what is wrong there.
type FaultOr<T> = std::result::Result<T, (usize, String)>;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Call `each` with the texts of all objects in order, some megabytes of them at a time, as long as it returns true. Of a file of lines only so
/// much is held; one array is read as a whole. Whether a text is an object, [`object`] sees.
///
/// # Errors
/// Those of `each`, in order with an input error for what is no array.
pub(super) fn each(file: &RecordFile, mut each: impl FnMut(Vec<Item<'_>>) -> Result<bool>) -> Result<()> {
    let mut is_array = None;
    file.lines(|mut lines| {
        lines.retain(|line| !trimmed(line.place.offset, line.text).is_empty());
        let Some(first) = lines.first() else { return Ok(true) };
        let array = *is_array.get_or_insert_with(|| trimmed(first.place.offset, first.text).starts_with(b"["));
        if array { Ok(false) } else { each(lines) }
    })?;
    if is_array != Some(true) {
        return Ok(());
    }
    let bytes = file.whole()?;
    let mut items = Array { text: &bytes, at: 0, line: 1, items: 0, done: false };
    items.at = if bytes.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
    loop {
        let (mut some, mut size, mut fault) = (Vec::new(), 0, None);
        for item in items.by_ref() {
            match item {
                Ok(item) => {
                    size += item.text.len();
                    some.push(item);
                }
                Err((line, why)) => fault = Some(Error::input(format!("{}:{line}: {why}", file.path().display()))),
            }
            if size > BLOCK {
                break;
            }
        }
        let is_last = some.is_empty();
        let goes_on = is_last || each(some)?;
        match fault {
            Some(fault) => return Err(fault),
            None if is_last || !goes_on => return Ok(()),
            None => {}
        }
    }
}

/// The text at an offset without the white space around it, and without the mark that a file may begin with.
fn trimmed(offset: u64, text: &[u8]) -> &[u8] {
    let text = if offset == 0 { text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text) } else { text };
    text.trim_ascii()
}

/// The object of a text.
///
/// # Errors
/// The line, and what is wrong there.
pub(super) fn object(place: &Place, text: &[u8]) -> FaultOr<Object> {
    let text = trimmed(place.offset, text);
    let (line, name) = (place.line as usize, place.name());
    if place.is_item() {
        return match serde_json::from_slice(text) {
            Ok(Value::Object(object)) => Ok(object),
            Ok(_) => Err((line, format!("{name} is not a JSON object"))),
            Err(e) => Err((line + e.line().saturating_sub(1), format!("{name} is not JSON: {}", json_words(&e)))),
        };
    }
    let text = std::str::from_utf8(text).map_err(|e| {
        let at = e.valid_up_to();
        (line, format!("byte 0x{:02X} at position {} is not UTF-8; save the file as UTF-8", text[at], at + 1))
    })?;
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err((line, "not a JSON object".into())),
        Err(e) => Err((line, format!("column {}: not JSON: {}", e.column(), json_words(&e)))),
    }
}

/// The items of an array, read one after another.
struct Array<'a> {
    text: &'a [u8],
    /// Bytes read.
    at: usize,
    /// The line they end on.
    line: usize,
    /// Items read.
    items: usize,
    done: bool,
}

impl<'a> Array<'a> {
    fn advance(&mut self, bytes: usize) {
        self.line += self.text[self.at..self.at + bytes].iter().filter(|&&b| b == b'\n').count();
        self.at += bytes;
    }

    /// The first byte after white space.
    fn peek(&mut self) -> Option<u8> {
        let rest = &self.text[self.at..];
        self.advance(rest.len() - rest.trim_ascii_start().len());
        self.text.get(self.at).copied()
    }

    fn read(&mut self) -> FaultOr<Option<Item<'a>>> {
        let bracket = self.items == 0;
        match self.peek() {
            Some(b'[') if bracket => {}
            Some(b',') if self.items > 0 => {}
            Some(b']') => return self.end(),
            None => return Err((self.line, "not JSON: the array does not end with `]`".into())),
            Some(_) => return Err((self.line, format!("not JSON: a comma is missing after item {}", self.items))),
        }
        self.advance(1);
        if self.peek() == Some(b']') && bracket {
            return self.end();
        }
        self.items += 1;
        let line = self.line;
        let rest = &self.text[self.at..];
        let mut values = Deserializer::from_slice(rest).into_iter::<IgnoredAny>();
        let value = values.next();
        let read = values.byte_offset();
        match value {
            Some(Ok(_)) => {
                let place = Place::new(self.at, read, line, self.items).map_err(|why| (line, why))?;
                self.advance(read);
                Ok(Some(Item { place, text: &rest[..read] }))
            }
            Some(Err(e)) => Err((line + e.line() - 1, format!("item {} is not JSON: {}", self.items, json_words(&e)))),
            None => Err((line, "not JSON: the array does not end with `]`".into())),
        }
    }

    fn end(&mut self) -> FaultOr<Option<Item<'a>>> {
        self.advance(1);
        match self.peek() {
            None => Ok(None),
            Some(_) => Err((self.line, "not JSON: something follows the array".into())),
        }
    }
}

impl<'a> Iterator for Array<'a> {
    type Item = FaultOr<Item<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let next = self.read().transpose();
        self.done = !matches!(next, Some(Ok(_)));
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Line and name of each object of a file, or what is wrong and where.
    fn read(text: &str) -> Result<Vec<(u32, String)>> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), text).unwrap();
        let file = RecordFile::open(&dir.path().join("f")).unwrap();
        let mut found = Vec::new();
        each(&file, |items| {
            for Item { place, text } in items {
                object(&place, text).map_err(|(line, why)| Error::input(format!("f:{line}: {why}")))?;
                assert_eq!(file.read(&place).unwrap(), text);
                found.push((place.line, place.name()));
            }
            Ok(true)
        })?;
        Ok(found)
    }

    #[test]
    fn an_array_is_read_item_by_item_with_their_lines() {
        let names = |all: &[(u32, usize)]| all.iter().map(|&(line, n)| (line, format!("item {n}"))).collect::<Vec<_>>();
        assert_eq!(read("[{},{}]").unwrap(), names(&[(1, 1), (1, 2)]));
        assert_eq!(read("\u{feff}[{}]").unwrap(), names(&[(1, 1)]));
        let spread = "\n [\n  {\"a\": \"],}\\\"\"},\n\n  {\n \"b\": [1, {}]\n}\n]\n";
        assert_eq!(read(spread).unwrap(), names(&[(3, 1), (5, 2)]));
        assert_eq!(read("[]").unwrap(), []);
        for (text, line, said) in [
            ("[", 1, "does not end with `]`"),
            ("[{}", 1, "does not end with `]`"),
            ("[{},]", 1, "item 2 is not JSON"),
            ("[{}\n{}]", 2, "a comma is missing after item 1"),
            ("[{}] x", 1, "something follows the array"),
            ("[{},\n7]", 2, "item 2 is not a JSON object"),
            ("[{},\n{\n\"a\": }]", 3, "item 2 is not JSON"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(&format!("f:{line}: ")) && error.contains(said), "{text}: {error}");
        }
    }
}
