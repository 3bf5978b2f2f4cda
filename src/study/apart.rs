//! Sets of examples that must have none in common, such as the tasks of a sequence and the prior sets: what is learned of one would else be asked
//! in another.

use crate::eval::bench::{BenchmarkSettings, BenchmarkSpec, prepare_for_server};
use crate::sampling::hash_prompt;
use crate::{Error, Result};
use rayon::prelude::*;
use std::collections::HashMap;
use std::sync::OnceLock;

/// Sets of examples.
#[derive(Debug, Clone, PartialEq)]
pub struct Apart {
    /// Each set as its parts, which may share examples among themselves.
    pub sets: Vec<Vec<BenchmarkSpec>>,
    /// How they are read.
    pub settings: BenchmarkSettings,
    /// What is wrong, once they have been looked at.
    found: OnceLock<Option<String>>,
}

impl Apart {
    /// These sets, not looked at yet.
    pub fn new(sets: Vec<Vec<BenchmarkSpec>>, settings: BenchmarkSettings) -> Apart {
        Apart { sets, settings, found: OnceLock::new() }
    }

    /// See that no two sets have an example in common: the same prompt with the same images. They are read at the first call.
    ///
    /// # Errors
    /// An input error that names both examples; a file that cannot be read.
    pub fn check(&self) -> Result<()> {
        let found = match self.found.get() {
            Some(found) => found.clone(),
            None => {
                let found = self.shared()?;
                self.found.get_or_init(|| found).clone()
            }
        };
        found.map_or(Ok(()), |why| Err(Error::input(why)))
    }

    /// The first example that two sets share, in words.
    fn shared(&self) -> Result<Option<String>> {
        let mut known: HashMap<[u8; 32], (usize, String)> = HashMap::new();
        for (number, parts) in self.sets.iter().enumerate() {
            for spec in parts {
                let prepared = prepare_for_server(std::slice::from_ref(spec), &self.settings)?;
                let Some(task) = prepared.first().map(|one| one.task()) else { continue };
                // Examples that are made as they are needed cannot all be looked at.
                let examples = if task.measured() < task.len() { 0 } else { task.len() };
                let hash = |i: usize| -> Result<([u8; 32], String)> {
                    Ok((hash_prompt(task, i)?, task.example(i)?.id.clone()))
                };
                for (hash, id) in (0..examples).into_par_iter().map(hash).collect::<Result<Vec<_>>>()? {
                    let example = format!("{id} of {}", spec.name);
                    match known.get(&hash) {
                        Some((other, first)) if *other != number => {
                            return Ok(Some(format!(
                                "{example} and {first} ask the same: what is learned of one would be asked in the other. Make the data with another \
                                 seed or other settings, under another name"
                            )));
                        }
                        _ => drop(known.insert(hash, (number, example))),
                    }
                }
            }
        }
        Ok(None)
    }
}
