//! What a connection is doing: whether it may be closed for another one.

use std::{
    fmt,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::{Router, body::Body};
use hyper::{
    Request, Response,
    body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint},
    service::Service,
};
use hyper_util::service::TowerToHyperService;
use tokio::sync::Notify;

/// Who asks; an extension of every request that came over a socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// What one connection is doing.
#[derive(Debug)]
pub(super) struct Activity {
    opened: Instant,
    /// Requests that came and whose answers are not yet written: one at most, without pipelining.
    requests: AtomicUsize,
    /// Bytes of an answer wait for the client.
    sending: AtomicBool,
    /// Nanoseconds from `opened` to the end of the last request.
    idle_since_ns: AtomicU64,
    /// The same to the first byte of the request that is on its way; 0 for none.
    header_since_ns: AtomicU64,
    /// It was asked to close.
    closing: AtomicBool,
    close: Notify,
}

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            opened: Instant::now(),
            requests: AtomicUsize::new(0),
            sending: AtomicBool::new(false),
            idle_since_ns: AtomicU64::new(0),
            header_since_ns: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            close: Notify::new(),
        })
    }

    /// Since when it has waited for a request; `None` while it answers one, and when it is closing already.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let busy = self.is_busy() || self.closing.load(Ordering::Acquire);
        (!busy).then(|| self.opened + Duration::from_nanos(self.idle_since_ns.load(Ordering::Acquire)))
    }

    /// Whether it answers a request.
    pub(super) fn is_busy(&self) -> bool {
        self.requests.load(Ordering::Acquire) > 0 || self.sending.load(Ordering::Acquire)
    }

    /// Bytes have come.
    pub(super) fn heard(&self) {
        if !self.is_busy() {
            let now = self.now_ns().max(1);
            let _ = self.header_since_ns.compare_exchange(0, now, Ordering::AcqRel, Ordering::Acquire);
        }
    }

    /// What is left of `most` for the header that is on its way; nothing if there is none.
    pub(super) fn patience(&self, most: Duration) -> Duration {
        match self.header_since_ns.load(Ordering::Acquire) {
            0 => Duration::ZERO,
            since => most.saturating_sub(Duration::from_nanos(self.now_ns().saturating_sub(since))),
        }
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(super) fn set_sending(&self, sending: bool) {
        self.sending.store(sending, Ordering::Release);
    }

    /// Asks it to close.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.close.notify_one();
    }

    /// Completes when it was asked to close.
    pub(super) async fn asked_to_close(&self) {
        self.close.notified().await;
    }
}

/// A request at work.
struct Busy(Arc<Activity>);

impl Busy {
    fn new(activity: &Arc<Activity>) -> Self {
        activity.requests.fetch_add(1, Ordering::AcqRel);
        activity.header_since_ns.store(0, Ordering::Release);
        Self(Arc::clone(activity))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.idle_since_ns.store(self.0.now_ns(), Ordering::Release);
        self.0.requests.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The routes, as one connection sees them.
#[derive(Clone)]
pub(super) struct Watched {
    pub(super) routes: TowerToHyperService<Router>,
    pub(super) activity: Arc<Activity>,
    pub(super) peer: SocketAddr,
}

impl Service<Request<Incoming>> for Watched {
    type Response = Response<WatchedBody>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let busy = Busy::new(&self.activity);
        request.extensions_mut().insert(Peer(self.peer));
        let answer = self.routes.call(request);
        Box::pin(async move { Ok(answer.await?.map(|body| WatchedBody { body, _busy: busy })) })
    }
}

/// The body of an answer; its request is at work until the last of it was taken.
pub(super) struct WatchedBody {
    body: Body,
    _busy: Busy,
}

impl fmt::Debug for WatchedBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchedBody").finish_non_exhaustive()
    }
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
