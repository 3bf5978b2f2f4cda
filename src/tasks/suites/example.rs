//! An example of a suite, and the forms in which it is written.

use super::family::{Family, Question};
use crate::data::Digest;
use crate::tasks::response::{Style, with_image};

/// The forms in which every question is written.
pub const STYLES: [Style; 2] = [Style::Direct, Style::Think];

/// A question whose picture is written.
pub struct SuiteExample {
    pub family: Family,
    pub index: usize,
    pub question: Question,
    /// The question stands before the picture.
    pub first: bool,
    pub size: (u32, u32),
    pub digest: Digest,
}

impl SuiteExample {
    /// The whole prompt in a style, with the place of the picture.
    pub fn prompt(&self, style: Style) -> String {
        with_image(&self.question.asked(style), self.first)
    }

    /// Path of its picture in the split.
    pub fn image(&self) -> String {
        format!("images/{}-{:06}.png", self.family.name(), self.index)
    }
}
