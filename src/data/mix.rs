//! Several datasets as one, each with its share of the records.

use super::Dataset;
use crate::{Error, Result};
use std::collections::HashMap;
use std::path::Path;

/// Most records of a mixture.
const MOST: usize = 1_000_000;

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
        order.push((next, taken[next] % parts[next].dataset.len()));
        taken[next] += 1;
    }
    let mut parts = parts.into_iter().map(|MixPart { name, dataset, .. }| (name, dataset)).collect::<Vec<_>>();
    let (mut embedded, mut notes) = (HashMap::new(), Vec::new());
    for (name, dataset) in &mut parts {
        // Paths as the process sees them; of embedded images, names that no other part has.
        let root = std::path::absolute(&dataset.root).unwrap_or_else(|_| dataset.root.clone());
        let inside = std::mem::take(&mut dataset.embedded);
        let renamed = |image: &str| match inside.contains_key(image) {
            true => format!("{name}/{image}"),
            false => root.join(image).display().to_string(),
        };
        for (record, place) in dataset.records.iter_mut().zip(&mut dataset.places) {
            record.id = format!("{name}/{}", record.id);
            record.images.iter_mut().for_each(|image| *image = renamed(image));
            record.file_name = record.images.first().cloned().unwrap_or_default();
            *place = format!("{}:{place}", dataset.file.display());
        }
        embedded.extend(inside.into_iter().map(|(image, bytes)| (format!("{name}/{image}"), bytes)));
        notes.extend(dataset.note.take());
    }
    let (records, places) =
        order.into_iter().map(|(part, i)| (parts[part].1.records[i].clone(), parts[part].1.places[i].clone())).unzip();
    let is_foreign = parts.iter().any(|(_, dataset)| dataset.is_foreign);
    let note = (!notes.is_empty()).then(|| notes.join("\n"));
    let Some((_, first)) = parts.into_iter().next() else { return Err(Error::failed("a mixture of nothing")) };
    Ok(Dataset { records, places, embedded, is_foreign, note, file: Default::default(), ..first })
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
            mixed.records().iter().map(|record| record.id.replace('/', "")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(ids([2, 2], [1.0, 1.0], true), "a0 b0 a1 b1");
        assert_eq!(ids([4, 1], [2.0, 1.0], true), "a0 b0 a1 a2 b0 a3");
        assert_eq!(ids([4, 1], [2.0, 1.0], false), "a0 b0 a1");
        assert_eq!(ids([1, 3], [1.0, 1.0], true), "a0 b0 a0 b1 a0 b2");
        let twice = vec![part(dir.path(), "a", 1, 1.0), part(dir.path(), "a", 1, 1.0)];
        let mixed = mix(twice, true).unwrap();
        assert_eq!([0, 1].map(|i| mixed.records()[i].id.clone()), ["a/0", "a-2/0"]);
        assert!(mixed.place(1).ends_with("a.jsonl:1"), "{}", mixed.place(1));
        let many = vec![part(dir.path(), "a", 2, 1.0), part(dir.path(), "b", 2, 1e-6)];
        assert!(mix(many, true).unwrap_err().to_string().contains("an epoch has 2000002 examples"));
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
