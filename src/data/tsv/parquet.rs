//! Benchmarks as Parquet files: the columns of a TSV file, as `datasets` writes them.
//!
//! - an image is bytes, a struct of `bytes` and `path`, or a text as in a TSV file; it stands in `image`, a list of them in `images`, several in
//!   `image_1`, `image_2`, ...
//! - `options`, a list of texts or a text that is one, becomes the columns `A`, `B`, ...
//! - where there is no `index`, it is `id` or `question_id`, else the number of the row
//! - a list of texts is written as one, and so is a list of numbers; other columns of several values are left out
//!
//! The images are held in memory, encoded: a Parquet file has no place to find one again by.

use super::images::{ImageCollector, ImageRef};
use super::list;
use super::table::{TableBuilder, Tsv, TsvRow, TsvSchema, require};
use crate::data::source::guarded;
use crate::io::files;
use crate::{Error, Result};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use std::path::Path;
use std::sync::Arc;

/// Columns that an index may stand in.
const INDEX: [&str; 3] = ["index", "id", "question_id"];
/// Columns that options become.
const LETTERS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// Fields by column.
type Fields = Vec<(String, Field)>;

/// As [`Tsv::open`].
pub(super) fn read(path: &Path, layout: impl FnOnce(&[String]) -> Result<TsvSchema>) -> Result<(Tsv, Vec<TsvRow>)> {
    let bad = |why: String| Error::input(format!("{}: {why}", path.display()));
    let file = files::open(path)?;
    let reader =
        guarded(|| SerializedFileReader::new(file).map_err(|e| format!("not a Parquet file: {e}"))).map_err(bad)?;
    let schema = reader.metadata().file_metadata().schema();
    let names: Vec<String> = schema.get_fields().iter().map(|field| field.name().to_string()).collect();
    let shape = ColumnMapping::of(&names);
    let columns: Arc<[String]> = shape.columns.clone().into();
    let layout = layout(&columns)?;
    require(&columns).map_err(bad)?;
    let mut table = TableBuilder::new(path, columns, layout.prefix, false);
    let rows = guarded(|| reader.get_row_iter(None).map_err(|e| e.to_string())).map_err(bad)?;
    let mut rows = rows.into_iter();
    let mut number = 0;
    loop {
        let next = guarded(|| rows.next().transpose().map_err(|e| e.to_string()));
        let Some(fields) = next.map_err(|why| bad(format!("row {}: {why}", number + 1)))? else { break };
        number += 1;
        table.push(number as u64, |reader, number| {
            let (texts, pictures) = shape.row(fields.into_columns(), number)?;
            let row = reader.named(number, number as u64, texts)?;
            let mut entries = Vec::new();
            for (column, field) in pictures {
                images(&field, &mut reader.images, number as u64, &mut entries)
                    .map_err(|why| format!(", column `{column}`: {why}"))?;
            }
            if entries.is_empty() {
                entries = reader.by_path(&row)?;
            }
            Ok((row, entries))
        })?;
    }
    table.finish()
}

/// What the columns of a file are taken for.
struct ColumnMapping {
    /// The columns of a TSV file that they make.
    columns: Vec<String>,
    /// The column of the index.
    index: Option<String>,
}

impl ColumnMapping {
    fn of(names: &[String]) -> ColumnMapping {
        let has = |name: &str| names.iter().any(|n| n == name);
        let index = INDEX.into_iter().find(|name| has(name)).map(String::from);
        let mut columns = vec!["index".to_string()];
        columns.extend(names.iter().filter(|name| *name != "index" && !is_image(name)).cloned());
        if names.iter().any(|name| is_image(name)) {
            columns.push("image".into());
        }
        if has("options") && !has("A") {
            columns.extend(LETTERS.chars().map(String::from));
        }
        ColumnMapping { columns, index }
    }

    /// The texts of a row, one for each column, and the fields that hold its images, in order.
    fn row(&self, fields: Fields, number: usize) -> Result<(Vec<String>, Fields), String> {
        let mut texts = vec![String::new(); self.columns.len()];
        let mut pictures: Fields = Vec::new();
        let at = |name: &str| self.columns.iter().position(|column| column == name);
        if self.index.is_none() {
            texts[0] = number.to_string();
        }
        for (name, field) in fields {
            if is_image(&name) {
                pictures.push((name, field));
                continue;
            }
            let text = text(&field).map_err(|why| format!(", column `{name}`: {why}"))?;
            if self.index.as_ref() == Some(&name) {
                texts[0].clone_from(&text);
            }
            if name == "options"
                && let Some(first) = at("A").filter(|_| self.spells_options())
            {
                let options = options(&field).map_err(|why| format!(", column `options`: {why}"))?;
                for (i, option) in options.into_iter().enumerate() {
                    match texts.get_mut(first + i) {
                        Some(slot) => *slot = option,
                        None => {
                            return Err(format!(", column `options`: there are more than {} of them", LETTERS.len()));
                        }
                    }
                }
                continue;
            }
            if let Some(at) = at(&name).filter(|&at| at > 0) {
                texts[at] = text;
            }
        }
        pictures.sort_by_key(|(name, _)| name.strip_prefix("image_").and_then(|n| n.parse::<usize>().ok()));
        Ok((texts, pictures))
    }

    /// The last columns are those that options become.
    fn spells_options(&self) -> bool {
        self.columns.last().is_some_and(|last| last == "Z")
    }
}

fn is_image(name: &str) -> bool {
    ["image", "images"].contains(&name) || name.strip_prefix("image_").is_some_and(|n| n.parse::<usize>().is_ok())
}

/// A field as the text that a TSV file would have; blank for one of several values that is no list of texts or of numbers.
fn text(field: &Field) -> Result<String, String> {
    Ok(match field {
        Field::Null | Field::Group(_) | Field::MapInternal(_) => String::new(),
        Field::Str(text) => text.clone(),
        Field::Bytes(bytes) => match bytes.as_utf8() {
            Ok(text) => text.to_string(),
            Err(_) => return Err("is not UTF-8".into()),
        },
        Field::ListInternal(items) => {
            let texts: Option<Vec<&str>> = items.elements().iter().map(plain).collect();
            let numbers = || items.elements().iter().map(number).collect::<Option<Vec<String>>>();
            match texts {
                Some(texts) => serde_json::json!(texts).to_string(),
                None => numbers().map(|numbers| format!("[{}]", numbers.join(", "))).unwrap_or_default(),
            }
        }
        other => other.to_string(),
    })
}

fn plain(field: &Field) -> Option<&str> {
    match field {
        Field::Str(text) => Some(text),
        Field::Bytes(bytes) => bytes.as_utf8().ok(),
        _ => None,
    }
}

/// A finite number as JSON writes it.
fn number(field: &Field) -> Option<String> {
    match field {
        Field::Byte(n) => Some(n.to_string()),
        Field::Short(n) => Some(n.to_string()),
        Field::Int(n) => Some(n.to_string()),
        Field::Long(n) => Some(n.to_string()),
        Field::UByte(n) => Some(n.to_string()),
        Field::UShort(n) => Some(n.to_string()),
        Field::UInt(n) => Some(n.to_string()),
        Field::ULong(n) => Some(n.to_string()),
        Field::Float16(x) => x.is_finite().then(|| x.to_string()),
        Field::Float(x) => x.is_finite().then(|| x.to_string()),
        Field::Double(x) => x.is_finite().then(|| x.to_string()),
        _ => None,
    }
}

fn options(field: &Field) -> Result<Vec<String>, String> {
    let text = text(field)?;
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    list(&text)?.ok_or_else(|| "is no list of texts".into())
}

/// The images of a field, one or a list of them.
fn images(field: &Field, found: &mut ImageCollector, line: u64, entries: &mut Vec<ImageRef>) -> Result<(), String> {
    match field {
        Field::Null => {}
        Field::ListInternal(items) => {
            for (i, item) in items.elements().iter().enumerate() {
                images(item, found, line, entries).map_err(|why| format!("item {}: {why}", i + 1))?;
            }
        }
        Field::Bytes(bytes) => entries.push(found.held(bytes.data(), line)?),
        Field::Str(text) if text.trim().is_empty() => {}
        Field::Str(text) => entries.push(found.text(text, line)?),
        Field::Group(group) => {
            let of = |wanted: &str| group.get_column_iter().find(|(name, _)| *name == wanted).map(|(_, field)| field);
            match (of("bytes"), of("path")) {
                (Some(Field::Bytes(bytes)), _) => entries.push(found.held(bytes.data(), line)?),
                (_, Some(Field::Str(path))) if !path.is_empty() => {
                    // A name, never a list of them.
                    entries.extend(found.paths(&serde_json::json!([path]).to_string(), line)?);
                }
                (Some(Field::Null) | None, Some(Field::Null) | None) => {}
                _ => return Err("is a struct without `bytes` and `path`".into()),
            }
        }
        _ => return Err("is neither bytes nor a struct of `bytes` and `path`".into()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::RgbImage;
    use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;
    use std::fs::File;
    use std::io::Cursor;
    use std::path::PathBuf;

    fn png(width: u32) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        RgbImage::new(width, 6).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    /// Levels and values of one column of bytes.
    struct Column(Vec<i16>, Vec<i16>, Vec<Vec<u8>>);

    fn texts(texts: &[&str]) -> Column {
        Column(vec![0; texts.len()], vec![0; texts.len()], texts.iter().map(|t| t.as_bytes().to_vec()).collect())
    }

    fn write(dir: &Path, schema: &str, ids: Option<&[i64]>, columns: Vec<Column>) -> PathBuf {
        let path = dir.join("bench.parquet");
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let properties = WriterProperties::builder().set_compression(parquet::basic::Compression::SNAPPY).build();
        let mut writer = SerializedFileWriter::new(File::create(&path).unwrap(), schema, Arc::new(properties)).unwrap();
        let mut group = writer.next_row_group().unwrap();
        if let Some(ids) = ids {
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<Int64Type>().write_batch(ids, None, None).unwrap();
            column.close().unwrap();
        }
        for Column(definitions, repetitions, values) in columns {
            let mut column = group.next_column().unwrap().unwrap();
            let values: Vec<ByteArray> = values.into_iter().map(ByteArray::from).collect();
            column.typed::<ByteArrayType>().write_batch(&values, Some(&definitions), Some(&repetitions)).unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
        writer.close().unwrap();
        path
    }

    fn layout(_: &[String]) -> Result<TsvSchema> {
        Ok(TsvSchema { prefix: None })
    }

    const QUESTION: &str = "required binary question (UTF8); required binary answer (UTF8);";

    #[test]
    fn a_file_as_datasets_writes_it_is_read_with_its_images_and_options() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("b.png"), png(9)).unwrap();
        let schema = format!(
            "message m {{ required int64 id; optional group image {{ optional binary bytes; optional binary path (UTF8); }}
             optional group options (LIST) {{ repeated group list {{ optional binary element (UTF8); }} }} {QUESTION} }}"
        );
        let columns = vec![
            Column(vec![2, 1, 0], vec![0; 3], vec![png(8)]),
            Column(vec![1, 2, 0], vec![0; 3], vec![b"b.png".to_vec()]),
            Column(vec![3, 3, 0, 0], vec![0, 1, 0, 0], vec![b"a cat".to_vec(), b"a dog".to_vec()]),
            texts(&["Which?", "How many?", "Why?"]),
            texts(&["B", "3", "so"]),
        ];
        let path = write(dir.path(), &schema, Some(&[70, 71, 72]), columns);
        let (file, rows) = Tsv::open(&path, layout).unwrap();
        let ids: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
        assert_eq!(ids, ["70", "71", "72"]);
        let sizes: Vec<Vec<(u32, u32)>> =
            rows.iter().map(|row| row.images.iter().map(|&image| file.size(image)).collect()).collect();
        assert_eq!(sizes, [vec![(8, 6)], vec![(9, 6)], vec![]]);
        assert_eq!(file.image(rows[0].images[0]).unwrap().dimensions(), (8, 6));
        assert_eq!((rows[0].get("A"), rows[0].get("B"), rows[0].get("C")), (Some("a cat"), Some("a dog"), None));
        assert_eq!((rows[1].get("A"), rows[1].get("answer"), rows[1].get("id")), (None, Some("3"), Some("71")));
        assert!(file.place(&rows[1]).ends_with("bench.parquet: row 2"), "{}", file.place(&rows[1]));
    }

    #[test]
    fn lists_of_numbers_are_written_as_json() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bench.parquet");
        let list = |name: &str, kind: &str| {
            format!("optional group {name} (LIST) {{ repeated group list {{ optional {kind} element; }} }}")
        };
        let schema = format!(
            "message m {{ required binary image; required binary question (UTF8); {} {} {} }}",
            list("answer", "int64"),
            list("bbox", "double"),
            list("odd", "double")
        );
        let schema = Arc::new(parse_message_type(&schema).unwrap());
        let properties = Arc::new(WriterProperties::builder().build());
        let mut writer = SerializedFileWriter::new(File::create(&path).unwrap(), schema, properties).unwrap();
        let mut group = writer.next_row_group().unwrap();
        for value in [png(8), b"Where?".to_vec()] {
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<ByteArrayType>().write_batch(&[ByteArray::from(value)], None, None).unwrap();
            column.close().unwrap();
        }
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&[-1, 20], Some(&[3, 3]), Some(&[0, 1])).unwrap();
        column.close().unwrap();
        for values in [[1.5, 2.0, 3.25, 4.0], [1.0, f64::NAN, 2.0, 3.0]] {
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<DoubleType>().write_batch(&values, Some(&[3; 4]), Some(&[0, 1, 1, 1])).unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
        writer.close().unwrap();
        let (_, rows) = Tsv::open(&path, layout).unwrap();
        assert_eq!((rows[0].get("answer"), rows[0].get("bbox")), (Some("[-1, 20]"), Some("[1.5, 2, 3.25, 4]")));
        assert_eq!(rows[0].get("odd"), None);
    }

    #[test]
    fn mistakes_are_named_with_row_and_column() {
        let dir = tempfile::tempdir().unwrap();
        let refusal = |schema: &str, columns: Vec<Column>| {
            let path = write(dir.path(), &format!("message m {{ {schema} }}"), None, columns);
            let error = Tsv::open(&path, layout).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            error.to_string().split_once("bench.parquet").unwrap().1.to_string()
        };
        let image = "required binary image;";
        let said = refusal(&format!("{image} {QUESTION}"), vec![texts(&["no image"]), texts(&["q"]), texts(&["a"])]);
        assert!(said.starts_with(": row 1, column `image`: not an image"), "{said}");
        let picture = || Column(vec![0], vec![0], vec![png(8)]);
        let said = refusal(&format!("{image} required binary answer (UTF8);"), vec![picture(), texts(&["a"])]);
        assert!(said.starts_with(": there is no column `question`"), "{said}");
        let said = refusal(&format!("{image} {QUESTION}"), vec![picture(), texts(&[" "]), texts(&["a"])]);
        assert!(said.starts_with(": row 1, column `question` is empty"), "{said}");
        let said = refusal(QUESTION, vec![texts(&["q"]), texts(&["a"])]);
        assert!(said.contains("neither a column `image` nor `image_path`"), "{said}");
        std::fs::write(dir.path().join("bench.parquet"), "PAR1 no more").unwrap();
        let error = Tsv::open(&dir.path().join("bench.parquet"), layout).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("not a Parquet file"), "{error}");
    }
}
