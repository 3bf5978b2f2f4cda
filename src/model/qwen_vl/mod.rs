//! What Qwen's models with vision share: `config.json`, weight names, positions in time, height and width, the order of patches, and the
//! blocks of the plain vision towers. A family supplies its tower as a [`VisionFamily`].

mod config;
mod mrope;
pub mod vision_fields;
pub mod vit;
mod weight_names;
pub mod window_order;

pub use config::{Config, VisionFamily};
