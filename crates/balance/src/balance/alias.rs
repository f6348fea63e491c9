use super::{
    Choice, Members,
    fraction::{GOLDEN, part},
};

/// A table that chooses an index in proportion to its weight in constant time.
///
/// Vose's alias method ("A Linear Algorithm For Generating Random Numbers With a Given
/// Distribution", 1991), in integers: a column is its own index below its threshold, else its
/// alias.
pub(super) struct Alias {
    columns: Vec<Column>,
}

#[derive(Clone, Copy)]
struct Column {
    /// Of all 64-bit numbers, so many are the column's own.
    own: u64,
    alias: usize,
}

impl Alias {
    /// `None` when all weigh the same.
    pub(super) fn of(members: &Members<'_>) -> Option<Self> {
        match members.weigh_the_same() {
            true => None,
            false => Self::new(&members.weights()),
        }
    }

    /// `None` without a weight above 0.
    pub(super) fn new(weights: &[usize]) -> Option<Self> {
        let height = weights.iter().sum::<usize>();
        let columns = columns(weights, height)?.into_iter().map(|(threshold, alias)| {
            // A full column needs no second draw.
            let scaled = (to_u128(threshold.min(height)) << 64) / to_u128(height);
            Column { own: u64::try_from(scaled).unwrap_or(u64::MAX), alias }
        });
        Some(Self { columns: columns.collect() })
    }

    /// The index of a fraction of 2^64.
    #[inline]
    pub(super) fn of_fraction(&self, fraction: u64) -> usize {
        let (index, rest) = part(fraction, self.columns.len());
        self.resolve(index, rest)
    }

    /// An index at random.
    #[inline]
    pub(super) fn draw(&self, choice: &mut Choice<'_>) -> usize {
        let index = choice.random(self.columns.len());
        self.resolve(index, choice.bits())
    }

    /// The index of one turn: all columns in turn, and in each its two indexes evenly mixed.
    #[inline]
    pub(super) fn at(&self, turn: usize) -> usize {
        let n = self.columns.len().max(1);
        let (round, index) = (turn / n, turn % n);
        let fraction = u64::try_from(round.wrapping_add(index)).unwrap_or(0).wrapping_mul(GOLDEN);
        self.resolve(index, fraction)
    }

    #[inline]
    fn resolve(&self, index: usize, bits: u64) -> usize {
        match self.columns.get(index) {
            Some(column) if bits >= column.own => column.alias,
            _ => index,
        }
    }
}

/// The threshold and the alias of each column, all of which are `height` high.
fn columns(weights: &[usize], height: usize) -> Option<Vec<(usize, usize)>> {
    if height == 0 {
        return None;
    }
    let n = weights.len();
    let mut columns: Vec<_> =
        weights.iter().enumerate().map(|(index, weight)| (weight * n, index)).collect();
    let (mut small, mut large): (Vec<_>, Vec<_>) =
        (0..n).partition(|&index| columns[index].0 < height);
    while let (Some(less), Some(&more)) = (small.pop(), large.last()) {
        columns[less].1 = more;
        columns[more].0 -= height - columns[less].0;
        if columns[more].0 < height {
            small.extend(large.pop());
        }
    }
    Some(columns)
}

fn to_u128(n: usize) -> u128 {
    u128::try_from(n).unwrap_or(u128::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Exact: each weight is the sum of its parts of all columns.
    #[test]
    fn columns_contain_exactly_the_weights() {
        let mut rng = fastrand::Rng::with_seed(5);
        for _ in 0..200 {
            let weights: Vec<_> = (0..rng.usize(1..40)).map(|_| rng.usize(0..1_000)).collect();
            let height = weights.iter().sum();
            let Some(columns) = columns(&weights, height) else {
                assert_eq!(height, 0);
                continue;
            };
            let mut shares = vec![0; weights.len()];
            for (index, (threshold, alias)) in columns.into_iter().enumerate() {
                shares[index] += threshold.min(height);
                shares[alias] += height - threshold.min(height);
            }
            let scaled: Vec<_> = weights.iter().map(|weight| weight * weights.len()).collect();
            assert_eq!(shares, scaled);
        }
    }

    #[test]
    fn turns_are_smooth_and_in_proportion() {
        let alias = Alias::new(&[50, 1]).expect("weights");
        let turns: Vec<_> = (0..5_100).map(|turn| alias.at(turn)).collect();
        let light: Vec<_> = (0..5_100).filter(|&turn| turns[turn] == 1).collect();
        assert!((95..=105).contains(&light.len()), "{}", light.len());
        assert!(light.windows(2).all(|pair| pair[1] - pair[0] > 20), "{light:?}");
        let alias = Alias::new(&[1, 3]).expect("weights");
        let n = (0..10_000).filter(|&turn| alias.at(turn) == 0).count();
        assert!((2_490..=2_510).contains(&n), "{n}");
    }
}
