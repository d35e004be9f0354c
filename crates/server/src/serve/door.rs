//! Who may come in: places for connections, and what becomes of one that finds none.

use std::{collections::HashMap, io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout},
};
use tracing::warn;

use super::{CLOSE_PATIENCE, activity::Activity};
use crate::{error::RETRY_AFTER_SECONDS, metrics::ConnectionMetrics};

/// Pause after `accept` failed for want of a resource, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long no place has become free when a connection that finds none is refused.
const PLACE_PATIENCE: Duration = Duration::from_secs(1);
/// How often, while no place is free, one is sought.
const PLACE_SEARCH: Duration = Duration::from_millis(50);
/// A connection that has waited for its next request for less is not closed for another one.
const IDLE_MIN: Duration = Duration::from_millis(100);
/// Refused connections that are still open, at most: so long as the client has not read why.
const REFUSED_MAX: usize = 64;
/// How long a refused connection stays open for that.
const REFUSED_PATIENCE: Duration = Duration::from_secs(1);
/// How much of its request a refused client may send meanwhile.
const REFUSED_BYTES_MAX: usize = 64 << 10;
/// A message about the limit comes no more often.
const WARN_INTERVAL: Duration = Duration::from_secs(60);
/// A message about connections that cannot be accepted comes no more often.
const FAILURE_INTERVAL: Duration = Duration::from_secs(10);

/// A connection that has come in.
pub(super) struct Visitor {
    pub(super) id: u64,
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) activity: Arc<Activity>,
    pub(super) place: OwnedSemaphorePermit,
    pub(super) open: Open,
}

/// Counts a connection as open, as long as it lives.
pub(super) struct Open(Arc<ConnectionMetrics>);

impl Open {
    fn new(metrics: &Arc<ConnectionMetrics>) -> Self {
        metrics.accepted.increment();
        metrics.open.add(1);
        Self(Arc::clone(metrics))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.add(-1);
    }
}

/// What is told no more often than at an interval, with the number of times.
struct Seldom {
    interval: Duration,
    told: Option<Instant>,
    untold: u64,
}

impl Seldom {
    const fn new(interval: Duration) -> Self {
        Self { interval, told: None, untold: 0 }
    }

    /// How often it has happened since it was told last, if it is to be told now.
    fn due(&mut self) -> Option<u64> {
        self.untold += 1;
        let due = self.told.is_none_or(|told| told.elapsed() >= self.interval);
        due.then(|| {
            self.told = Some(Instant::now());
            std::mem::take(&mut self.untold)
        })
    }
}

/// The places, and who has them.
pub(super) struct Door {
    places: Arc<Semaphore>,
    /// At most as many as there are places, and those that have gone since the last [`Door::left`].
    inside: HashMap<u64, Arc<Activity>>,
    next_id: u64,
    /// Since when no place has been found.
    full_since: Option<Instant>,
    /// When the last one was refused.
    refused_last: Option<Instant>,
    refused: Arc<Semaphore>,
    metrics: Arc<ConnectionMetrics>,
    limit_reached: Seldom,
    failures: Seldom,
}

impl Door {
    pub(super) fn new(places: usize, metrics: Arc<ConnectionMetrics>) -> Self {
        Self {
            places: Arc::new(Semaphore::new(places.clamp(1, Semaphore::MAX_PERMITS))),
            inside: HashMap::new(),
            next_id: 0,
            full_since: None,
            refused_last: None,
            refused: Arc::new(Semaphore::new(REFUSED_MAX)),
            metrics,
            limit_reached: Seldom::new(WARN_INTERVAL),
            failures: Seldom::new(FAILURE_INTERVAL),
        }
    }

    /// The connection `id` has gone.
    pub(super) fn left(&mut self, id: u64) {
        self.inside.remove(&id);
    }

    /// The next connection; `None` when it failed or was refused.
    ///
    /// When all places are taken, the connection that has waited for a request for longest is closed. When all answer
    /// requests and none has ended for [`PLACE_PATIENCE`], the new one is answered 503 and closed. More wait in the
    /// listener's backlog meanwhile.
    pub(super) async fn next(&mut self, listener: &TcpListener) -> Option<Visitor> {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                self.metrics.failed.increment();
                if let Some(times) = self.failures.due() {
                    warn!(%error, times, "cannot accept connections");
                }
                sleep(ACCEPT_PAUSE).await;
                return None;
            }
        };
        let Some(place) = self.place().await else {
            self.refuse(stream);
            return None;
        };
        // Answers are small and complete: waiting to fill a packet only adds latency.
        let _ = stream.set_nodelay(true);
        let (id, activity) = (self.next_id, Activity::new());
        self.next_id += 1;
        self.inside.insert(id, Arc::clone(&activity));
        Some(Visitor { id, stream, peer, activity, place, open: Open::new(&self.metrics) })
    }

    async fn place(&mut self) -> Option<OwnedSemaphorePermit> {
        // Those behind a refusal are not to wait as long again, those that come later are.
        if self.refused_last.is_some_and(|last| last.elapsed() >= PLACE_PATIENCE) {
            (self.full_since, self.refused_last) = (None, None);
        }
        loop {
            if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
                self.full_since = None;
                return Some(place);
            }
            let closed = self.close_one();
            let since = *self.full_since.get_or_insert_with(Instant::now);
            if !closed && since.elapsed() >= PLACE_PATIENCE {
                return None;
            }
            // One that was asked to close may be in the middle of a header; another is asked only if it takes its time.
            let pause = if closed { 2 * CLOSE_PATIENCE } else { PLACE_SEARCH };
            if let Ok(Ok(place)) = timeout(pause, Arc::clone(&self.places).acquire_owned()).await {
                self.full_since = None;
                return Some(place);
            }
        }
    }

    /// Closes the connection that has been idle for longest, if there is one.
    fn close_one(&mut self) -> bool {
        // One whose task has panicked does not say that it has left.
        self.inside.retain(|_, activity| Arc::strong_count(activity) > 1);
        let idle = self.inside.values().filter_map(|activity| Some((activity.idle_since()?, activity)));
        let longest = idle.min_by_key(|(since, _)| *since).filter(|(since, _)| since.elapsed() >= IDLE_MIN);
        let Some((_, activity)) = longest else { return false };
        activity.close();
        self.metrics.closed_idle.increment();
        self.tell("closing the connection that is idle for longest");
        true
    }

    fn refuse(&mut self, stream: TcpStream) {
        self.refused_last = Some(Instant::now());
        self.metrics.refused.increment();
        self.tell("all of them answer requests: refusing the connection");
        // Above that many it is closed without a word.
        let Ok(open) = Arc::clone(&self.refused).try_acquire_owned() else { return };
        tokio::spawn(async move {
            let _ = timeout(REFUSED_PATIENCE, refusal(stream)).await;
            drop(open);
        });
    }

    fn tell(&mut self, what: &str) {
        if let Some(times) = self.limit_reached.due() {
            warn!(connections = self.inside.len(), times, "http.connection_limit is reached; {what}");
        }
    }
}

/// Says why, and waits until the client has taken it: a socket closed over unread bytes takes its answer along.
async fn refusal(mut stream: TcpStream) -> io::Result<()> {
    let why = "too many connections are open, retry later\n";
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\nretry-after: \
         {RETRY_AFTER_SECONDS}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{why}",
        why.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    let mut scrap = [0; 4096];
    let mut taken = 0;
    while taken < REFUSED_BYTES_MAX {
        match stream.read(&mut scrap).await? {
            0 => break,
            bytes => taken += bytes,
        }
    }
    Ok(())
}
