//! Confidence intervals and paired comparisons. Pure: numbers in, numbers out.
//!
//! | quantity | interval (95 %) and test | source |
//! |---|---|---|
//! | share of independent examples | Wilson score interval | Wilson 1927 |
//! | mean of independent values | Student's t | |
//! | mean of clustered values | cluster-robust standard error (CR1), Student's t | Liang and Zeger 1986 |
//! | change of paired 0/1 scores | Tango's score interval; McNemar's exact test | Tango 1998; McNemar 1947 |
//! | ratio of means (share retained) | BCa bootstrap over clusters | Efron 1987 |
//! | change of graded or clustered scores, and of a mean over benchmarks | cluster-robust t with one unseen loss and gain | Bonett and Price 2012; Fay and Feuer 1997 |
//! | mean of independent estimates | MOVER | Zou and Donner 2008 |
//! | mean over seeds that answer the same questions | seeds and questions resampled, in closed form; Student's t | Owen 2007 |
//! | coefficients of a linear model (`Ols`), slope of a line | cluster-robust standard error (CR1), Student's t | Liang and Zeger 1986 |
//! | p-values of several benchmarks | Holm's step-down adjustment | Holm 1979 |

mod bootstrap;
mod clustered;
#[cfg(test)]
mod fixture;
mod intervals;
mod mcnemar;
mod multiple_tests;
mod normal;
mod ols;
mod regression;
mod seeds;
#[cfg(test)]
mod seeds_coverage;
mod stratified_mean;
mod student;
pub mod table;
mod task_sequence;

pub use bootstrap::{Means, RESAMPLES, ResampleUnit, bca, bootstrap};
pub use clustered::{ClusterTotal, Estimate, clustered_mean, clustered_unit_mean, totals, weighted_totals};
pub(crate) use intervals::nan_if_null;
pub use intervals::{Difference, Interval, mean, paired_difference, share, unit_mean};
pub use mcnemar::{mcnemar, paired_proportions};
pub use multiple_tests::{holm, mean_of_intervals};
pub use normal::{normal_cdf, normal_quantile};
pub use ols::{Coefficient, Ols, effects};
pub use regression::{Agreement, LinearFit};
pub use seeds::{mean_over_seeds, mean_over_seeds_of, weighted_sum};
pub use stratified_mean::{Contribution, Stratum, changed_clusters, clustered_difference, mean_of_strata};
pub use student::{student_t_quantile, student_t_two_sided};
pub use task_sequence::{Entry, SequenceMeasure, entries_by_question, entries_sum};
