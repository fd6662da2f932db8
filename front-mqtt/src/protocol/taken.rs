//! Identifiers of QoS 2 publishes that were taken from a client and not yet released by it.

/// A sorted list while there are few, a bit for each identifier once there are many: 8 KiB at most.
#[derive(Debug)]
pub(crate) enum Taken {
    Few(Vec<u16>),
    Many { bits: Box<[u64]>, count: usize },
}

/// From here on a list would be larger than the bits.
const MAX_FEW: usize = 4_096;

impl Default for Taken {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Taken {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Few(list) => list.len(),
            Self::Many { count, .. } => *count,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn contains(&self, id: u16) -> bool {
        match self {
            Self::Few(list) => list.binary_search(&id).is_ok(),
            Self::Many { bits, .. } => {
                let (word, bit) = place(id);
                bits.get(word).is_some_and(|word| word & bit != 0)
            }
        }
    }

    pub(crate) fn insert(&mut self, id: u16) {
        match self {
            Self::Few(list) if list.len() < MAX_FEW => {
                if let Err(at) = list.binary_search(&id) {
                    list.insert(at, id);
                }
            }
            Self::Few(list) => {
                let list = std::mem::take(list);
                *self = Self::Many { bits: vec![0; WORDS].into(), count: 0 };
                for known in list {
                    self.insert(known);
                }
                self.insert(id);
            }
            Self::Many { bits, count } => {
                let (word, bit) = place(id);
                if let Some(word) = bits.get_mut(word) {
                    *count += usize::from(*word & bit == 0);
                    *word |= bit;
                }
            }
        }
    }

    /// False if it was not there.
    pub(crate) fn remove(&mut self, id: u16) -> bool {
        match self {
            Self::Few(list) => list.binary_search(&id).is_ok_and(|at| {
                list.remove(at);
                true
            }),
            Self::Many { bits, count } => {
                let (word, bit) = place(id);
                let Some(word) = bits.get_mut(word) else { return false };
                let was_there = *word & bit != 0;
                *word &= !bit;
                *count -= usize::from(was_there);
                was_there
            }
        }
    }
}

const WORDS: usize = (u16::MAX as usize + 1) / u64::BITS as usize;

fn place(id: u16) -> (usize, u64) {
    (usize::from(id) / u64::BITS as usize, 1 << (u32::from(id) % u64::BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_identifiers_can_be_taken_and_released_in_any_order() {
        let mut taken = Taken::default();
        // 7 and 65,536 have no common divisor, so this goes through all of them.
        let all = || (0..=u16::MAX).map(|n| n.wrapping_mul(7));
        for (n, id) in all().enumerate() {
            assert_eq!((taken.len(), taken.contains(id)), (n, false));
            taken.insert(id);
            taken.insert(id);
            assert!(taken.contains(id));
        }
        assert!(matches!(&taken, Taken::Many { bits, .. } if size_of_val(&**bits) == 8_192));
        for (n, id) in all().enumerate() {
            assert_eq!(taken.len(), usize::from(u16::MAX) + 1 - n);
            assert!(taken.remove(id));
            assert!(!taken.remove(id));
        }
        assert!(taken.is_empty());
    }
}
