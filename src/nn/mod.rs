//! Differentiable kernels with their own forward and backward.

mod parameter;

pub use parameter::Parameter;
