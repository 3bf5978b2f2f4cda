//! Maths: word problems with exact answers, drawn from families at three levels of difficulty. Text only; scored by
//! [`crate::tasks::scorers::Maths`]. `docs/maths.md` lists the families.

mod families;
mod generate;
mod settings;

pub use generate::generate;
pub use settings::{Families, Levels, MathsSettings};
