//! Confidence intervals and paired comparisons. Pure: numbers in, numbers out.

mod bootstrap;
mod clustered;
#[cfg(test)]
mod fixture;
mod intervals;
mod line;
mod normal;
mod proportions;
mod several;
mod student;
pub mod table;

pub use bootstrap::{Means, RESAMPLES, Unit, bca, bootstrap};
pub use clustered::{Estimate, Total, clustered_difference, clustered_mean, clustered_unit_mean, totals};
pub(crate) use intervals::nan_if_null;
pub use intervals::{Difference, Interval, mean, paired_difference, share, unit_mean};
pub use line::{Agreement, Line};
pub use normal::{normal_cdf, normal_quantile};
pub use proportions::{mcnemar, paired_proportions};
pub use several::{holm, mean_is_zero, mean_of_intervals};
pub use student::{student_t_quantile, student_t_two_sided};
