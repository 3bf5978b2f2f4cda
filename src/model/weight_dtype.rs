//! The types that weights are stored in.

use candle_core::DType;
use safetensors::tensor::Dtype;

/// How weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum WeightDtype {
    /// 32 bits.
    F32,
    /// 16 bits, eight of them for the exponent, as the published checkpoints.
    Bf16,
    /// 16 bits, five of them for the exponent: finer steps than bf16, a smaller range.
    F16,
}

impl WeightDtype {
    pub(crate) fn dtype(self) -> DType {
        match self {
            WeightDtype::F32 => DType::F32,
            WeightDtype::Bf16 => DType::BF16,
            WeightDtype::F16 => DType::F16,
        }
    }

    /// Its name in `config.json`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            WeightDtype::F32 => "float32",
            WeightDtype::Bf16 => "bfloat16",
            WeightDtype::F16 => "float16",
        }
    }

    /// Its name in a safetensors file.
    pub(crate) fn stored(self) -> Dtype {
        match self {
            WeightDtype::F32 => Dtype::F32,
            WeightDtype::Bf16 => Dtype::BF16,
            WeightDtype::F16 => Dtype::F16,
        }
    }

    /// Round numbers to what is stored of them.
    pub(crate) fn round(self, values: &mut [f32]) {
        match self {
            WeightDtype::F32 => {}
            WeightDtype::Bf16 => values.iter_mut().for_each(|x| *x = half::bf16::from_f32(*x).to_f32()),
            WeightDtype::F16 => values.iter_mut().for_each(|x| *x = half::f16::from_f32(*x).to_f32()),
        }
    }

    /// What is wrong with these weights, if they cannot be stored so.
    pub(crate) fn check(self, values: &[f32]) -> std::result::Result<(), String> {
        let most = match self {
            WeightDtype::F32 => f32::MAX,
            WeightDtype::Bf16 => f32::from(half::bf16::MAX),
            WeightDtype::F16 => f32::from(half::f16::MAX),
        };
        match values.iter().find(|value| value.is_nan() || value.abs() > most) {
            None => Ok(()),
            Some(value) if value.is_finite() => {
                Err(format!("holds {value}, more than {} can; use bf16 or f32", self.name()))
            }
            Some(value) => Err(format!("holds {value}")),
        }
    }
}
