//! What happened lately, numbered, for any number of pages at once.
//!
//! A page that was away says which number it saw last and is sent what it missed, as long as that
//! is kept. A page that missed more, or that reads too slowly, is told to read everything anew
//! (`resync`). Both bounds hold whatever the pages do: nothing waits for a page.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;
use tokio::sync::broadcast;

/// How many entries are kept, and how long they may be together, in bytes.
const ENTRIES_KEPT_MAX: usize = 2_048;
const BYTES_KEPT_MAX: usize = 2 * 1024 * 1024;
/// A page that falls behind by more entries than this has to read everything anew.
const BEHIND_MAX: usize = 512;

/// Something that happened.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) number: u64,
    /// What the page listens for.
    pub(crate) kind: &'static str,
    /// JSON.
    pub(crate) data: String,
}

/// Keeps entries and hands them on.
pub(crate) struct Hub {
    /// Tells this process from another: numbers begin anew with it.
    name: String,
    kept: Mutex<Kept>,
    sender: broadcast::Sender<Arc<Entry>>,
}

#[derive(Default)]
struct Kept {
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
    last: u64,
}

/// What a page is sent.
pub(crate) struct Subscription {
    /// What it missed; none where that is not known any more.
    pub(crate) missed: Option<Vec<Arc<Entry>>>,
    /// The number of the last entry so far.
    pub(crate) last: u64,
    /// What happens from then on.
    pub(crate) entries: broadcast::Receiver<Arc<Entry>>,
}

impl Hub {
    pub(crate) fn new(name: &str) -> Self {
        let sender = broadcast::Sender::new(BEHIND_MAX);
        Self { name: name.to_owned(), kept: Mutex::default(), sender }
    }

    /// Tells of something.
    pub(crate) fn publish(&self, kind: &'static str, data: &impl Serialize) {
        let data = match serde_json::to_string(data) {
            Ok(data) => data,
            Err(error) => return tracing::error!(kind, %error, "a notice is no JSON"),
        };
        let mut kept = self.kept();
        kept.last += 1;
        kept.bytes += data.len();
        let entry = Arc::new(Entry { number: kept.last, kind, data });
        kept.entries.push_back(entry.clone());
        while kept.entries.len() > ENTRIES_KEPT_MAX || kept.bytes > BYTES_KEPT_MAX {
            let Some(oldest) = kept.entries.pop_front() else { break };
            kept.bytes -= oldest.data.len();
        }
        // Under the lock, so that everybody hears of entries in their order. Without a page it is
        // nobody's business.
        self.sender.send(entry).ok();
    }

    /// Hears of everything after the entry of this id.
    pub(crate) fn subscribe(&self, after: Option<&str>) -> Subscription {
        let kept = self.kept();
        let (last, entries) = (kept.last, self.sender.subscribe());
        let missed = match after {
            None => Some(Vec::new()),
            Some(id) => self.number(id).and_then(|after| kept.after(after)),
        };
        Subscription { missed, last, entries }
    }

    /// The entries that are kept and `wanted`, oldest first: at most `count` of the newest.
    pub(crate) fn recent(&self, count: usize, wanted: impl Fn(&Entry) -> bool) -> Vec<Arc<Entry>> {
        let kept = self.kept();
        let newest = kept.entries.iter().rev().filter(|entry| wanted(entry)).take(count);
        let mut recent: Vec<_> = newest.cloned().collect();
        recent.reverse();
        recent
    }

    /// An entry's id, as browsers send it back.
    pub(crate) fn id(&self, number: u64) -> String {
        format!("{}-{number}", self.name)
    }

    /// The number of the last entry so far.
    pub(crate) fn last(&self) -> u64 {
        self.kept().last
    }

    fn number(&self, id: &str) -> Option<u64> {
        let (name, number) = id.rsplit_once('-')?;
        (name == self.name).then(|| number.parse().ok())?
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// The entries after a number, where all of them are still there.
    fn after(&self, number: u64) -> Option<Vec<Arc<Entry>>> {
        let missing = self.last.checked_sub(number)?;
        let missing = usize::try_from(missing).ok()?;
        let skip = self.entries.len().checked_sub(missing)?;
        Some(self.entries.iter().skip(skip).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(missed: Option<Vec<Arc<Entry>>>) -> Option<Vec<u64>> {
        Some(missed?.iter().map(|entry| entry.number).collect())
    }

    #[test]
    fn who_was_away_is_sent_what_it_missed() {
        let hub = Hub::new("a");
        for number in 1..=5 {
            hub.publish("n", &number);
        }
        assert_eq!(numbers(hub.subscribe(Some("a-3")).missed), Some(vec![4, 5]));
        assert_eq!(numbers(hub.subscribe(Some("a-5")).missed), Some(vec![]));
        assert_eq!(numbers(hub.subscribe(None).missed), Some(vec![]));
        assert_eq!(hub.id(5), "a-5");
    }

    #[test]
    fn who_was_away_too_long_or_knows_another_process_reads_anew() {
        let hub = Hub::new("a");
        for number in 0..=ENTRIES_KEPT_MAX {
            hub.publish("n", &number);
        }
        assert!(hub.subscribe(Some("a-1")).missed.is_some());
        for id in ["a-0", "b-1", "a-99999999", "a-", "a", "", "a--1"] {
            assert_eq!(hub.subscribe(Some(id)).missed, None, "{id}");
        }
    }

    #[test]
    fn what_is_kept_is_bounded_in_bytes_too() {
        let hub = Hub::new("a");
        let long = "x".repeat(BYTES_KEPT_MAX / 4);
        for _ in 0..10 {
            hub.publish("n", &long);
        }
        let kept = hub.kept();
        assert!(kept.bytes <= BYTES_KEPT_MAX, "{}", kept.bytes);
        assert_eq!(kept.entries.iter().map(|entry| entry.data.len()).sum::<usize>(), kept.bytes);
        assert_eq!(kept.entries.back().map(|entry| entry.number), Some(10));
    }

    #[test]
    fn who_reads_slowly_loses_entries_and_nobody_waits() {
        let hub = Hub::new("a");
        let mut slow = hub.subscribe(None);
        for number in 0..2 * BEHIND_MAX {
            hub.publish("n", &number);
        }
        assert!(matches!(slow.entries.try_recv(), Err(broadcast::error::TryRecvError::Lagged(_))));
    }
}
