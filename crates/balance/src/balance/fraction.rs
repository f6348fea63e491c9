//! Fractions of 2^64.

/// The part of `n` equal ones that a fraction is in, and the fraction of that.
#[inline]
pub(super) fn part(fraction: u64, n: usize) -> (usize, u64) {
    let product = u128::from(fraction) * u128::try_from(n).unwrap_or(0);
    let rest = u64::try_from(product & u128::from(u64::MAX)).unwrap_or(0);
    (usize::try_from(product >> 64).unwrap_or(0), rest)
}

/// 2^64 divided by the golden ratio: its multiples are the most even sequence of fractions (Weyl).
pub(super) const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
