//! What a dataset asks of the records that are stored for it, wherever that is.

use super::{Record, Seen};
use crate::Result;
use std::collections::HashMap;
use std::fmt::Debug;

/// Images that are in the file of their record, encoded, by the name that the record has for them.
pub type Embedded = HashMap<String, Vec<u8>>;

/// Records that are read when they are asked for. `i` is below [`StoredRecords::len`] everywhere.
pub(super) trait StoredRecords: Debug + Send + Sync {
    /// Number of records.
    fn len(&self) -> usize;
    /// Record `i`, and those of its images that are in the file of the records.
    ///
    /// # Errors
    /// An input error if the file was changed since it was opened.
    fn read(&self, i: usize) -> Result<(Record, Embedded)>;
    /// What opening has seen of record `i`, if that was asked for.
    fn seen(&self, i: usize) -> Option<Seen>;
    /// The task of record `i`.
    fn task(&self, i: usize) -> &str;
    /// `file:line` of record `i`, for messages.
    fn place(&self, i: usize) -> String;
    /// Go on with the records alone whose numbers `keep` takes.
    fn retain(&mut self, keep: &dyn Fn(usize) -> bool);
    /// A note for the user on how the records were read.
    fn note(&self) -> Option<String> {
        None
    }
}
