//! Which photos a dataset is made from, and on which side of the split each of them lies.

use super::{Settings, puzzle, scenes};
use crate::data::Skipped;
use crate::data::source::{self, SourceFile};
use crate::rng;
use crate::tasks::split::SPLITS;
use rand::seq::SliceRandom;
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::PathBuf;

/// Files looked at together.
const CHUNK: usize = 256;

/// A photo that is used.
#[derive(Debug, Clone)]
pub struct Photo {
    /// Where it is.
    pub place: Place,
    /// Path relative to the images folder.
    pub name: String,
    /// SHA-256 of the file.
    pub hash: [u8; 32],
    /// Width and height in pixels.
    pub size: (u32, u32),
}

impl Photo {
    /// Is it a synthetic scene?
    pub fn is_scene(&self) -> bool {
        matches!(self.place, Place::Scene(_))
    }
}

/// Where a photo comes from.
#[derive(Debug, Clone)]
pub enum Place {
    /// A file.
    File(PathBuf),
    /// The synthetic scene of this number.
    Scene(u64),
}

/// The photos of each split, and the files left out.
#[derive(Debug, Default)]
pub struct Selection {
    /// For train, validation and test.
    pub photos: [Vec<Photo>; 3],
    /// Not usable.
    pub skipped: Vec<Skipped>,
    /// Of the same content as a photo that is used.
    pub duplicates: Vec<Skipped>,
}

/// Look at `files` in an order drawn from the seed, until each split has as many photos as puzzles or there are no more.
/// A folder so small that a split would stay empty has photos moved to it from the fullest one.
pub fn select(mut files: Vec<SourceFile>, wanted: &[usize; 3], settings: &Settings) -> Selection {
    files.shuffle(&mut rng::stream(settings.seed, "photos", &[]));
    let mut selection = Selection::default();
    let mut surplus = Vec::new();
    let mut seen: HashMap<[u8; 32], String> = HashMap::new();
    for chunk in files.chunks(CHUNK) {
        if (0..SPLITS.len()).all(|side| selection.photos[side].len() >= wanted[side]) {
            break;
        }
        let looked: Vec<Result<Photo, String>> = chunk.par_iter().map(|file| look(file, settings)).collect();
        for (file, photo) in chunk.iter().zip(looked) {
            match photo {
                Err(reason) => selection.skipped.push(Skipped { file: file.name.clone(), reason }),
                Ok(photo) => match seen.get(&photo.hash) {
                    Some(first) => selection
                        .duplicates
                        .push(Skipped { file: photo.name, reason: format!("same content as {first}") }),
                    None => {
                        seen.insert(photo.hash, photo.name.clone());
                        let side = settings.split.side(&photo.hash);
                        let full = selection.photos[side].len() >= wanted[side];
                        if full { &mut surplus } else { &mut selection.photos[side] }.push(photo);
                    }
                },
            }
        }
    }
    for (side, &puzzles) in wanted.iter().enumerate() {
        if puzzles > 0 && selection.photos[side].is_empty() {
            let fullest = (0..SPLITS.len())
                .fold(0, |best, i| if selection.photos[i].len() > selection.photos[best].len() { i } else { best });
            let spare = selection.photos[fullest].len() > 1;
            let moved = surplus.pop().or_else(|| spare.then(|| selection.photos[fullest].pop()).flatten());
            selection.photos[side].extend(moved);
        }
    }
    selection.skipped.sort_by(|a, b| a.file.cmp(&b.file));
    selection
}

/// A synthetic scene of its own for every puzzle, passing over those that are `refused`. As with photos, the side of a scene follows from
/// what it is and the shares alone.
pub fn scenes(wanted: &[usize; 3], settings: &Settings, refused: impl Fn(&str) -> bool) -> [Vec<Photo>; 3] {
    let scene = |index: u64| {
        let name = format!("scene-{index:06}");
        let hash = Sha256::digest(format!("{} {:?} {name}", settings.seed, settings.cues)).into();
        Photo { place: Place::Scene(index), name, hash, size: (scenes::SIDE, scenes::SIDE) }
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

/// Read a file and look at its headers.
fn look(file: &SourceFile, settings: &Settings) -> Result<Photo, String> {
    let bytes = source::read(&file.path)?;
    let size = source::probe(&bytes)?;
    puzzle::check_size(size, settings.grid)?;
    Ok(Photo {
        place: Place::File(file.path.clone()),
        name: file.name.clone(),
        hash: Sha256::digest(&bytes).into(),
        size,
    })
}
