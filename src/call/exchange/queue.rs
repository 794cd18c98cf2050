//! A queue that knows how many bytes it holds, and counts them into a total.
//!
//! Invariant: the total is the sum over all queues that share it; a dropped queue is subtracted.
//!
//! Deliberately absent: a limit. The caller checks before pushing, and knows what to do if there is no room.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

/// Bytes held by all queues that share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Total(Arc<AtomicUsize>);

impl Total {
    pub(super) fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
pub(super) struct Queue<T> {
    items: VecDeque<(T, usize)>,
    bytes: usize,
    total: Total,
}

impl<T> Queue<T> {
    pub(super) fn new(total: &Total) -> Self {
        Self { items: VecDeque::new(), bytes: 0, total: total.clone() }
    }

    pub(super) fn push(&mut self, item: T, bytes: usize) {
        self.bytes += bytes;
        self.total.0.fetch_add(bytes, Ordering::Relaxed);
        self.items.push_back((item, bytes));
    }

    /// Bytes of the item that [`Queue::pop`] takes next.
    pub(super) fn next_size(&self) -> Option<usize> {
        self.items.front().map(|(_, bytes)| *bytes)
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        self.remove(0)
    }

    pub(super) fn remove(&mut self, at: usize) -> Option<T> {
        let (item, bytes) = self.items.remove(at)?;
        self.bytes -= bytes;
        self.total.0.fetch_sub(bytes, Ordering::Relaxed);
        Some(item)
    }

    /// Takes items from the front, up to this many bytes, and at least one.
    pub(super) fn take(&mut self, bytes: usize) -> Vec<T> {
        let mut left = bytes;
        let mut taken = Vec::new();
        while let Some((_, size)) = self.items.front() {
            if *size > left && !taken.is_empty() {
                break;
            }
            left = left.saturating_sub(*size);
            taken.extend(self.pop());
        }
        taken
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.items.iter().map(|(item, _)| item)
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl<T> Drop for Queue<T> {
    fn drop(&mut self) {
        self.total.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_counted_in_and_out() {
        let total = Total::default();
        let (mut one, mut other) = (Queue::new(&total), Queue::new(&total));
        for (at, size) in [(1, 10), (2, 20), (3, 30)] {
            one.push(at, size);
        }
        other.push(4, 5);
        assert_eq!((one.bytes(), total.bytes()), (60, 65));
        assert_eq!(one.remove(1), Some(2));
        assert_eq!((one.take(5), one.take(100), one.take(100)), (vec![1], vec![3], vec![]));
        assert_eq!((one.bytes(), total.bytes()), (0, 5));
        drop(other);
        assert_eq!(total.bytes(), 0);
    }
}
