//! The registry's size limit: who holds how much of it.

use std::sync::{Arc, Mutex, PoisonError};

use crate::RegistryError;

/// The bytes of all blobs and of all uploads under way, bounded.
#[derive(Debug)]
pub(crate) struct Space {
    bytes_max: Option<u64>,
    used: Mutex<u64>,
}

impl Space {
    pub(crate) fn new(bytes_max: Option<u64>, used: u64) -> Arc<Self> {
        Arc::new(Self { bytes_max, used: Mutex::new(used) })
    }

    /// A reservation of nothing yet.
    pub(crate) fn reserve(self: &Arc<Self>) -> Reservation {
        Reservation { space: Arc::clone(self), bytes: 0 }
    }

    /// Gives back what a kept reservation took.
    pub(crate) fn release(&self, bytes: u64) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        *used = used.saturating_sub(bytes);
    }
}

/// Space that is given back when this is dropped, unless it is kept.
#[derive(Debug)]
pub(crate) struct Reservation {
    space: Arc<Space>,
    bytes: u64,
}

impl Reservation {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn grow(&mut self, bytes: u64) -> Result<(), RegistryError> {
        let mut used = self.space.used.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = used.saturating_add(bytes);
        match self.space.bytes_max {
            Some(bytes_max) if wanted > bytes_max => Err(RegistryError::Full { bytes_max }),
            _ => {
                *used = wanted;
                self.bytes += bytes;
                Ok(())
            }
        }
    }

    /// Another reservation of the same space, of nothing yet.
    pub(crate) fn split(&self) -> Self {
        self.space.reserve()
    }

    /// Takes over what `other` holds.
    pub(crate) fn absorb(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// The bytes stay taken until [`Space::release`].
    pub(crate) fn keep(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.space.release(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_or_dropped_bytes_leave_no_trace() {
        let space = Space::new(Some(10), 3);
        let mut first = space.reserve();
        first.grow(7).unwrap();
        let mut second = space.reserve();
        assert!(matches!(second.grow(1), Err(RegistryError::Full { bytes_max: 10 })));
        drop(first);
        second.grow(7).unwrap();
        second.keep();
        assert!(space.reserve().grow(1).is_err());
        space.release(7);
        assert!(space.reserve().grow(7).is_ok());
    }
}
