//! Training puzzles that are made as they are needed. On disk is a description alone: the settings, how many, and each photo with its hash.
//!
//! Puzzle `i` is a function of (seed, photo, its number among the puzzles of that photo), as a stored one: with n photos it is puzzle `i / n` of photo
//! `i % n`. Where that photo gives no puzzle, because tiles of every crop tried look the same, the next photo in the list gives it.

use super::photo::{ImageSource, Photo, check_size};
use super::puzzle::{PuzzleBuilder, Refusal, record};
use super::settings::JigsawSettings;
use crate::data::source::{self, PixelBudget};
use crate::data::{DatasetWriter, Record, RecordStream};
use crate::io::{files, hex};
use crate::tasks::jigsaw::ORDER;
use crate::tasks::split::SPLITS;
use crate::{Error, Result};
use image::RgbImage;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Raised whenever the same description would make other puzzles.
const FORMAT_VERSION: u32 = 1;
/// Puzzles of a photo that are tried before it is listed: one that gives none of them is too plain.
const TRIED: u64 = 4;
/// Bytes of decoded photos that are held; photos beyond are decoded for each puzzle.
const PHOTO_BYTES: u64 = 256 << 20;
/// Bytes of made puzzles that are held, because each is asked for several times: its prompt, its picture, its answer.
const PUZZLE_BYTES: usize = 16 << 20;
/// Puzzles that are looked at for the sizes of all. Puzzles of one grid, tile and style have pictures of one size and texts of one length.
const MEASURED: usize = 64;

/// The content of `stream.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamDescription {
    /// See [`FORMAT_VERSION`].
    format_version: u32,
    /// [`ORDER`].
    task: String,
    /// How puzzles are made. Paths of photos are relative to its `images`.
    settings: JigsawSettings,
    /// Number of puzzles.
    count: usize,
    /// The photos, in the order in which each gives a puzzle in turn.
    photos: Vec<ListedPhoto>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct ListedPhoto {
    file: String,
    sha256: String,
}

/// Write the description of `count` training puzzles cut from those of `photos` that give puzzles; the others go to `refused` with the reason. The
/// photos used, or `None` if none is left.
///
/// # Errors
/// A failure to write.
pub(super) fn write_stream<'a>(
    settings: &JigsawSettings,
    count: usize,
    photos: &'a [Photo],
    writer: &mut DatasetWriter,
    mut refused: impl FnMut(&Photo, Refusal),
) -> Result<Option<Vec<&'a Photo>>> {
    let builder = PuzzleBuilder { settings, budget: PixelBudget::default() };
    let probe = |photo: &Photo| -> Option<Refusal> {
        let _share = builder.budget.acquire(photo.size);
        match builder.decode(photo) {
            Err(reason) => Some(Refusal::Unusable(reason)),
            Ok(image) => {
                let plain = |index| builder.puzzle(&image, photo, index, settings.augment).is_none();
                (0..TRIED).all(plain).then_some(Refusal::Plain)
            }
        }
    };
    let found: Vec<Option<Refusal>> = photos.par_iter().map(probe).collect();
    let mut used = Vec::new();
    for (photo, refusal) in photos.iter().zip(found) {
        match refusal {
            None => used.push(photo),
            Some(refusal) => refused(photo, refusal),
        }
    }
    if used.is_empty() {
        return Ok(None);
    }
    let listed = |photo: &&Photo| ListedPhoto { file: photo.name.clone(), sha256: hex(&photo.hash) };
    let description = StreamDescription {
        format_version: FORMAT_VERSION,
        task: ORDER.into(),
        settings: settings.clone(),
        count,
        photos: used.iter().map(listed).collect(),
    };
    writer.write_stream(SPLITS[0], (count, used.len().min(count)), &files::to_json(&description)?)?;
    Ok(Some(used))
}

/// The puzzles of a `stream.json`.
#[derive(Debug)]
pub struct PuzzleStream {
    file: PathBuf,
    settings: JigsawSettings,
    count: usize,
    photos: Vec<HeldPhoto>,
    /// The last puzzles made.
    made: Mutex<VecDeque<Arc<MadePuzzle>>>,
}

#[derive(Debug)]
struct HeldPhoto {
    photo: Photo,
    /// Its pixels, if they are held.
    pixels: Option<RgbImage>,
}

#[derive(Debug)]
struct MadePuzzle {
    i: usize,
    record: Record,
    image: RgbImage,
}

impl PuzzleStream {
    /// Read a description and its photos.
    ///
    /// # Errors
    /// An input error that names the file: a description of another version, a photo that is not there or has other content than when the dataset was
    /// made.
    pub fn open(path: &Path) -> Result<PuzzleStream> {
        let again = "make the dataset again (the same `jigsaw gen ...`)";
        let StreamDescription { settings, count, photos, .. } = files::read_versioned(path, FORMAT_VERSION, again)?;
        let photos = photos.par_iter().map(|listed| listed.find(&settings, path)).collect::<Vec<Result<Photo>>>();
        let photos = photos.into_iter().collect::<Result<Vec<Photo>>>()?;
        if photos.is_empty() || count == 0 {
            return Err(Error::input(format!("{}: no photo or no puzzle; {again}", path.display())));
        }
        let mut stream =
            PuzzleStream { file: path.to_path_buf(), settings, count, photos: Vec::new(), made: Mutex::default() };
        let mut free = PHOTO_BYTES;
        let held: Vec<bool> = photos
            .iter()
            .map(|photo| {
                let bytes = 3 * u64::from(photo.size.0) * u64::from(photo.size.1);
                let fits = bytes <= free;
                free -= if fits { bytes } else { 0 };
                fits
            })
            .collect();
        let read = |(photo, held): (&Photo, &bool)| held.then(|| stream.decode(photo)).transpose();
        let pixels = photos.par_iter().zip(&held).map(read).collect::<Vec<Result<Option<RgbImage>>>>();
        for (photo, pixels) in photos.into_iter().zip(pixels) {
            stream.photos.push(HeldPhoto { photo, pixels: pixels? });
        }
        Ok(stream)
    }

    fn builder(&self) -> PuzzleBuilder<'_> {
        PuzzleBuilder { settings: &self.settings, budget: PixelBudget::default() }
    }

    fn decode(&self, photo: &Photo) -> Result<RgbImage> {
        let unusable = |reason| Error::input(format!("{}: {}: {reason}", self.file.display(), photo.name));
        self.builder().decode(photo).map_err(unusable)
    }

    fn puzzle(&self, i: usize) -> Result<Arc<MadePuzzle>> {
        let held = |made: &VecDeque<Arc<MadePuzzle>>| made.iter().find(|puzzle| puzzle.i == i).cloned();
        if let Some(puzzle) = held(&self.made.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(puzzle);
        }
        let puzzle = Arc::new(self.make(i)?);
        let most = (PUZZLE_BYTES / (puzzle.image.as_raw().len() + 2048)).max(16);
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if made.len() >= most {
            made.pop_front();
        }
        made.push_back(puzzle.clone());
        Ok(puzzle)
    }

    fn make(&self, i: usize) -> Result<MadePuzzle> {
        let n = self.photos.len();
        let (first, index) = (i % n, (i / n) as u64);
        for HeldPhoto { photo, pixels } in self.photos[first..].iter().chain(&self.photos[..first]) {
            let decoded = if pixels.is_none() { Some(self.decode(photo)?) } else { None };
            let Some(image) = pixels.as_ref().or(decoded.as_ref()) else { continue };
            if let Some((puzzle, image)) = self.builder().puzzle(image, photo, index, self.settings.augment) {
                // The names of its image stand for the picture; there is no such file.
                let record = record(&self.settings, SPLITS[0], i, photo, &puzzle);
                return Ok(MadePuzzle { i, record, image });
            }
        }
        Err(Error::input(format!(
            "{}: puzzle {i}: no photo gives one: tiles of all look the same",
            self.file.display()
        )))
    }
}

impl ListedPhoto {
    /// The photo, if it is as it was.
    fn find(&self, settings: &JigsawSettings, listed_in: &Path) -> Result<Photo> {
        let path = settings.images.join(&self.file);
        let bad = |why: String| {
            Error::input(format!(
                "{}: the photo {}: {why}. Put it back, or make the dataset again (the same `jigsaw gen ...`, from the same directory)",
                listed_in.display(),
                path.display()
            ))
        };
        let bytes = source::read(&path).map_err(bad)?;
        let hash: [u8; 32] = Sha256::digest(&bytes).into();
        if hex(&hash) != self.sha256 {
            return Err(bad("its content has changed since the dataset was made (another SHA-256)".into()));
        }
        let size = source::probe(&bytes).map_err(bad)?;
        check_size(size, settings.grid).map_err(bad)?;
        Ok(Photo { source: ImageSource::File(path), name: self.file.clone(), hash, size })
    }
}

impl RecordStream for PuzzleStream {
    fn count(&self) -> usize {
        self.count
    }

    fn record(&self, i: usize) -> Result<Record> {
        Ok(self.puzzle(i)?.record.clone())
    }

    fn images(&self, i: usize) -> Result<Vec<RgbImage>> {
        Ok(vec![self.puzzle(i)?.image.clone()])
    }

    fn image_sizes(&self, _: usize) -> Vec<(u32, u32)> {
        let JigsawSettings { grid, tile, .. } = self.settings;
        vec![(grid.cols() as u32 * tile, grid.rows() as u32 * tile)]
    }

    fn measured(&self) -> usize {
        self.count.min(MEASURED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Dataset, Manifest, STREAM};
    use crate::tasks::jigsaw::generate::generate;
    use crate::tasks::{DatasetTask, Task};
    use std::fs;

    const PHOTOS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/photos");

    fn settings(images: &Path, stream: Option<usize>) -> JigsawSettings {
        let grid = "2x2".parse().unwrap();
        let split = "0.6,0,0.4".parse().unwrap();
        JigsawSettings {
            images: images.into(),
            grid,
            split,
            count: 40,
            augment: true,
            limit: Some(12),
            stream,
            ..Default::default()
        }
    }

    fn made(out: &Path, stream: Option<usize>) -> Manifest {
        generate(&settings(Path::new(PHOTOS), stream), out, false, &|| ()).unwrap()
    }

    #[test]
    fn a_streamed_puzzle_is_the_stored_one_of_its_photo_and_number_on_any_number_of_threads() {
        let dir = tempfile::tempdir().unwrap();
        let (stored, streamed) = (dir.path().join("stored"), dir.path().join("streamed"));
        made(&stored, None);
        let manifest = made(&streamed, Some(3_000_000));
        assert_eq!(manifest.splits["train"].records, 3_000_000);
        let size = fs::metadata(streamed.join("train").join(STREAM)).unwrap().len();
        assert!(size < 4096, "{size} bytes for three million puzzles");
        let stored = Dataset::open(&stored, "train").unwrap();
        let task = DatasetTask::open(&streamed, "train").unwrap();
        assert_eq!((task.len(), task.measured()), (3_000_000, MEASURED));
        let key = |record: &Record| (record.source.clone(), record.meta["index"].to_string());
        for i in 0..stored.len() {
            let record = stored.record(i).unwrap();
            let twin = (0..stored.len()).find(|&j| key(&task.example(j).unwrap()) == key(&record)).unwrap();
            let other = task.example(twin).unwrap();
            assert_eq!((&record.messages, &record.answer, &record.meta), (&other.messages, &other.answer, &other.meta));
            assert_eq!(stored.images(i).unwrap(), task.images(twin).unwrap());
            assert_eq!(task.image_sizes(twin).unwrap(), [task.images(twin).unwrap()[0].dimensions()]);
        }
        // Whatever was asked for before, and on whichever thread.
        let wanted: Vec<usize> = (0..200).map(|k| k * 14_983).collect();
        let all = |threads: usize, order: &mut dyn Iterator<Item = usize>| {
            let order: Vec<usize> = order.collect();
            let task = DatasetTask::open(&streamed, "train").unwrap();
            let look = |&i: &usize| (i, task.example(i).unwrap().into_owned(), task.images(i).unwrap());
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut seen: Vec<_> = pool.install(|| order.par_iter().map(look).collect());
            seen.sort_by_key(|(i, ..)| *i);
            seen
        };
        assert_eq!(all(1, &mut wanted.iter().copied()), all(3, &mut wanted.iter().rev().copied()));
        assert!(task.example(3_000_000).is_err());
    }

    #[test]
    fn a_changed_photo_or_description_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let photos = dir.path().join("photos");
        fs::create_dir(&photos).unwrap();
        for file in fs::read_dir(PHOTOS).unwrap().map(|file| file.unwrap().path()) {
            if file.extension().is_some_and(|e| e == "jpg") && file.to_string_lossy().contains("/00") {
                fs::copy(&file, photos.join(file.file_name().unwrap())).unwrap();
            }
        }
        let out = dir.path().join("data");
        generate(&settings(&photos, Some(100)), &out, false, &|| ()).unwrap();
        let refused = || DatasetTask::open(&out, "train").err().unwrap();
        let description = fs::read_to_string(out.join("train").join(STREAM)).unwrap();
        let used: StreamDescription = serde_json::from_str(&description).unwrap();
        let photo = photos.join(&used.photos[0].file);
        let bytes = fs::read(&photo).unwrap();
        fs::write(&photo, [&bytes[..], &[0]].concat()).unwrap();
        let error = refused();
        let said = error.to_string();
        assert!(
            error.exit_code() == 2 && said.contains(&used.photos[0].file) && said.contains("has changed"),
            "{said}"
        );
        fs::remove_file(&photo).unwrap();
        assert!(refused().to_string().contains("cannot be read"));
        fs::write(&photo, &bytes).unwrap();
        assert!(DatasetTask::open(&out, "train").is_ok());
        fs::write(out.join("train").join(STREAM), description.replace("\"count\": 100", "\"count\": 200")).unwrap();
        assert!(refused().to_string().contains("it was changed"));
    }
}
