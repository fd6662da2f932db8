//! Once and in order, per subscriber and series (one publisher's messages on one channel).

/// Sequence numbers remembered as skipped, per subscriber; further ones count as lost for good.
const MAX_MISSING: usize = 4_096;

/// How one delivery relates to those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    InOrder,
    /// Comes after a hole of this many, which may still be filled.
    AfterGap(u32),
    /// Fills a hole: a later one came first.
    Late,
    Duplicate,
}

/// What one subscriber has seen of every series it hears.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sequences {
    /// Next number expected per series. Few: a linear scan beats a map.
    expected: Vec<(u64, u32)>,
    missing: Vec<(u64, u32)>,
}

impl Sequences {
    /// Judges number `sequence` of `series`.
    pub(crate) fn check(&mut self, series: u64, sequence: u32) -> Arrival {
        let position = self.expected.iter().position(|(its, _)| *its == series).unwrap_or_else(|| {
            self.expected.push((series, 0));
            self.expected.len() - 1
        });
        let next = &mut self.expected[position].1;
        if sequence == *next {
            *next += 1;
            return Arrival::InOrder;
        }
        if sequence > *next {
            let skipped = *next..sequence;
            *next = sequence + 1;
            let gap = skipped.end - skipped.start;
            let room = MAX_MISSING.saturating_sub(self.missing.len());
            self.missing.extend(skipped.take(room).map(|number| (series, number)));
            return Arrival::AfterGap(gap);
        }
        match self.missing.iter().position(|hole| *hole == (series, sequence)) {
            Some(hole) => {
                self.missing.swap_remove(hole);
                Arrival::Late
            }
            None => Arrival::Duplicate,
        }
    }

    /// How many of `sent` messages of `series` have not been seen at their end, holes not counted.
    pub(crate) fn unseen_tail(&self, series: u64, sent: u32) -> u32 {
        let next = self.expected.iter().find(|(its, _)| *its == series).map_or(0, |(_, next)| *next);
        sent.saturating_sub(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_judged_per_series() {
        let mut seen = Sequences::default();
        for (series, sequence, arrival) in [
            (1, 0, Arrival::InOrder),
            (1, 1, Arrival::InOrder),
            (2, 0, Arrival::InOrder),
            (1, 4, Arrival::AfterGap(2)),
            (1, 2, Arrival::Late),
            (1, 2, Arrival::Duplicate),
            (1, 4, Arrival::Duplicate),
            (1, 5, Arrival::InOrder),
            (2, 0, Arrival::Duplicate),
            (3, 7, Arrival::AfterGap(7)),
        ] {
            assert_eq!(seen.check(series, sequence), arrival, "series {series} number {sequence}");
        }
        assert_eq!((seen.unseen_tail(1, 8), seen.unseen_tail(2, 1), seen.unseen_tail(9, 3)), (2, 0, 3));
    }
}
