//! Benchmark files in VLMEvalKit's form: tab-separated with a header, one question a row, its images in it as base64.
//!
//! Such a file can have gigabytes. One pass reads it a row at a time and checks all of it. What stays in memory is the text
//! of each row, and of each image where it stands, its size and a SHA-256 of its bytes, together some hundred bytes; no
//! image stays, encoded or not. The pixels are decoded from the file again whenever they are asked for.

mod images;
mod list;
#[cfg(feature = "parquet")]
mod parquet;
mod parser;
mod table;

pub(super) use images::{decode_base64, is_complete};
pub(super) use list::brief;
pub use list::list;
pub use table::{Tsv, TsvRow, TsvSchema};

use crate::io::files;
use crate::{Error, Result};
use csv::ByteRecord;
use parser::Parser;
use std::collections::HashSet;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use table::{TableBuilder, require, utf8};

impl Tsv {
    /// Read a file from its first to its last byte. `layout` is asked once the header is known. A file `*.parquet` is read with the feature
    /// of that name; its images are held in memory.
    ///
    /// # Errors
    /// An input error for the first thing that is wrong, with file, line, row and column: a column that is missing or there
    /// twice, a row with more or fewer fields, a byte that is not UTF-8, an index that is empty or there twice, an empty
    /// question, an image that is no base64, no image, or not there, a reference to a row that is not there or has no image
    /// of its own; a file without rows.
    pub fn open(path: &Path, layout: impl FnOnce(&[String]) -> Result<TsvSchema>) -> Result<(Tsv, Vec<TsvRow>)> {
        if path.extension().is_some_and(|end| end.eq_ignore_ascii_case("parquet")) {
            return from_parquet(path, layout);
        }
        let file = files::open(path)?;
        Self::read(path, file, layout)
    }

    fn read(
        path: &Path,
        input: impl Read,
        layout: impl FnOnce(&[String]) -> Result<TsvSchema>,
    ) -> Result<(Tsv, Vec<TsvRow>)> {
        let file = path.display();
        let mut parser = Parser::new(input);
        let unreadable = |(line, why): (u64, String)| Error::input(format!("{file}:{line}: {why}"));
        let Some((header, _)) = parser.read().map_err(unreadable)? else {
            return Err(Error::input(format!("{file} is empty: its first line must name the columns")));
        };
        let columns: Arc<[String]> = columns(header).map_err(|why| Error::input(format!("{file}:1: {why}")))?.into();
        let layout = layout(&columns)?;
        require(&columns).map_err(|why| Error::input(format!("{file}:1: {why}")))?;
        let mut table = TableBuilder::new(path, columns.clone(), layout.prefix, true);
        while let Some((record, place)) = parser.read().map_err(unreadable)? {
            table.push(place.line, |reader, number| reader.row(record, number, place))?;
        }
        table.finish()
    }
}

#[cfg(feature = "parquet")]
use parquet::read as from_parquet;

#[cfg(not(feature = "parquet"))]
fn from_parquet(path: &Path, _layout: impl FnOnce(&[String]) -> Result<TsvSchema>) -> Result<(Tsv, Vec<TsvRow>)> {
    Err(Error::input(format!(
        "{}: this jigsaw was built without Parquet; build it with `cargo build --release --features parquet`, or write the file as TSV \
         (docs/benchmarks.md)",
        path.display()
    )))
}

/// The names of the columns.
fn columns(header: &ByteRecord) -> Result<Vec<String>, String> {
    let mut columns: Vec<String> = Vec::with_capacity(header.len());
    let mut seen = HashSet::new();
    for (i, name) in header.iter().enumerate() {
        let name = utf8(name).map_err(|why| format!("column {} of the header: {why}", i + 1))?.trim();
        // What pandas leaves of an unnamed index may be there several times.
        if !name.is_empty() && !seen.insert(name) {
            return Err(format!("the header has two columns `{}`", brief(name)));
        }
        columns.push(name.to_string());
    }
    Ok(columns)
}

#[cfg(test)]
mod tests;
