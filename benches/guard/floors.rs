//! The least share of a matrix product's rate that each path must keep.

/// About 35 to 40 % below the lowest share of several runs on an idle machine (2026-11-24, AMD EPYC, Zen 3, 2 virtual CPUs, AVX2).
/// For work without matrix products an operation is what its check counts.
pub const FLOORS: [(&str, f64); 17] = [
    ("sft step, tiny", 0.5),
    ("sft step, small widths", 0.65),
    ("rollouts, tiny", 0.31),
    ("scoring, tiny", 0.35),
    ("preprocessing of a picture", 0.049),
    ("making puzzles", 0.0195),
    ("adamw step", 1.02),
    ("attention, causal", 0.265),
    ("attention, whole pictures", 0.355),
    ("attention, windows", 0.23),
    ("attend, decoding", 0.235),
    ("token_stats, 151936 tokens", 0.2),
    ("swiglu", 0.067),
    ("gelu", 0.035),
    ("rms_norm", 0.083),
    ("rope", 0.138),
    ("embed", 0.038),
];

/// Floors are multiplied by this where gemm has vectors of 512 bits: the product is then up to twice as fast, the paths are not.
pub const WIDE_VECTORS: f64 = 0.75;

/// Paths that move memory, or compute without multiply-adds of wide vectors. Their floors are multiplied by [`TWO_WIDE_UNITS`] on processors with two multiply-add units of
/// 512 bits: the product is twice as fast again there, the memory is not.
pub const MEMORY_BOUND: [&str; 6] = ["preprocessing of a picture", "swiglu", "gelu", "rms_norm", "rope", "embed"];

/// Measured on 2026-11-30 on an Intel Xeon with AMX, 2 virtual CPUs, of the same kernels before and after files were moved, in %:
/// rms_norm 5.7 and 5.9, rope 7.5 and 7.6, embed 2.4 and 2.3 (floors with [`WIDE_VECTORS`] alone: 6.2, 10.4, 2.9). All others were above their floors. On 2026-12-01 on one whose virtual machine hides AMX: 5.9,
/// 7.3 and 2.4.
pub const TWO_WIDE_UNITS: f64 = 0.5;
