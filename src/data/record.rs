//! One example of a dataset, as a line of `metadata.jsonl`.

use crate::Result;
use serde::{Deserialize, Serialize};

/// The file of a split that holds its records, one JSON object a line.
pub const METADATA: &str = "metadata.jsonl";
/// Stands in a message for the next image of the record.
pub const IMAGE_PLACEHOLDER: &str = "<image>";

/// SHA-256 of an image file.
pub type Digest = [u8; 32];

/// What opening a dataset does with each stored record, while it has it.
#[derive(Clone, Copy)]
pub struct Inspection<'a> {
    /// Looks at a record before it is used; the second argument says whether it is from another tool's file. An error has no place yet.
    pub check: fn(&Record, bool) -> Result<()>,
    /// For training: whether a run that uses a record would refuse it. With it, opening keeps what was [`Seen`] of each record.
    pub is_refused: Option<&'a (dyn Fn(&Record) -> bool + Sync)>,
}

impl Inspection<'_> {
    /// Everything is taken, and nothing is kept.
    pub const NONE: Inspection<'static> = Inspection { check: |_, _| Ok(()), is_refused: None };

    /// What is kept of a record whose images have these sizes; nothing unless for training.
    pub(super) fn see(&self, record: &Record, sizes: impl FnOnce() -> Option<Vec<(u32, u32)>>) -> Option<Seen> {
        let is_refused = self.is_refused?;
        let (text, pixels) = rough_size(record, sizes());
        let [text, pixels] = [text as u64, pixels].map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        Some(Seen { text, pixels, refused: is_refused(record) })
    }
}

/// What opening has seen of a stored record, so that starting a run does not read all records again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    text: u32,
    pixels: u32,
    /// The run would refuse it.
    pub refused: bool,
}

impl Seen {
    /// [`rough_size`], where neither number is above 2^32 - 1.
    pub fn rough_size(&self) -> (usize, u64) {
        (self.text as usize, u64::from(self.pixels))
    }
}

/// Bytes of the text of a record, and pixels of its images of these sizes; no pixels if the sizes are not known.
pub fn rough_size(record: &Record, sizes: Option<Vec<(u32, u32)>>) -> (usize, u64) {
    let area = |(width, height): (u32, u32)| u64::from(width) * u64::from(height);
    let text = record.messages.iter().map(|message| message.content.len()).sum();
    (text, sizes.map_or(0, |sizes| sizes.into_iter().map(area).sum()))
}

/// One chat turn. In `content`, each `<image>` stands for the next entry of [`Record::images`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// Text with `<image>` placeholders.
    pub content: String,
}

/// One example: a conversation ending in the assistant's reference response, and what is needed to score another one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// First image again, under the name that Hugging Face's `imagefolder` reader requires; empty, and not written, without images.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub file_name: String,
    /// Unique within the dataset.
    pub id: String,
    /// Name of the task that scores it (`jigsaw`, `jigsaw-pair`, ...).
    pub task: String,
    /// The prompt turns, then the assistant's reference response as the last turn.
    pub messages: Vec<Message>,
    /// Image paths relative to the file that holds the record, one per `<image>` placeholder; not written if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
    /// Gold answer, as the task's scorer reads it (for a jigsaw: `3 1 2 ...`).
    pub answer: String,
    /// Source image (path relative to the images folder); [`Record::SYNTHETIC`] of what a program has made up.
    pub source: String,
    /// Seed the example was made from.
    pub seed: u64,
    /// Task-specific settings (for a jigsaw: grid rows and columns, tile, style).
    #[serde(default)]
    pub meta: serde_json::Map<String, serde_json::Value>,
}

impl Record {
    /// The source of an example that has none: a program has made it up, and each is independent of the others.
    pub const SYNTHETIC: &str = "synthetic";

    /// The turns before the reference response.
    pub fn prompt(&self) -> &[Message] {
        match self.messages.split_last() {
            Some((last, prompt)) if last.role == "assistant" => prompt,
            _ => &self.messages,
        }
    }

    /// The source image, which examples may share; `None` of one that was made up.
    pub fn shared_source(&self) -> Option<&str> {
        Some(self.source.as_str()).filter(|source| !source.is_empty() && *source != Record::SYNTHETIC)
    }

    /// The reference response, if the record has one.
    pub fn response(&self) -> Option<&str> {
        self.messages.last().filter(|m| m.role == "assistant").map(|m| m.content.as_str())
    }
}
