//! Giving the thread back before long work.

use std::{
    future::poll_fn,
    sync::atomic::{AtomicBool, Ordering},
    task::Poll,
    time::{Duration, Instant},
};

/// Work on so many values, steps of series and samples, is long; about what is worth more than one thread.
pub(crate) const LONG_VALUES: usize = 1 << 14;
/// A query of so many bytes takes long to parse.
const LONG_TEXT: usize = 1 << 10;
/// So many regular expressions take long to compile.
const MANY_REGEXES: usize = 8;
/// So much time is long.
const LONG_TIME: Duration = Duration::from_millis(1);

/// Whether to parse `text`, and to compile its regular expressions, may take long: it is long itself, has many of them, or
/// one with what makes a large automaton out of few bytes, a counted repetition or a class of Unicode. Escaped characters
/// could hide those.
pub(crate) fn is_slow_to_parse(text: &str) -> bool {
    if text.len() >= LONG_TEXT {
        return true;
    }
    let bytes = text.as_bytes();
    let pairs = || bytes.iter().zip(bytes.iter().skip(1));
    let regexes = pairs().filter(|pair| matches!(pair, (b'=' | b'!', b'~'))).count();
    let grows = |pair: (&u8, &u8)| {
        matches!(pair, (b'{', b'0'..=b'9') | (b'\\', b'x' | b'u' | b'U' | b'0'..=b'9' | b'p' | b'P'))
    };
    // `label_replace` and its like compile theirs in the evaluation.
    regexes >= MANY_REGEXES || (regexes > 0 && pairs().any(grows))
}

/// A query's one pause: before its first long work its future is not ready once, so that whoever polls it can go on with
/// it on another thread. Most queries that dashboards and alerts ask never pause: what waking a thread takes is more than
/// what they take themselves.
#[derive(Debug)]
pub(crate) struct Pause {
    since: Instant,
    taken: AtomicBool,
}

impl Pause {
    /// Time runs from now.
    pub(crate) fn new() -> Self {
        Self { since: Instant::now(), taken: AtomicBool::new(false) }
    }

    /// Pauses if there was none yet, and work on `values` values is long, or time has gone by.
    pub(crate) async fn before(&self, values: usize) {
        if self.taken.load(Ordering::Relaxed) || (values < LONG_VALUES && self.since.elapsed() < LONG_TIME) {
            return;
        }
        poll_fn(|context| {
            if self.taken.swap(true, Ordering::Relaxed) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Waker},
    };

    use super::*;

    #[test]
    fn what_compiles_slowly_is_known_by_its_text() {
        for text in ["up", "up{a=~\"b.*|c\"}", "rate(x{a=\"{5}\"}[5m])", "sum by (a) (x{b!~\"a\\\\.b\"})"] {
            assert!(!is_slow_to_parse(text), "{text}");
        }
        for text in [
            "up{a=~\"(a{1,90}){90}\"}".to_owned(),
            "up{a!~\"\\\\pL+\"}".to_owned(),
            "up{a=~\"a\\x7b90}\"}".to_owned(),
            "a{b=~\"c\"}+".repeat(MANY_REGEXES),
            "+".repeat(LONG_TEXT),
        ] {
            assert!(is_slow_to_parse(&text), "{text}");
        }
    }

    #[test]
    fn there_is_one_pause_before_long_work() {
        let mut context = Context::from_waker(Waker::noop());
        let pause = Pause { since: Instant::now() + Duration::from_secs(60), taken: AtomicBool::new(false) };
        let mut ready = |values| pin!(pause.before(values)).poll(&mut context).is_ready();
        assert!(ready(LONG_VALUES - 1), "short work goes on");
        assert!(!ready(LONG_VALUES));
        assert!(ready(usize::MAX), "once is enough");
        let pause = Pause { since: Instant::now() - LONG_TIME, taken: AtomicBool::new(false) };
        let mut paused = pin!(pause.before(0));
        assert!(paused.as_mut().poll(&mut context).is_pending(), "time has gone by");
        assert!(paused.as_mut().poll(&mut context).is_ready());
    }
}
