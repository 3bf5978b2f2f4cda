//! Exact fractions.

/// A fraction in lowest terms with a positive denominator. Arithmetic is checked: `None` for a division by zero, and where a term
/// would not fit 128 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rational {
    numerator: i128,
    denominator: i128,
}

impl Rational {
    /// A whole number.
    pub fn whole(n: u32) -> Rational {
        Rational { numerator: i128::from(n), denominator: 1 }
    }

    /// `numerator / denominator`; `None` if that is zero.
    pub fn new(numerator: i128, denominator: i128) -> Option<Rational> {
        reduced(numerator, denominator)
    }

    /// Is it a whole number?
    pub fn is_whole(self) -> bool {
        self.denominator == 1
    }

    /// The whole number, if it is one.
    pub fn to_i128(self) -> Option<i128> {
        self.is_whole().then_some(self.numerator)
    }

    /// The nearest number of 64 bits.
    pub fn to_f64(self) -> f64 {
        self.numerator as f64 / self.denominator as f64
    }

    /// The number, if it is whole and fits.
    pub fn to_whole(self) -> Option<u32> {
        u32::try_from(self.numerator).ok().filter(|_| self.denominator == 1)
    }

    /// Is it zero?
    pub fn is_zero(self) -> bool {
        self.numerator == 0
    }

    /// `self + other`.
    pub fn add(self, other: Rational) -> Option<Rational> {
        let left = self.numerator.checked_mul(other.denominator)?;
        let right = other.numerator.checked_mul(self.denominator)?;
        reduced(left.checked_add(right)?, self.denominator.checked_mul(other.denominator)?)
    }

    /// `self - other`.
    pub fn sub(self, other: Rational) -> Option<Rational> {
        self.add(Rational { numerator: other.numerator.checked_neg()?, ..other })
    }

    /// `self * other`.
    pub fn mul(self, other: Rational) -> Option<Rational> {
        reduced(self.numerator.checked_mul(other.numerator)?, self.denominator.checked_mul(other.denominator)?)
    }

    /// `self / other`.
    pub fn div(self, other: Rational) -> Option<Rational> {
        reduced(self.numerator.checked_mul(other.denominator)?, self.denominator.checked_mul(other.numerator)?)
    }
}

impl std::fmt::Display for Rational {
    /// `3/4`; without a denominator of 1.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.denominator {
            1 => write!(f, "{}", self.numerator),
            denominator => write!(f, "{}/{denominator}", self.numerator),
        }
    }
}

/// In lowest terms; `None` if the denominator is zero.
fn reduced(numerator: i128, denominator: i128) -> Option<Rational> {
    if denominator == 0 {
        return None;
    }
    let divisor = i128::try_from(gcd(numerator.unsigned_abs(), denominator.unsigned_abs())).ok()?;
    let divisor = if denominator < 0 { -divisor } else { divisor };
    Some(Rational { numerator: numerator.checked_div(divisor)?, denominator: denominator.checked_div(divisor)? })
}

fn gcd(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        // Nearly always; divisions of 64 bits are several times faster.
        if let (Ok(mut a), Ok(mut b)) = (u64::try_from(a), u64::try_from(b)) {
            while b != 0 {
                (a, b) = (b, a % b);
            }
            return u128::from(a);
        }
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_are_exact_and_what_does_not_fit_is_nothing() {
        let [one, three, ten] = [1, 3, 10].map(Rational::whole);
        let third = one.div(three).unwrap();
        assert_eq!(third.add(third).unwrap().add(third), Some(one));
        assert_eq!(ten.div(third).unwrap().to_whole(), Some(30));
        assert_eq!(third.to_whole(), None);
        assert_eq!(one.sub(ten).unwrap().to_whole(), None, "negative");
        assert_eq!(one.sub(ten).unwrap().mul(one.sub(ten).unwrap()).unwrap().to_whole(), Some(81));
        assert_eq!(ten.div(one.sub(one).unwrap()), None);
        assert_eq!(one.sub(three).unwrap().div(one.sub(three).unwrap()), Some(one));
        let mut large = Rational::whole(u32::MAX);
        for _ in 0..2 {
            large = large.mul(large).unwrap_or(large);
        }
        assert_eq!(large.mul(large), None);
    }
}
