//! A checkpoint directory that is written as a whole, or compared with the one that is there already.

use crate::io::files;
use crate::io::json::named_differences;
use crate::io::output_dir::{self, Whole};
use crate::model::checkpoint_config::read_architecture;
use crate::model::file_names::CONFIG;
use crate::model::weight_dtype::WeightDtype;
use crate::model::weights::{self, CheckpointFiles};
use crate::{Error, Result};
use serde_json::Value;
use std::cell::Cell;
use std::path::Path;

/// What became of a request to write a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It was written.
    New,
    /// It was there already, with the same content.
    Found,
}

/// What is to be in a checkpoint directory.
pub(crate) struct NewCheckpoint<'a> {
    /// Where the weights come from, for messages.
    pub from: &'a str,
    /// Tokenizer, template and whatever else lies beside the weights, by name.
    pub beside: Vec<(String, Vec<u8>)>,
    /// `config.json`.
    pub config: Value,
    /// Names and shapes of the weights.
    pub shapes: &'a [(String, Vec<usize>)],
    /// How they are stored.
    pub dtype: WeightDtype,
    /// What else the user can do where another checkpoint is in the way.
    pub or: &'a str,
    /// The numbers of the weight with this index.
    pub make: &'a dyn Fn(usize) -> Result<Vec<f32>>,
}

/// An input error if [`NewCheckpoint::write`] would refuse `dir` whatever is to be written. Nothing is changed.
pub(crate) fn check_output(dir: &Path) -> Result<()> {
    output_dir::check(dir, &content(&|name| dir.join(name).is_file()))
}

fn content<'a>(own: &'a dyn Fn(&str) -> bool) -> Whole<'a> {
    Whole { what: "checkpoint", last: CONFIG, own }
}

impl NewCheckpoint<'_> {
    /// Write the directory `dir`, which must be new or empty, or left by a call that was interrupted, or with `overwrite` a checkpoint.
    /// `config.json`, without which no reader accepts the directory, comes last. Of a checkpoint that is there, and is not to be overwritten,
    /// everything is compared. One weight is held at a time.
    ///
    /// # Errors
    /// An input error if `dir` holds something else or another checkpoint, or another process is writing there, or if a weight is not finite or
    /// too large for the type, which it names; a failure to write.
    pub fn write(&self, dir: &Path, overwrite: bool) -> Result<Written> {
        let output = output_dir::fill(dir, &content(&|name| dir.join(name).is_file()), overwrite)?;
        if output.is_complete() {
            if let Some(what) = self.difference(dir)? {
                return Err(Error::input(format!(
                    "{} already holds a checkpoint that differs ({what}); choose another --out, or {}",
                    dir.display(),
                    self.or
                )));
            }
            output.finish()?;
            return Ok(Written::Found);
        }
        for (name, bytes) in &self.beside {
            files::write_atomic(&dir.join(name), bytes)?;
        }
        // The writer would call it a failure to write.
        let refused = Cell::new(None);
        let make = |i: usize| self.values(i).inspect_err(|e| refused.set(Some(e.to_string())));
        let written = weights::write_with(dir, self.shapes, self.dtype.dtype(), &make);
        if let Some(why) = refused.take() {
            return Err(Error::input(why));
        }
        written?;
        files::write_json(&dir.join(CONFIG), &self.config)?;
        output.finish()?;
        Ok(Written::New)
    }

    /// The numbers of a weight, which its type can hold.
    fn values(&self, i: usize) -> Result<Vec<f32>> {
        let values = (self.make)(i)?;
        match self.dtype.check(&values) {
            Ok(()) => Ok(values),
            Err(why) => Err(Error::input(format!("{}: `{}` {why}", self.from, self.shapes[i].0))),
        }
    }

    /// What differs first in the checkpoint `dir`.
    fn difference(&self, dir: &Path) -> Result<Option<String>> {
        for (name, bytes) in &self.beside {
            let path = dir.join(name);
            if !path.is_file() || files::read(&path)? != *bytes {
                return Ok(Some(name.clone()));
            }
        }
        let config: Value = files::read_json(&dir.join(CONFIG))?;
        if let Some(difference) = named_differences(&config, &self.config).first() {
            return Ok(Some(format!("{CONFIG}: {difference}")));
        }
        let stored = match CheckpointFiles::open(dir, read_architecture(dir)?.as_ref()) {
            Ok(stored) => stored,
            Err(e) => return Ok(Some(e.to_string())),
        };
        for (i, (name, _)) in self.shapes.iter().enumerate() {
            let Some(tensor) = stored.tensors.iter().find(|tensor| tensor.name == *name) else {
                return Ok(Some(name.clone()));
            };
            let mut values = self.values(i)?;
            self.dtype.round(&mut values);
            if tensor.dtype != self.dtype.stored() || stored.values(tensor)? != values {
                return Ok(Some(name.clone()));
            }
        }
        Ok(None)
    }
}
