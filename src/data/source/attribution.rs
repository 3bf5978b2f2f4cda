//! `ATTRIBUTION.tsv` of an images folder: author, licence and origin of its files.

use crate::data::Attribution;
use crate::io::files;
use crate::{Error, Result};
use std::collections::HashMap;
use std::path::Path;

/// File name of the table.
const FILE: &str = "ATTRIBUTION.tsv";

/// The table of `dir` by file name, or `None` if it has none. The first line names the columns; `file` and `licence` (or
/// `license`) must be there, `author`, `source` and `class` may be.
pub fn attribution(dir: &Path) -> Result<Option<HashMap<String, Attribution>>> {
    let path = dir.join(FILE);
    if !path.exists() {
        return Ok(None);
    }
    let text = files::read_text(&path)?;
    let mut lines = text.lines();
    let columns: Vec<&str> = lines.next().unwrap_or_default().split('\t').map(str::trim).collect();
    let column = |names: &[&str]| columns.iter().position(|c| names.contains(c));
    let (Some(file), Some(licence)) = (column(&["file"]), column(&["licence", "license"])) else {
        return Err(Error::input(format!(
            "{}:1: the first line must name the columns `file` and `licence`, separated by tabs",
            path.display()
        )));
    };
    let (author, source, class) = (column(&["author"]), column(&["source"]), column(&["class"]));
    let mut table = HashMap::new();
    for line in lines.filter(|line| !line.trim().is_empty()) {
        let cells: Vec<&str> = line.split('\t').map(str::trim).collect();
        let cell = |i: Option<usize>| i.and_then(|i| cells.get(i)).map(|s| (*s).to_owned()).unwrap_or_default();
        let row = Attribution {
            file: cell(Some(file)),
            licence: cell(Some(licence)),
            author: cell(author),
            source: cell(source),
            class: cell(class),
        };
        table.insert(row.file.clone(), row);
    }
    Ok(Some(table))
}
