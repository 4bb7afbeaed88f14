//! A number for each cluster of sessions, most often nothing for any.
//!
//! A judge keeps some thirty of these, half a kilobyte each, and a thousand splits had thirty
//! megabytes of zeros. So they take memory with the first number that is not nothing. It shows
//! nowhere: they are equal, read and written as the numbers that they stand for.

use std::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::window::Pair;
use crate::policy::key::Cluster;

/// A number for each cluster, by [`Cluster::index`].
#[derive(Clone, Debug)]
pub(super) struct ByCluster<T>(Option<Box<[T; Cluster::COUNT]>>);

/// What can be kept for each cluster.
pub(super) trait Number: Copy + PartialEq + 'static {
    /// Nothing, for each cluster.
    const NOTHING: &'static [Self; Cluster::COUNT];
}

impl Number for u64 {
    const NOTHING: &'static [Self; Cluster::COUNT] = &[0; Cluster::COUNT];
}

impl Number for f64 {
    const NOTHING: &'static [Self; Cluster::COUNT] = &[0.0; Cluster::COUNT];
}

impl Number for Pair {
    const NOTHING: &'static [Self; Cluster::COUNT] = &[Pair { n: 0, e: 0 }; Cluster::COUNT];
}

impl<T: Number> ByCluster<T> {
    /// Whether no number takes memory, so that each is nothing.
    pub(super) const fn is_untouched(&self) -> bool {
        self.0.is_none()
    }

    /// The numbers, to be changed: takes memory.
    pub(super) fn slots(&mut self) -> &mut [T; Cluster::COUNT] {
        self.0.get_or_insert_with(|| Box::new(*T::NOTHING))
    }

    /// Nothing for each cluster. The memory stays, as what was cleared is counted in again soon.
    pub(super) fn clear(&mut self) {
        if let Some(numbers) = &mut self.0 {
            **numbers = *T::NOTHING;
        }
    }
}

impl<T> Default for ByCluster<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Number> Deref for ByCluster<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.0 {
            Some(numbers) => &numbers[..],
            None => &T::NOTHING[..],
        }
    }
}

impl<T: Number> PartialEq for ByCluster<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Number> FromIterator<T> for ByCluster<T> {
    fn from_iter<I: IntoIterator<Item = T>>(numbers: I) -> Self {
        let mut all = *T::NOTHING;
        for (slot, number) in all.iter_mut().zip(numbers) {
            *slot = number;
        }
        Self((all != *T::NOTHING).then(|| Box::new(all)))
    }
}

impl<T: Number + Serialize> Serialize for ByCluster<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(serializer)
    }
}

impl<'de, T: Number + Deserialize<'de>> Deserialize<'de> for ByCluster<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::deserialize(deserializer)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_memory_from_the_first_one_on_and_read_the_same_before() {
        let mut counts = ByCluster::<u64>::default();
        assert_eq!(counts[..], [0; Cluster::COUNT]);
        let untouched = counts.clone();
        counts.slots()[5] = 3;
        assert_eq!((counts[5], counts.iter().sum::<u64>()), (3, 3));
        assert_ne!(counts, untouched);
        counts.clear();
        assert_eq!(counts, untouched);
        assert!(untouched.is_untouched() && !counts.is_untouched());
    }

    #[test]
    fn they_are_written_as_numbers_and_nothing_is_read_into_no_memory() {
        let nothing = serde_json::to_string(&ByCluster::<f64>::default()).expect("numbers");
        assert_eq!(nothing, format!("[{}]", ["0.0"; Cluster::COUNT].join(",")));
        let read: ByCluster<f64> = serde_json::from_str(&nothing).expect("numbers");
        assert!(read.is_untouched());
        let mut counts = ByCluster::<u64>::default();
        counts.slots()[63] = 7;
        let written = serde_json::to_string(&counts).expect("numbers");
        assert_eq!(serde_json::from_str(&written).ok(), Some(counts));
    }
}
