//! Selects the photos that a dataset is made from, and puts each into a split.

use super::photo::{ImageSource, Photo, check_size};
use super::scenes;
use super::settings::JigsawSettings;
use crate::data::Skipped;
use crate::data::source::{self, SourceFile};
use crate::rng;
use crate::tasks::split::SPLITS;
use rand::seq::SliceRandom;
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::collections::HashMap;

/// Files probed together.
const CHUNK: usize = 256;

/// The photos of each split, and the files left out.
#[derive(Debug, Default)]
pub struct PhotoSelection {
    /// For train, validation and test.
    pub photos: [Vec<Photo>; 3],
    /// Not usable.
    pub skipped: Vec<Skipped>,
    /// Same content as a photo that is used.
    pub duplicates: Vec<Skipped>,
}

/// Probe `files` in an order drawn from the seed, until each split has as many photos as puzzles or no file is left.
/// If a split would stay empty because the folder is small, it gets photos from the fullest split. With `test_files`, test has photos of those,
/// and the others of `files`; a test file of the same content as another is a duplicate.
pub fn select(
    files: Vec<SourceFile>,
    test_files: Option<Vec<SourceFile>>,
    wanted: &[usize; 3],
    settings: &JigsawSettings,
) -> PhotoSelection {
    let mut selection = PhotoSelection::default();
    let mut seen = HashMap::new();
    match test_files {
        None => fill(files, &[0, 1, 2], wanted, settings, &mut selection, &mut seen),
        Some(test) => {
            fill(files, &[0, 1], wanted, settings, &mut selection, &mut seen);
            fill(test, &[2], wanted, settings, &mut selection, &mut seen);
        }
    }
    selection.skipped.sort_by(|a, b| a.file.cmp(&b.file));
    selection
}

/// Give the splits `sides` photos of `files`. `seen` has the contents that are used, by their hash.
fn fill(
    mut files: Vec<SourceFile>,
    sides: &[usize],
    wanted: &[usize; 3],
    settings: &JigsawSettings,
    selection: &mut PhotoSelection,
    seen: &mut HashMap<[u8; 32], String>,
) {
    files.shuffle(&mut rng::stream(settings.seed, "photos", &[]));
    let mut surplus = Vec::new();
    for chunk in files.chunks(CHUNK) {
        if sides.iter().all(|&side| selection.photos[side].len() >= wanted[side]) {
            break;
        }
        let probed: Vec<Result<Photo, String>> = chunk.par_iter().map(|file| probe(file, settings)).collect();
        for (file, photo) in chunk.iter().zip(probed) {
            match photo {
                Err(reason) => selection.skipped.push(Skipped { file: file.name.clone(), reason }),
                Ok(photo) => match seen.get(&photo.hash) {
                    Some(first) => selection
                        .duplicates
                        .push(Skipped { file: photo.name, reason: format!("same content as {first}") }),
                    None => {
                        seen.insert(photo.hash, photo.name.clone());
                        let side = if let [only] = sides { *only } else { settings.photo_ratios().side(&photo.hash) };
                        let full = selection.photos[side].len() >= wanted[side];
                        if full { &mut surplus } else { &mut selection.photos[side] }.push(photo);
                    }
                },
            }
        }
    }
    for &side in sides {
        if wanted[side] > 0 && selection.photos[side].is_empty() {
            let fullest = sides.iter().fold(sides[0], |best, &i| {
                if selection.photos[i].len() > selection.photos[best].len() { i } else { best }
            });
            let spare = selection.photos[fullest].len() > 1;
            let moved = surplus.pop().or_else(|| spare.then(|| selection.photos[fullest].pop()).flatten());
            selection.photos[side].extend(moved);
        }
    }
}

/// A synthetic scene for every puzzle; scenes that are `refused` are skipped. As with photos, the split of a scene follows from its content
/// and the ratios alone.
pub fn scenes(wanted: &[usize; 3], settings: &JigsawSettings, refused: impl Fn(&str) -> bool) -> [Vec<Photo>; 3] {
    let scene = |index: u64| {
        let name = format!("scene-{index:06}");
        let hash = Sha256::digest(format!("{} {:?} {name}", settings.seed, settings.cues)).into();
        Photo { source: ImageSource::Scene(index), name, hash, size: (scenes::SIDE, scenes::SIDE) }
    };
    let mut photos: [Vec<Photo>; 3] = Default::default();
    let mut all = (0..).map(scene).filter(|photo| !refused(&photo.name));
    while (0..SPLITS.len()).any(|side| photos[side].len() < wanted[side]) {
        let Some(photo) = all.next() else { break };
        let side = settings.split.side(&photo.hash);
        if photos[side].len() < wanted[side] {
            photos[side].push(photo);
        }
    }
    photos
}

/// Read a file and decode its headers.
fn probe(file: &SourceFile, settings: &JigsawSettings) -> Result<Photo, String> {
    let bytes = source::read(&file.path)?;
    let size = source::probe(&bytes)?;
    check_size(size, settings.grid)?;
    Ok(Photo {
        source: ImageSource::File(file.path.clone()),
        name: file.name.clone(),
        hash: Sha256::digest(&bytes).into(),
        size,
    })
}
