//! Records of a tab-separated file one after another, with the place of each, in memory for one.

use csv::{ByteRecord, ErrorKind, ReaderBuilder};
use std::io::{Error, Read, Result};

/// Most bytes of a row: more than the largest image that is read, in base64.
pub(super) const MAX_ROW: u64 = 256 << 20;
/// Bytes read from the file at a time.
const BUFFER: usize = 1 << 16;

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Location {
    /// Offset in the file at which reading it again may begin (line ends before it are passed over).
    pub offset: u64,
    /// Line on which it starts, from 1.
    pub line: u64,
}

/// Fields as pandas writes them: between tabs, in double quotes where one holds a tab, a quote (doubled) or a line break.
pub(super) struct Parser<R> {
    csv: csv::Reader<LimitedReader<R>>,
    record: ByteRecord,
}

impl<R: Read> Parser<R> {
    pub(super) fn new(inner: R) -> Self {
        Self::with_limit(inner, MAX_ROW)
    }

    fn with_limit(inner: R, limit: u64) -> Self {
        let source = LimitedReader { inner, limit, total: 0, last: 0, crlf: None, row: 0, endless: false };
        let mut builder = ReaderBuilder::new();
        builder.delimiter(b'\t').has_headers(false).flexible(true).buffer_capacity(BUFFER);
        Parser { csv: builder.from_reader(source), record: ByteRecord::new() }
    }

    /// The next record and where it starts; `None` at the end of the file. An error is the line from which on the file cannot
    /// be read, and why.
    pub(super) fn read(&mut self) -> std::result::Result<Option<(&ByteRecord, Location)>, (u64, String)> {
        let line = self.csv.position().line() + u64::from(self.csv.get_ref().crlf == Some(true));
        let source = self.csv.get_mut();
        source.row = source.total;
        match self.csv.read_byte_record(&mut self.record) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(_) if self.csv.get_ref().endless => {
                let mib = self.csv.get_ref().limit >> 20;
                return Err((line, format!("longer than {mib} MiB; is a double quote never closed?")));
            }
            Err(e) => {
                let why = match e.into_kind() {
                    ErrorKind::Io(e) => format!("cannot be read: {e}"),
                    other => format!("cannot be read: {other:?}"),
                };
                return Err((line, why));
            }
        }
        let offset = self.record.position().map_or(0, |p| p.byte());
        // A quote that is never closed takes the last line end into the field.
        let place = Location { offset, line: self.line().max(line) };
        Ok(Some((&self.record, place)))
    }

    /// The line on which the record just read starts. The parser's own count is taken before it passes over what remains of
    /// the last line end, so the lines are counted back from where the record ends.
    fn line(&self) -> u64 {
        let (source, now) = (self.csv.get_ref(), self.csv.position());
        let unterminated = now.byte() == source.total && source.last != b'\n';
        // Of `\r\n`, only the first byte has been read yet.
        let passed = u64::from(!unterminated && source.crlf != Some(true));
        let within = self.record.as_slice().iter().filter(|&&b| b == b'\n').count() as u64;
        now.line().saturating_sub(passed + within).max(1)
    }
}

/// A file on its way to the parser.
struct LimitedReader<R> {
    inner: R,
    /// Most bytes of a row.
    limit: u64,
    /// Bytes read so far.
    total: u64,
    /// The last of them.
    last: u8,
    /// Whether the first line ends with `\r\n`; `None` before it ends.
    crlf: Option<bool>,
    /// Bytes read before the present row was asked for.
    row: u64,
    /// The present row was given up as too long.
    endless: bool,
}

impl<R: Read> Read for LimitedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if self.total - self.row > self.limit {
            self.endless = true;
            return Err(Error::other("row too long"));
        }
        let n = self.inner.read(buffer)?;
        let read = &buffer[..n];
        if self.crlf.is_none()
            && let Some(at) = read.iter().position(|&b| b == b'\n')
        {
            let before = if at == 0 { self.last } else { read[at - 1] };
            self.crlf = Some(before == b'\r');
        }
        if let Some(&last) = read.last() {
            self.last = last;
        }
        self.total += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(text: &str) -> Vec<(String, u64)> {
        let mut parser = Parser::new(text.as_bytes());
        let mut found = Vec::new();
        while let Some((record, place)) = parser.read().unwrap() {
            found.push((String::from_utf8_lossy(record.get(0).unwrap()).into_owned(), place.line));
            // Reading again from there gives the same record.
            let again = record.clone();
            let mut from_there = Parser::new(&text.as_bytes()[place.offset as usize..]);
            assert_eq!(from_there.read().unwrap().unwrap().0, &again);
        }
        found
    }

    #[test]
    fn every_record_knows_its_line_whatever_the_line_ends() {
        let rows = |pairs: &[(&str, u64)]| pairs.iter().map(|(a, b)| (a.to_string(), *b)).collect::<Vec<_>>();
        let expected = rows(&[("index", 1), ("1", 2), ("2", 5), ("3", 7), ("4", 8)]);
        for end in ["\n", "\r\n"] {
            for last in ["", end] {
                let lines = ["index\ta", "1\t\"x", "y", "z\"", "2\tb", "", "3\tc", "4\td"].join(end) + last;
                assert_eq!(places(&lines), expected, "{lines:?}");
            }
        }
    }

    /// Recorded with pandas 3.1.1: `read_csv(sep="\t")` of a file `index, question, answer`.
    #[test]
    fn quotes_are_those_of_pandas() {
        for (row, question) in [
            ("say \"no\"", "say \"no\""),
            ("\"say \"\"no\"\"\"", "say \"no\""),
            ("5\" wide", "5\" wide"),
            (" \"\"x\"\" ", " \"\"x\"\" "),
            ("\"\"\"quoted\"\"\"", "\"quoted\""),
            ("'x'", "'x'"),
            ("x\\\"y", "x\\\"y"),
            ("\"a\tb\nc\"", "a\tb\nc"),
            // A field that begins with a quote is quoted: pandas takes the two away, wherever the second one stands.
            ("\"What?\"", "What?"),
            ("\"Stop\" says the sign?", "Stop says the sign?"),
            ("\"a\"b\"c\"", "ab\"c\""),
            ("\"\"x\"\"", "x\"\""),
            ("\"x\\\"y\"", "x\\y\""),
        ] {
            let text = format!("index\tquestion\tanswer\n1\t{row}\ta\n2\tq\tb\n");
            let mut parser = Parser::new(text.as_bytes());
            parser.read().unwrap();
            let (record, _) = parser.read().unwrap().unwrap();
            let fields: Vec<&str> = record.iter().map(|field| std::str::from_utf8(field).unwrap()).collect();
            assert_eq!(fields, ["1", question, "a"], "{row}");
            assert_eq!(&parser.read().unwrap().unwrap().0[0], b"2");
        }
    }

    #[test]
    fn a_quote_that_is_never_closed_does_not_fill_the_memory() {
        let endless = "a\tb\n1\t\"".as_bytes().chain(std::io::repeat(b'x'));
        let mut parser = Parser::with_limit(endless, 1 << 20);
        parser.read().unwrap();
        let (line, why) = parser.read().map(|_| ()).unwrap_err();
        assert!(line == 2 && why.contains("1 MiB") && why.contains("never closed"), "{line}: {why}");
    }
}
