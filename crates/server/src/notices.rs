//! Messages that come no more often than once a minute for each kind of thing that happens.

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use axum::http::request::Parts;
use parking_lot::Mutex;

use crate::serve::Peer;

/// A message of a kind comes no more often.
const INTERVAL: Duration = Duration::from_secs(60);
/// Kinds that are told apart; what comes beyond them is not told.
const KINDS_MAX: usize = 128;
/// How much of a text from outside a message has.
const SHOWN_CHARS_MAX: usize = 1024;

/// When which kind was last told, and what was not told since.
#[derive(Debug, Default)]
pub(crate) struct Notices(Mutex<HashMap<String, Notice>>);

#[derive(Debug)]
struct Notice {
    told: Instant,
    untold: u64,
}

impl Notices {
    /// Whether something of `kind` is to be told now; if so, how often it has happened since it last was.
    pub(crate) fn due(&self, kind: &str) -> Option<u64> {
        self.due_at(kind, Instant::now())
    }

    fn due_at(&self, kind: &str, now: Instant) -> Option<u64> {
        let mut notices = self.0.lock();
        if let Some(notice) = notices.get_mut(kind) {
            if now.saturating_duration_since(notice.told) < INTERVAL {
                notice.untold += 1;
                return None;
            }
            let times = notice.untold + 1;
            *notice = Notice { told: now, untold: 0 };
            return Some(times);
        }
        if notices.len() >= KINDS_MAX {
            return None;
        }
        notices.insert(kind.to_owned(), Notice { told: now, untold: 0 });
        Some(1)
    }
}

/// Who sent a request; empty where nobody knows.
pub(crate) fn peer_of(parts: &Parts) -> String {
    let peer: Option<SocketAddr> = parts.extensions.get::<Peer>().map(|peer| peer.0);
    peer.map(|peer| peer.to_string()).unwrap_or_default()
}

/// The beginning of a text that may be long.
pub(crate) fn cut(text: &str) -> String {
    let mut chars = text.chars();
    let mut cut: String = chars.by_ref().take(SHOWN_CHARS_MAX).collect();
    if chars.next().is_some() {
        cut.push_str("...");
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_a_minute_and_kind() {
        let notices = Notices::default();
        let start = Instant::now();
        let due = |kind: &str, seconds| notices.due_at(kind, start + Duration::from_secs(seconds));
        assert_eq!(due("a", 0), Some(1));
        assert_eq!(due("b", 1), Some(1));
        assert_eq!((due("a", 2), due("a", 59)), (None, None));
        assert_eq!(due("a", 60), Some(3));
        assert_eq!(due("a", 61), None);
        let told = (0..1000).filter(|kind| due(&kind.to_string(), 0).is_some()).count();
        assert_eq!(told, KINDS_MAX - 2);
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(cut("short"), "short");
        assert_eq!(cut(&"\u{e4}".repeat(2000)).chars().count(), SHOWN_CHARS_MAX + 3);
    }
}
