//! Confidence intervals and paired comparisons. Pure: numbers in, numbers out.

mod intervals;
mod student;

pub use intervals::{Difference, Interval, mean, paired_difference, share, unit_mean};
pub use student::{student_t_quantile, student_t_two_sided};
