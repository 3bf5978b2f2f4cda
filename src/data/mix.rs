//! Several datasets as one, each with its share of the records.

use super::dataset::{Dataset, Records};
use super::stored_records::{Embedded, StoredRecords};
use super::{Record, Seen};
use crate::io::files;
use crate::{Error, Result};
use std::path::Path;

/// Most records of a mixture.
const MOST: usize = 100_000_000;

/// A part of a mixture.
pub struct MixPart {
    /// What ids begin with: `NAME/`.
    pub name: String,
    /// Its records.
    pub dataset: Dataset,
    /// Its share, in proportion to those of the others.
    pub weight: f64,
}

/// A dataset and its weight as they are written: `PATH:WEIGHT`, or `PATH` for the weight 1.
///
/// # Errors
/// An input error for a weight that is not above 0.
pub fn parse_part(text: &str) -> Result<(&Path, f64)> {
    match text.rsplit_once(':').and_then(|(path, weight)| Some((path, weight.parse::<f64>().ok()?))) {
        Some((_, weight)) if !(weight > 0.0 && weight.is_finite()) => {
            Err(Error::input(format!("`{text}`: the weight must be above 0")))
        }
        Some((path, weight)) => Ok((Path::new(path), weight)),
        None => Ok((Path::new(text), 1.0)),
    }
}

/// One dataset of these parts, which alternate in proportion to their weights. With `repeat`, every record is there, and those of parts that
/// are too small for their share come several times; without, none comes twice, and the mixture ends with the first part that does.
///
/// # Errors
/// An input error for records that are made as they are needed, and for a mixture of too many records.
pub fn mix(mut parts: Vec<MixPart>, repeat: bool) -> Result<Dataset> {
    for i in 0..parts.len() {
        if parts[i].dataset.stream().is_some() {
            return Err(Error::input(format!(
                "{}: its records are made as they are needed; a mixture needs stored ones (gen without --stream)",
                parts[i].dataset.root().display()
            )));
        }
        if parts[..i].iter().any(|before| before.name == parts[i].name) {
            parts[i].name = format!("{}-{}", parts[i].name, i + 1);
        }
    }
    let total: f64 = parts.iter().map(|part| part.weight).sum();
    let passes = parts.iter().map(|part| part.dataset.len() as f64 * total / part.weight);
    let count = match repeat {
        true => passes.fold(0.0, f64::max).ceil(),
        false => passes.fold(f64::INFINITY, f64::min).floor().max(1.0),
    };
    if count > MOST as f64 {
        return Err(Error::input(format!("with these weights an epoch has {count} examples; at most {MOST}")));
    }
    let mut order = Vec::with_capacity(count as usize);
    let mut taken = vec![0usize; parts.len()];
    for place in 1..=count as usize {
        // The part that is furthest behind its share.
        let lag = |k: usize| place as f64 * parts[k].weight / total - taken[k] as f64;
        let next = (0..parts.len()).fold(0, |best, k| if lag(k) > lag(best) + 1e-9 { k } else { best });
        // Both are below MOST, or a mixture would be larger.
        order.push((next as u32, (taken[next] % parts[next].dataset.len()) as u32));
        taken[next] += 1;
    }
    let Some(MixPart { dataset: first, .. }) = parts.first() else { return Err(Error::failed("a mixture of nothing")) };
    let (root, manifest) = (first.root().to_path_buf(), first.manifest().clone());
    let parts = parts.into_iter().map(|MixPart { name, dataset, .. }| (name, dataset)).collect();
    Ok(Dataset::of(root, manifest, Records::Stored(Box::new(Mixture { parts, order }))))
}

/// The records of several datasets, by the names of these.
#[derive(Debug)]
struct Mixture {
    parts: Vec<(String, Dataset)>,
    /// For each record its dataset, and its number there.
    order: Vec<(u32, u32)>,
}

impl Mixture {
    fn part(&self, i: usize) -> (&str, &Dataset, usize) {
        let (part, i) = self.order[i];
        let (name, dataset) = &self.parts[part as usize];
        (name, dataset, i as usize)
    }
}

impl StoredRecords for Mixture {
    fn len(&self) -> usize {
        self.order.len()
    }

    /// Paths of images are those that the process sees; images in the file have names that no other dataset's have.
    fn read(&self, i: usize) -> Result<(Record, Embedded)> {
        let (name, dataset, i) = self.part(i);
        let (mut record, embedded) = dataset.read(i)?;
        let root = files::absolute(dataset.root());
        record.id = format!("{name}/{}", record.id);
        for image in &mut record.images {
            *image = match embedded.contains_key(image) {
                true => format!("{name}/{image}"),
                false => root.join(&image).display().to_string(),
            };
        }
        record.file_name = record.images.first().cloned().unwrap_or_default();
        Ok((record, embedded.into_iter().map(|(image, bytes)| (format!("{name}/{image}"), bytes)).collect()))
    }

    fn seen(&self, i: usize) -> Option<Seen> {
        let (_, dataset, i) = self.part(i);
        dataset.seen(i)
    }

    fn task(&self, i: usize) -> &str {
        let (_, dataset, i) = self.part(i);
        dataset.task(i)
    }

    fn place(&self, i: usize) -> String {
        let (_, dataset, i) = self.part(i);
        dataset.place(i)
    }

    fn retain(&mut self, keep: &dyn Fn(usize) -> bool) {
        let mut i = 0..;
        self.order.retain(|_| i.next().is_some_and(keep));
    }

    fn note(&self) -> Option<String> {
        let notes: Vec<String> = self.parts.iter().filter_map(|(_, dataset)| dataset.note()).collect();
        (!notes.is_empty()).then(|| notes.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(dir: &Path, name: &str, records: usize, weight: f64) -> MixPart {
        let file = dir.join(format!("{name}.jsonl"));
        let line = |i| format!("{{\"prompt\": \"{name} {i}\", \"completion\": \"{i}\", \"id\": \"{i}\"}}\n");
        std::fs::write(&file, (0..records).map(line).collect::<String>()).unwrap();
        MixPart { name: name.into(), dataset: Dataset::open(&file, "train").unwrap(), weight }
    }

    #[test]
    fn parts_alternate_by_weight_and_small_ones_come_again_where_they_may() {
        let dir = tempfile::tempdir().unwrap();
        let ids = |sizes: [usize; 2], weights: [f64; 2], repeat: bool| -> String {
            let parts = vec![part(dir.path(), "a", sizes[0], weights[0]), part(dir.path(), "b", sizes[1], weights[1])];
            let mixed = mix(parts, repeat).unwrap();
            mixed.records().map(|record| record.unwrap().id.replace('/', "")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(ids([2, 2], [1.0, 1.0], true), "a0 b0 a1 b1");
        assert_eq!(ids([4, 1], [2.0, 1.0], true), "a0 b0 a1 a2 b0 a3");
        assert_eq!(ids([4, 1], [2.0, 1.0], false), "a0 b0 a1");
        assert_eq!(ids([1, 3], [1.0, 1.0], true), "a0 b0 a0 b1 a0 b2");
        let other = dir.path().join("other");
        std::fs::create_dir(&other).unwrap();
        let twice = vec![part(dir.path(), "a", 1, 1.0), part(&other, "a", 1, 1.0)];
        let mixed = mix(twice, true).unwrap();
        assert_eq!([0, 1].map(|i| mixed.record(i).unwrap().id), ["a/0", "a-2/0"]);
        assert!(mixed.place(1).ends_with("a.jsonl:1"), "{}", mixed.place(1));
        let many = vec![part(dir.path(), "a", 2, 1.0), part(dir.path(), "b", 2, 1e-8)];
        assert!(mix(many, true).unwrap_err().to_string().contains("an epoch has 20000000"));
    }

    #[test]
    fn a_part_is_a_path_with_or_without_a_weight() {
        assert_eq!(parse_part("runs/a").unwrap(), (Path::new("runs/a"), 1.0));
        assert_eq!(parse_part("runs/a:0.5").unwrap(), (Path::new("runs/a"), 0.5));
        assert_eq!(parse_part("C:a").unwrap(), (Path::new("C:a"), 1.0));
        for text in ["a:0", "a:-1", "a:nan", "a:inf"] {
            assert_eq!(parse_part(text).unwrap_err().exit_code(), 2, "{text}");
        }
    }
}
