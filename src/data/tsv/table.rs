//! The rows of a benchmark file and the images they show, as they are checked row by row.

use super::images::{ImageCollector, ImageRef, TsvImage};
use super::list::brief;
use super::parser::Location;
use crate::data::source;
use crate::io::files;
use crate::{Error, Result};
use csv::ByteRecord;
use image::RgbImage;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Columns without which a row is no question.
const REQUIRED_COLUMNS: [&str; 2] = ["index", "question"];
/// Columns of a header that a message names.
const MAX_NAMED: usize = 40;
/// Columns that hold images. A file of questions without images has neither.
const IMAGE_COLUMNS: [&str; 2] = ["image", "image_path"];
/// What the name of a column of images has in it.
const IMAGE_WORDS: [&str; 4] = ["image", "img", "photo", "picture"];

/// What the reader of a file needs beside its header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TsvSchema {
    /// A column whose value goes before the index, where indices are unique only together with it.
    pub prefix: Option<String>,
}

/// A file that has been read and checked.
#[derive(Debug)]
pub struct Tsv {
    path: PathBuf,
    /// Number of the `image` column.
    image_column: Option<usize>,
    images: Vec<TsvImage>,
    /// Rows are on lines; else they have numbers only.
    lined: bool,
}

/// One row: its text; its images as indices for [`Tsv::image`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TsvRow {
    /// Number of the row, from 1, the header not counted.
    pub number: usize,
    /// Line of the file on which it starts, from 1.
    pub line: u64,
    /// The field `index`, with that of [`TsvSchema::prefix`] before it.
    pub id: String,
    /// Its images, in order.
    pub images: Vec<usize>,
    columns: Arc<[String]>,
    fields: Vec<String>,
}

impl TsvRow {
    /// A field without the blanks around it; `None` if the column is not there or the field is blank. That of `image` always
    /// counts as blank.
    pub fn get(&self, column: &str) -> Option<&str> {
        let at = self.columns.iter().position(|c| c == column)?;
        Some(self.fields[at].trim()).filter(|field| !field.is_empty())
    }

    /// All columns but that of `image`, with their fields as they are.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.columns.iter().zip(&self.fields).map(|(column, field)| (column.as_str(), field.as_str()));
        pairs.filter(|(column, _)| *column != "image")
    }

    /// Columns and fields that are not blank, in the order of the file.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.columns.iter().zip(&self.fields).map(|(column, field)| (column.as_str(), field.trim()));
        pairs.filter(|(_, field)| !field.is_empty())
    }
}

impl Tsv {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `file:line: row N` for messages.
    pub fn place(&self, row: &TsvRow) -> String {
        self.place_of(row.line, row.number)
    }

    /// The same of the row with this number that starts on this line.
    pub fn place_of(&self, line: u64, number: usize) -> String {
        place(&self.path, self.lined, line, number)
    }

    /// Where an image stands: `file:line`, or `file: row N` where there are no lines.
    pub fn image_place(&self, image: usize) -> String {
        let row = if self.lined { "" } else { " row " };
        format!("{}:{row}{}", files::absolute(&self.path).display(), self.images[image].line)
    }

    /// Width and height of an image in pixels, after orientation.
    pub fn size(&self, image: usize) -> (u32, u32) {
        self.images[image].size
    }

    /// SHA-256 of an image as it is encoded.
    pub fn digest(&self, image: usize) -> [u8; 32] {
        self.images[image].digest
    }

    /// Decode an image, reading it again.
    ///
    /// # Errors
    /// The pixels are damaged (an input error), or the file is no longer what it was.
    pub fn image(&self, image: usize) -> Result<RgbImage> {
        let at = &self.images[image];
        let line = if self.lined { format!("{}: ", at.line) } else { format!(" row {}, ", at.line) };
        let place = format!("{}:{line}column `image`", self.path.display());
        let bytes = at.bytes(&self.path, self.image_column);
        let bytes = bytes.ok().filter(|bytes| <[u8; 32]>::from(Sha256::digest(bytes)) == at.digest);
        let bytes = bytes.ok_or_else(|| Error::failed(format!("{place}: the file was changed while it was in use")))?;
        source::decode(&bytes).map_err(|why| Error::input(format!("{place}: {why}")))
    }
}

/// `file:line: row N`, or `file: row N` where there are no lines.
fn place(path: &Path, lined: bool, line: u64, number: usize) -> String {
    match lined {
        true => format!("{}:{line}: row {number}", path.display()),
        false => format!("{}: row {number}", path.display()),
    }
}

/// The rows of a file as far as it has been read.
pub struct TableBuilder<'a> {
    path: &'a Path,
    lined: bool,
    reader: RowReader,
    rows: Vec<TsvRow>,
    entries: Vec<Vec<ImageRef>>,
    /// Number of the row with an index.
    numbers: HashMap<String, usize>,
}

impl<'a> TableBuilder<'a> {
    pub fn new(path: &'a Path, columns: Arc<[String]>, prefix: Option<String>, lined: bool) -> Self {
        let images = ImageCollector::new(path.parent().unwrap_or(Path::new("")));
        let reader = RowReader { columns, prefix, images };
        TableBuilder { path, lined, reader, rows: Vec::new(), entries: Vec::new(), numbers: HashMap::new() }
    }

    /// The next row, made by `read` from the reader and the row's number.
    pub fn push(
        &mut self,
        line: u64,
        read: impl FnOnce(&mut RowReader, usize) -> Result<(TsvRow, Vec<ImageRef>), String>,
    ) -> Result<()> {
        let number = self.rows.len() + 1;
        let bad = |why: String| Error::input(format!("{}{why}", place(self.path, self.lined, line, number)));
        let (row, own) = read(&mut self.reader, number).map_err(bad)?;
        if let Some(first) = self.numbers.insert(row.id.clone(), number) {
            let line = match self.lined {
                true => format!(" (line {})", self.rows[first - 1].line),
                false => String::new(),
            };
            return Err(bad(format!(", column `index`: `{}` is already the index of row {first}{line}", row.id)));
        }
        self.rows.push(row);
        self.entries.push(own);
        Ok(())
    }

    /// All rows, with the images that they take from others.
    pub fn finish(self) -> Result<(Tsv, Vec<TsvRow>)> {
        let TableBuilder { path, lined, reader, mut rows, entries, numbers } = self;
        if rows.is_empty() {
            let what = if lined { "a header and no rows" } else { "no rows" };
            return Err(Error::input(format!("{} holds {what}", path.display())));
        }
        for (i, own) in entries.iter().enumerate() {
            let of_row = |id: &str| {
                let prefixed =
                    reader.prefix.as_deref().and_then(|column| Some(format!("{}_{id}", rows[i].get(column)?)));
                prefixed.and_then(|id| numbers.get(&id)).or(numbers.get(id)).map(|number| number - 1)
            };
            let images = resolve(i, &entries, own, of_row);
            rows[i].images = images.map_err(|why| {
                let place = place(path, lined, rows[i].line, rows[i].number);
                Error::input(format!("{place}, column `image`: {why}"))
            })?;
        }
        let image_column = reader.columns.iter().position(|c| c == "image");
        Ok((Tsv { path: path.to_path_buf(), image_column, images: reader.images.found, lined }, rows))
    }
}

/// Turns records into rows.
pub struct RowReader {
    columns: Arc<[String]>,
    prefix: Option<String>,
    pub images: ImageCollector,
}

impl RowReader {
    /// A row without its references resolved, and what its images are; or why it cannot be used (as it goes on after
    /// `row N`).
    pub fn row(
        &mut self,
        record: &ByteRecord,
        number: usize,
        place: Location,
    ) -> Result<(TsvRow, Vec<ImageRef>), String> {
        let columns = self.columns.clone();
        if record.len() != columns.len() {
            return Err(format!(
                " has {} fields, the header has {}; a field with a tab or a line break in it must stand in double quotes",
                record.len(),
                columns.len()
            ));
        }
        let mut fields = Vec::with_capacity(columns.len());
        let mut embedded: &[u8] = b"";
        for (column, field) in columns.iter().zip(record) {
            if column == "image" {
                embedded = field.trim_ascii();
                fields.push(String::new());
            } else {
                fields.push(utf8(field).map_err(|why| format!(", column `{column}`: {why}"))?.to_string());
            }
        }
        let row = self.named(number, place.line, fields)?;
        let entries = if !embedded.is_empty() {
            let entries = self.images.field(embedded, place.offset, place.line);
            entries.map_err(|why| format!(", column `image`: {why}"))?
        } else {
            self.by_path(&row)?
        };
        Ok((row, entries))
    }

    /// A row of these fields, with its id.
    pub fn named(&self, number: usize, line: u64, fields: Vec<String>) -> Result<TsvRow, String> {
        let mut row =
            TsvRow { number, line, id: String::new(), images: Vec::new(), columns: self.columns.clone(), fields };
        for column in REQUIRED_COLUMNS {
            if row.get(column).is_none() {
                return Err(format!(", column `{column}` is empty"));
            }
        }
        let index = row.get("index").unwrap_or_default();
        row.id = match self.prefix.as_deref().and_then(|column| row.get(column)) {
            Some(prefix) => format!("{prefix}_{index}"),
            None => index.to_string(),
        };
        Ok(row)
    }

    /// The images of a row that names their paths.
    pub fn by_path(&mut self, row: &TsvRow) -> Result<Vec<ImageRef>, String> {
        let Some(paths) = row.get("image_path") else { return Ok(Vec::new()) };
        self.images.paths(paths, row.line).map_err(|why| format!(", column `image_path`: {why}"))
    }
}

/// Refuse a header without the columns that are needed.
pub fn require(columns: &[String]) -> Result<(), String> {
    let has = |name: &str| columns.iter().any(|c| c == name);
    let named = || {
        let mut names: Vec<String> = columns.iter().filter(|c| !c.is_empty()).map(|c| brief(c)).collect();
        let more = names.len().saturating_sub(MAX_NAMED);
        names.truncate(MAX_NAMED);
        names.join(", ") + &(if more > 0 { format!(" and {more} more") } else { String::new() })
    };
    let hint = match columns.len() {
        1 => "; are the columns separated by tabs?",
        _ => "",
    };
    if let Some(missing) = REQUIRED_COLUMNS.iter().find(|name| !has(name)) {
        return Err(format!("there is no column `{missing}`; the header has: {}{hint}", named()));
    }
    let shows = |name: &&String| IMAGE_WORDS.iter().any(|word| name.to_lowercase().contains(word));
    match columns.iter().find(shows).filter(|_| !IMAGE_COLUMNS.into_iter().any(has)) {
        Some(other) => Err(format!(
            "there is neither a column `image` nor `image_path`, but `{}`; rename it, or take it out of a file of questions without images",
            brief(other)
        )),
        None => Ok(()),
    }
}

/// The images of row `i`: its own, and for each reference those of the row it names.
fn resolve(
    i: usize,
    all: &[Vec<ImageRef>],
    own: &[ImageRef],
    of_row: impl Fn(&str) -> Option<usize>,
) -> Result<Vec<usize>, String> {
    let mut images = Vec::with_capacity(own.len());
    for entry in own {
        let id = match entry {
            ImageRef::Image(image) => {
                images.push(*image);
                continue;
            }
            ImageRef::Row(id) => id,
        };
        let there = of_row(id).ok_or_else(|| {
            format!("`{id}` is too short for an image, and there is no row with that index to take the image from")
        })?;
        if there == i {
            return Err(format!("`{id}` refers to the row itself"));
        }
        if all[there].is_empty() {
            return Err(format!("`{id}` refers to row {}, which has no image", there + 1));
        }
        for entry in &all[there] {
            let ImageRef::Image(image) = entry else {
                return Err(format!(
                    "`{id}` refers to row {}, which itself refers to another; refer to the row with the image",
                    there + 1
                ));
            };
            images.push(*image);
        }
    }
    Ok(images)
}

/// A field as text, or why it is none.
pub fn utf8(field: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(field).map_err(|e| {
        let at = e.valid_up_to();
        format!("byte 0x{:02X} at position {} is not UTF-8; save the file as UTF-8", field[at], at + 1)
    })
}
