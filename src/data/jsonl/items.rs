//! The objects of a file, one a line or the items of one JSON array, each with its place.

use crate::io::plain::json_words;
use serde_json::{Deserializer, Map, Value};

/// A JSON object.
pub(super) type Object = Map<String, Value>;

/// An object and where it stands.
pub(super) struct Item {
    /// Line on which it begins, from 1.
    pub line: usize,
    /// Its name in messages and for records without an id: `line 3`, or `item 3` of an array.
    pub name: String,
    pub object: Object,
}

/// A line and what is wrong there.
type Fault = (usize, String);

/// Whether the file is one array rather than an object a line.
pub(super) fn is_array(text: &[u8]) -> bool {
    text.trim_ascii_start().starts_with(b"[")
}

/// All objects of a file, in order. What is wrong ends them.
pub(super) fn items(text: &[u8]) -> Box<dyn Iterator<Item = Result<Item, Fault>> + '_> {
    if is_array(text) {
        return Box::new(Array { text, at: 0, line: 1, items: 0, done: false });
    }
    let lines = text.split(|&b| b == b'\n').enumerate().map(|(i, line)| (i + 1, line.trim_ascii()));
    Box::new(lines.filter(|(_, line)| !line.is_empty()).map(|(number, line)| {
        let object = object(line).map_err(|why| (number, why))?;
        Ok(Item { line: number, name: format!("line {number}"), object })
    }))
}

/// The object on a line.
fn object(line: &[u8]) -> Result<Object, String> {
    let text = std::str::from_utf8(line).map_err(|e| {
        let at = e.valid_up_to();
        format!("byte 0x{:02X} at position {} is not UTF-8; save the file as UTF-8", line[at], at + 1)
    })?;
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("not a JSON object".into()),
        Err(e) => Err(format!("column {}: not JSON: {}", e.column(), json_words(&e))),
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

impl Array<'_> {
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

    fn read(&mut self) -> Result<Option<Item>, Fault> {
        let bracket = self.items == 0 && self.at == 0;
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
        let (line, name) = (self.line, format!("item {}", self.items));
        let mut values = Deserializer::from_slice(&self.text[self.at..]).into_iter::<Value>();
        let value = values.next();
        let read = values.byte_offset();
        match value {
            Some(Ok(Value::Object(object))) => {
                self.advance(read);
                Ok(Some(Item { line, name, object }))
            }
            Some(Ok(_)) => Err((line, format!("{name} is not a JSON object"))),
            Some(Err(e)) => Err((line + e.line() - 1, format!("{name} is not JSON: {}", json_words(&e)))),
            None => Err((line, "not JSON: the array does not end with `]`".into())),
        }
    }

    fn end(&mut self) -> Result<Option<Item>, Fault> {
        self.advance(1);
        match self.peek() {
            None => Ok(None),
            Some(_) => Err((self.line, "not JSON: something follows the array".into())),
        }
    }
}

impl Iterator for Array<'_> {
    type Item = Result<Item, Fault>;

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

    /// Line and name of each object, or what is wrong and where.
    fn read(text: &str) -> Result<Vec<(usize, String)>, Fault> {
        items(text.as_bytes()).map(|item| item.map(|item| (item.line, item.name))).collect()
    }

    #[test]
    fn an_array_is_read_item_by_item_with_their_lines() {
        let names = |all: &[(usize, usize)]| Ok(all.iter().map(|&(line, n)| (line, format!("item {n}"))).collect());
        assert_eq!(read("[{},{}]"), names(&[(1, 1), (1, 2)]));
        assert_eq!(read(" [\n  {\"a\": \"],}\\\"\"},\n\n  {\n \"b\": [1, {}]\n}\n]\n"), names(&[(2, 1), (4, 2)]));
        assert_eq!(read("[]"), Ok(Vec::new()));
        for (text, line, said) in [
            ("[", 1, "does not end with `]`"),
            ("[{}", 1, "does not end with `]`"),
            ("[{},]", 1, "item 2 is not JSON"),
            ("[{}\n{}]", 2, "a comma is missing after item 1"),
            ("[{}] x", 1, "something follows the array"),
            ("[{},\n7]", 2, "item 2 is not a JSON object"),
            ("[{},\n{\n\"a\": }]", 3, "item 2 is not JSON"),
        ] {
            let (at, why) = read(text).unwrap_err();
            assert!(at == line && why.contains(said), "{text}: {at}: {why}");
        }
    }
}
