//! The test split as benchmark files: VLMEvalKit's columns, with the scorer, style and coordinate space of every row beside them.

use super::example::{STYLES, SuiteExample};
use super::family::Family;
use crate::data::DatasetWriter;
use crate::io::files;
use crate::tasks::response::Style;
use crate::{Error, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::io::{BufWriter, Write};
use std::path::Path;

const COLUMNS: [&str; 13] =
    ["index", "image", "question", "A", "B", "C", "D", "answer", "category", "split", "family", "scorer", "style"];

/// Write `DIR/FAMILY-STYLE.tsv` for the families of `made`; their pictures are in `split`.
pub(super) fn write(writer: &DatasetWriter, dir: &Path, split: &Path, made: &[&SuiteExample]) -> Result<()> {
    for family in Family::ALL {
        let rows: Vec<&SuiteExample> = made.iter().copied().filter(|m| m.family == family).collect();
        if rows.is_empty() {
            continue;
        }
        for style in STYLES {
            let name = if style == Style::Direct { "direct" } else { "think" };
            let path = dir.join(format!("{}-{name}.tsv", family.name()));
            let mut pictures = Vec::with_capacity(rows.len());
            for row in &rows {
                pictures.push(STANDARD.encode(files::read(&split.join(row.image()))?));
            }
            let written = writer.write_file(&path, |file| {
                let mut out = csv::WriterBuilder::new().delimiter(b'\t').from_writer(BufWriter::new(file));
                let has_space = family == Family::Grounding;
                out.write_record(COLUMNS.iter().copied().chain(has_space.then_some("space")))?;
                for (row, picture) in rows.iter().zip(&pictures) {
                    let q = &row.question;
                    let index = row.index.to_string();
                    let asked = row.prompt(style);
                    let option = |i: usize| q.options.get(i).map_or("", String::as_str);
                    let fields = [
                        index.as_str(),
                        picture,
                        &asked,
                        option(0),
                        option(1),
                        option(2),
                        option(3),
                        &q.answer,
                        q.kind,
                        "test",
                        family.name(),
                        q.scorer,
                        name,
                    ];
                    out.write_record(fields.into_iter().chain(has_space.then_some("absolute-resized")))?;
                }
                out.into_inner().map_err(|e| e.into_error())?.flush()
            });
            written.map_err(|e: Error| e.context(format!("benchmark {}", family.name())))?;
        }
    }
    Ok(())
}
