//! Rotary frequencies stretched for longer sequences: `rope_scaling` of `config.json`.
//!
//! Source: transformers 5, `modeling_rope_utils.py` (`_compute_linear_scaling_rope_parameters`, `_compute_llama3_parameters`).

use crate::Result;
use crate::model::json_fields::Fields;
use serde_json::{Value, json};
use std::f32::consts::PI;

/// How the frequencies are stretched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// All are divided by the factor.
    Linear {
        /// Divisor.
        factor: f64,
    },
    /// Those whose wavelength is long are divided by the factor, those between long and short in part (Llama 3.1 and later).
    Llama3 {
        /// Divisor.
        factor: f64,
        /// `original / low` is the wavelength from which on a frequency is divided in full.
        low_freq_factor: f64,
        /// `original / high` is the wavelength up to which a frequency stays as it is.
        high_freq_factor: f64,
        /// Longest sequence before the stretching.
        original_max_position_embeddings: usize,
    },
}

impl RopeScaling {
    /// The values of `rope_type` that are read.
    pub const KINDS: [&'static str; 3] = ["default", "linear", "llama3"];

    /// The scaling of a section with this `rope_type`, one of [`RopeScaling::KINDS`]; `default` scales nothing.
    ///
    /// # Errors
    /// An input error that names a field that is missing or out of range.
    pub fn from_fields(kind: &str, rope: &Fields, max_positions: usize) -> Result<Option<Self>> {
        let number = |key: &str| {
            rope.positive_number(key)?.ok_or_else(|| rope.error(key, format!("is missing; `{kind}` needs it")))
        };
        Ok(match kind {
            "linear" => Some(RopeScaling::Linear { factor: number("factor")? }),
            "llama3" => {
                let (low, high) = (number("low_freq_factor")?, number("high_freq_factor")?);
                if high <= low {
                    return Err(rope.error("high_freq_factor", format!("{high} must exceed low_freq_factor {low}")));
                }
                Some(RopeScaling::Llama3 {
                    factor: number("factor")?,
                    low_freq_factor: low,
                    high_freq_factor: high,
                    original_max_position_embeddings: rope
                        .positive("original_max_position_embeddings")?
                        .unwrap_or(max_positions),
                })
            }
            _ => None,
        })
    }

    /// The section of the published files.
    pub fn to_json(self) -> Value {
        match self {
            RopeScaling::Linear { factor } => json!({ "rope_type": "linear", "factor": factor }),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
                json!({
                    "rope_type": "llama3",
                    "factor": factor,
                    "low_freq_factor": low_freq_factor,
                    "high_freq_factor": high_freq_factor,
                    "original_max_position_embeddings": original_max_position_embeddings,
                })
            }
        }
    }

    /// The stretched form of a frequency (radians for each position), in f32 as transformers computes it.
    pub fn frequency(self, frequency: f32) -> f32 {
        match self {
            RopeScaling::Linear { factor } => frequency / factor as f32,
            RopeScaling::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings,
            } => {
                let (factor, original) = (factor as f32, original_max_position_embeddings as f64);
                let wavelength = 2.0 * PI / frequency;
                if f64::from(wavelength) < original / high {
                    frequency
                } else if f64::from(wavelength) > original / low {
                    frequency / factor
                } else {
                    let smooth = (original as f32 / wavelength - low as f32) / (high - low) as f32;
                    (1.0 - smooth) * frequency / factor + smooth * frequency
                }
            }
        }
    }
}
