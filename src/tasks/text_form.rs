//! Settings that are written as one text, such as `3x3` or `0.8,0.1,0.1`, on the command line and in files.

use std::fmt::Display;
use std::str::FromStr;

/// Conversions from and to `String` by a type's `FromStr` and `Display`, for `#[serde(try_from = "String", into = "String")]`.
macro_rules! text_form {
    ($type:ty) => {
        impl TryFrom<String> for $type {
            type Error = <$type as std::str::FromStr>::Err;

            fn try_from(text: String) -> std::result::Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> String {
                value.to_string()
            }
        }
    };
}
pub(crate) use text_form;

/// The ends of a range such as `3-4`; of one number alone, both ends. `None` unless both are numbers.
pub fn range<N: FromStr>(text: &str) -> Option<(N, N)> {
    let (min, max) = text.split_once('-').unwrap_or((text, text));
    Some((min.parse().ok()?, max.parse().ok()?))
}

/// A range as [`range`] reads it.
pub fn range_text<N: Display + PartialEq>(min: N, max: N) -> String {
    if min == max { min.to_string() } else { format!("{min}-{max}") }
}
