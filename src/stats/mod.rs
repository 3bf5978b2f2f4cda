//! Confidence intervals and paired comparisons. Pure: numbers in, numbers out.

mod bootstrap;
mod clustered;
mod combined;
#[cfg(test)]
mod fixture;
mod intervals;
mod normal;
mod proportions;
mod regression;
mod student;
pub mod table;

pub use bootstrap::{Means, RESAMPLES, ResampleUnit, bca, bootstrap};
pub use clustered::{ClusterTotal, Estimate, clustered_difference, clustered_mean, clustered_unit_mean, totals};
pub use combined::{holm, mean_is_zero, mean_of_intervals};
pub(crate) use intervals::nan_if_null;
pub use intervals::{Difference, Interval, mean, paired_difference, share, unit_mean};
pub use normal::{normal_cdf, normal_quantile};
pub use proportions::{mcnemar, paired_proportions};
pub use regression::{Agreement, LinearFit};
pub use student::{student_t_quantile, student_t_two_sided};
