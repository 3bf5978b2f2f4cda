//! Disk space: what a run will write is compared with what is free, before the run starts and before each checkpoint.
//!
//! If a checkpoint does not fit, the run pauses until there is space. Nothing is lost, and no half-written checkpoint is left behind.

use super::callback::TrainerCallback;
use super::freeze::is_adapter;
use super::job::TrainJob;
use super::run_dir::RunDir;
use crate::io::files;
use crate::model::convert_dtype::model_file_bytes;
use crate::nn::Parameter;
use crate::{Error, Result};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Time between two checks of the disk.
const POLL: Duration = Duration::from_secs(3);
/// Time between two checks of the stop flag.
const STOP_POLL: Duration = Duration::from_millis(100);
/// Time between two messages of a paused run.
const REMIND: Duration = Duration::from_secs(600);
/// Headers, manifest, state of the trainer, and what the file system itself needs.
const SLACK: u64 = 256 << 10;

/// Bytes that a run writes at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpaceNeeded {
    /// A checkpoint: weights and moments in f32, and small files.
    pub checkpoint: u64,
    /// The model alone.
    pub model: u64,
}

impl SpaceNeeded {
    /// What a run of `job` writes.
    pub fn of(job: &TrainJob<'_>) -> SpaceNeeded {
        let bytes = |p: &&Arc<Parameter>| 4 * p.var.elem_count() as u64;
        let all = job.model.parameters();
        // Of a model with an adapter, only the adapter is written.
        let adapted = all.iter().any(|p| is_adapter(&p.name));
        let written = all.iter().filter(|p| !adapted || is_adapter(&p.name));
        let model = written.map(|p| bytes(&p)).sum::<u64>() + model_file_bytes(job.base) + SLACK;
        let moments: u64 = all.iter().filter(|p| p.trainable()).map(|p| 2 * bytes(&p)).sum();
        SpaceNeeded { checkpoint: model + moments, model }
    }
}

/// The free bytes of a directory; `None` if the system does not say.
pub type Free<'a> = Box<dyn Fn(&Path) -> Option<u64> + 'a>;

/// Guards the disk that a run writes to.
pub struct DiskGuard<'a> {
    dir: PathBuf,
    needed: SpaceNeeded,
    stop: &'a AtomicBool,
    free: Free<'a>,
    poll: Duration,
}

impl<'a> DiskGuard<'a> {
    /// For a run of `job` in the directory of `run`.
    pub fn of(job: &TrainJob<'a>, run: &RunDir) -> DiskGuard<'a> {
        DiskGuard::new(run.dir(), SpaceNeeded::of(job), job.stop, Box::new(files::free_bytes), POLL)
    }

    /// With another measure of the free bytes, checked every `poll`.
    pub fn new(dir: &Path, needed: SpaceNeeded, stop: &'a AtomicBool, free: Free<'a>, poll: Duration) -> DiskGuard<'a> {
        DiskGuard { dir: dir.to_path_buf(), needed, stop, free, poll }
    }

    /// Before a run that keeps `keep` checkpoints starts: a note if not everything that it will write fits.
    ///
    /// # Errors
    /// An input error if not even one checkpoint fits.
    pub fn check_before_start(&self, keep: usize, callback: &mut dyn TrainerCallback) -> Result<()> {
        let Some(free) = (self.free)(&self.dir) else { return Ok(()) };
        let SpaceNeeded { checkpoint, model } = self.needed;
        if free < checkpoint {
            return Err(Error::input(format!(
                "no disk space for a single checkpoint: it takes {}, and {} are free in {}; free some space, or give another --out",
                size(checkpoint),
                size(free),
                self.dir.display()
            )));
        }
        let all = checkpoint.saturating_mul(keep.max(1) as u64 + 1).saturating_add(model);
        if free < all {
            callback.note(&format!(
                "the run will write up to {} ({} checkpoints of {}, as a new one is written before the oldest is removed, and the model), and \
                 {} are free in {}; if a checkpoint does not fit, the run pauses until there is space",
                size(all),
                keep.max(1) + 1,
                size(checkpoint),
                size(free),
                self.dir.display()
            ));
        }
        Ok(())
    }

    /// Write a checkpoint with `save`, after waiting for space if necessary. `false` if the run is to stop and there is no space; `save` has
    /// written nothing then.
    ///
    /// # Errors
    /// Those of `save`, except a full disk, for which it waits.
    pub fn checkpoint(&self, callback: &mut dyn TrainerCallback, save: impl FnMut() -> Result<()>) -> Result<bool> {
        self.write("a checkpoint", self.needed.checkpoint, callback, save)
    }

    /// As [`DiskGuard::checkpoint`], for the model at the end.
    ///
    /// # Errors
    /// See [`DiskGuard::checkpoint`].
    pub fn model(&self, callback: &mut dyn TrainerCallback, save: impl FnMut() -> Result<()>) -> Result<bool> {
        self.write("the trained model", self.needed.model, callback, save)
    }

    fn write(
        &self,
        what: &str,
        needed: u64,
        callback: &mut dyn TrainerCallback,
        mut save: impl FnMut() -> Result<()>,
    ) -> Result<bool> {
        let notified: Cell<Option<Instant>> = Cell::new(None);
        let pause = |callback: &mut dyn TrainerCallback, why: String| {
            if notified.get().is_none_or(|at| at.elapsed() >= REMIND) {
                notified.set(Some(Instant::now()));
                callback.note(&why);
            }
            self.pause()
        };
        loop {
            let free = (self.free)(&self.dir);
            if let Some(free) = free.filter(|free| *free < needed) {
                let why = format!(
                    "paused: {what} takes {}, and {} are free in {}. The run continues when there is space",
                    size(needed),
                    size(free),
                    self.dir.display()
                );
                if !pause(callback, why) {
                    return Ok(false);
                }
                continue;
            }
            match save() {
                // The disk filled up between the check and the write (another process, or a quota).
                Err(error) if is_full(&error) => {
                    let why = format!(
                        "paused: {error}. {what} takes {}; the run continues when there is space",
                        size(needed)
                    );
                    if !pause(callback, why) {
                        return Ok(false);
                    }
                }
                Err(error) => return Err(error),
                Ok(()) => {
                    if notified.get().is_some() {
                        callback.note("there is disk space again; the run continues");
                    }
                    return Ok(true);
                }
            }
        }
    }

    /// Wait a while; `false` as soon as the run is to stop.
    fn pause(&self) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < self.poll {
            if self.stop.load(Ordering::SeqCst) {
                return false;
            }
            std::thread::sleep(STOP_POLL.min(self.poll));
        }
        !self.stop.load(Ordering::SeqCst)
    }
}

/// Whether the error is a full disk (ENOSPC) or an exhausted quota (EDQUOT).
fn is_full(error: &Error) -> bool {
    let said = error.to_string();
    ["(os error 28)", "(os error 122)"].iter().any(|code| said.contains(code))
}

/// As [`files::format_bytes`], but exact enough for small models.
fn size(bytes: u64) -> String {
    match bytes {
        0..10_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => files::format_bytes(bytes as usize),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::metrics::Metrics;
    use std::cell::RefCell;

    #[derive(Default)]
    struct Notes(Vec<String>);

    impl TrainerCallback for Notes {
        fn start(&mut self, _: usize, _: usize) {}
        fn step(&mut self, _: usize, _: &Metrics) {}
        fn evaluation(&mut self, _: usize, _: &Metrics, _: Option<&'static str>) {}
        fn note(&mut self, text: &str) {
            self.0.push(text.to_string());
        }
    }

    const NEEDED: SpaceNeeded = SpaceNeeded { checkpoint: 30_000_000, model: 10_000_000 };
    const SOON: Duration = Duration::from_millis(2);

    fn room<'a>(stop: &'a AtomicBool, free: impl Fn(&Path) -> Option<u64> + 'a) -> DiskGuard<'a> {
        DiskGuard::new(Path::new("runs/a"), NEEDED, stop, Box::new(free), SOON)
    }

    #[test]
    fn a_run_is_refused_where_no_checkpoint_fits_and_warned_where_not_all_do() {
        let (stop, mut notes) = (AtomicBool::new(false), Notes::default());
        let error = room(&stop, |_| Some(29_000_000)).check_before_start(2, &mut notes).unwrap_err();
        let said = error.to_string();
        assert!(error.exit_code() == 2 && said.contains("it takes 30 MB, and 29 MB are free in runs/a"), "{said}");
        room(&stop, |_| Some(100_000_000)).check_before_start(2, &mut notes).unwrap();
        room(&stop, |_| None).check_before_start(2, &mut notes).unwrap();
        assert!(notes.0.is_empty(), "{:?}", notes.0);
        room(&stop, |_| Some(99_000_000)).check_before_start(2, &mut notes).unwrap();
        assert!(notes.0.len() == 1 && notes.0[0].contains("up to 100 MB (3 checkpoints of 30 MB"), "{:?}", notes.0);
    }

    #[test]
    fn a_checkpoint_that_does_not_fit_is_written_once_there_is_space() {
        let (stop, mut notes, looks, saved) = (AtomicBool::new(false), Notes::default(), Cell::new(0), Cell::new(0));
        let free = |_: &Path| {
            looks.set(looks.get() + 1);
            Some(if looks.get() < 4 { 1_500_000 } else { 30_000_000 })
        };
        let done = room(&stop, free).checkpoint(&mut notes, || {
            saved.set(saved.get() + 1);
            Ok(())
        });
        assert!(done.unwrap());
        assert_eq!((looks.get(), saved.get()), (4, 1));
        assert_eq!(notes.0.len(), 2, "one note, however long it waits: {:?}", notes.0);
        assert!(
            notes.0[0].contains("paused: a checkpoint takes 30 MB, and 1.5 MB are free in runs/a"),
            "{:?}",
            notes.0
        );
        assert!(notes.0[1].contains("space again"));
    }

    #[test]
    fn a_run_that_waits_stops_on_request_and_has_written_nothing() {
        let (stop, mut notes, looks) = (AtomicBool::new(false), Notes::default(), Cell::new(0));
        let free = |_: &Path| {
            looks.set(looks.get() + 1);
            stop.store(looks.get() == 3, Ordering::SeqCst);
            Some(0)
        };
        assert!(!room(&stop, free).checkpoint(&mut notes, || panic!("nothing fits")).unwrap());
        assert_eq!(looks.get(), 3);
        // What fits is saved even when the run is to stop: that is when it is needed.
        assert!(room(&stop, |_| Some(30_000_000)).checkpoint(&mut notes, || Ok(())).unwrap());
        assert!(room(&stop, |_| Some(10_000_000)).model(&mut notes, || Ok(())).unwrap());
    }

    #[test]
    fn a_disk_that_fills_up_during_the_write_pauses_the_run_and_other_errors_end_it() {
        let (stop, mut notes, tries) = (AtomicBool::new(false), Notes::default(), RefCell::new(Vec::new()));
        let save =
            |code: i32| Err(Error::failed(format!("cannot write x: {}", std::io::Error::from_raw_os_error(code))));
        let done = room(&stop, |_| None).checkpoint(&mut notes, || {
            tries.borrow_mut().push(());
            match tries.borrow().len() {
                1 => save(28),
                2 => save(122),
                _ => Ok(()),
            }
        });
        assert!(done.unwrap() && tries.borrow().len() == 3);
        assert!(notes.0[0].contains("paused: cannot write x"), "{:?}", notes.0);
        assert!(room(&stop, |_| None).checkpoint(&mut notes, || save(13)).is_err());
    }
}
