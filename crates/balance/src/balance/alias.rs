use super::{Choice, Members};

/// A table that draws an index in proportion to its weight in constant time.
///
/// Vose's alias method ("A Linear Algorithm For Generating Random Numbers With a Given
/// Distribution", 1991), in integers: column `i` is `i` below its threshold, else its alias.
pub(super) struct Alias {
    columns: Vec<Column>,
    /// The height of every column: the sum of the weights.
    height: usize,
}

#[derive(Clone, Copy)]
struct Column {
    threshold: usize,
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
        let n = weights.len();
        if height == 0 {
            return None;
        }
        let mut columns: Vec<_> = (0..n)
            .map(|index| Column {
                threshold: weights.get(index).map_or(0, |w| w * n),
                alias: index,
            })
            .collect();
        let (mut small, mut large): (Vec<_>, Vec<_>) =
            (0..n).partition(|&index| columns[index].threshold < height);
        while let (Some(less), Some(more)) = (small.pop(), large.pop()) {
            columns[less].alias = more;
            columns[more].threshold -= height - columns[less].threshold;
            match columns[more].threshold < height {
                true => small.push(more),
                false => large.push(more),
            }
        }
        Some(Self { columns, height })
    }

    #[inline]
    pub(super) fn draw(&self, choice: &mut Choice<'_>) -> usize {
        let index = choice.random(self.columns.len());
        match self.columns.get(index) {
            Some(column) if choice.random(self.height) >= column.threshold => column.alias,
            _ => index,
        }
    }
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
            let Some(alias) = Alias::new(&weights) else {
                assert_eq!(weights.iter().sum::<usize>(), 0);
                continue;
            };
            let mut shares = vec![0; weights.len()];
            for (index, column) in alias.columns.iter().enumerate() {
                let own = column.threshold.min(alias.height);
                shares[index] += own;
                shares[column.alias] += alias.height - own;
            }
            let scaled: Vec<_> = weights.iter().map(|weight| weight * weights.len()).collect();
            assert_eq!(shares, scaled);
        }
    }
}
