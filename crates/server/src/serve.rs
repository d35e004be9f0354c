//! The accept loop: bounded connections, header and send timeouts, graceful drain.

mod activity;
mod door;

use std::{
    future::Future,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::Router;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{Sleep, sleep, timeout},
};
use tracing::{debug, warn};

pub(crate) use activity::Peer;

use self::{
    activity::{Activity, Watched},
    door::{Door, Visitor},
};
use crate::{metrics::ConnectionMetrics, state::HttpLimits};

/// How long after it began a request's header may still be going on when its connection is asked to close.
const CLOSE_PATIENCE: Duration = Duration::from_millis(250);

/// Accepts connections on `listener` and answers with `router` until `shutdown` completes; then no connection is
/// accepted any more, idle ones are closed, running requests finish for at most
/// [`HttpLimits::drain_timeout`], and the function returns. Connections are counted in `metrics`.
///
/// # Errors
/// None today: failures of `accept` are logged and retried. The signature leaves room for a listener that is gone.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: &HttpLimits,
    metrics: Arc<ConnectionMetrics>,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let mut door = Door::new(limits.connections_max, metrics);
    let (stop, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        while let Some(ended) = connections.try_join_next() {
            if let Ok(id) = ended {
                door.left(id);
            }
        }
        let visitor = tokio::select! {
            biased;
            () = &mut shutdown => break,
            visitor = door.next(&listener) => visitor,
        };
        if let Some(visitor) = visitor {
            connections.spawn(run_connection(visitor, router.clone(), limits, stopped.clone()));
        }
    }
    drop(listener);
    let _ = stop.send(true);
    let drained =
        timeout(limits.drain_timeout, async { while connections.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        warn!(connections = connections.len(), "requests still running after the drain timeout are dropped");
        connections.shutdown().await;
    }
    Ok(())
}

/// Answers on a connection until it ends; returns its number.
fn run_connection(
    visitor: Visitor,
    router: Router,
    limits: &HttpLimits,
    mut stopped: watch::Receiver<bool>,
) -> impl Future<Output = u64> + use<> {
    let Visitor { id, stream, peer, activity, place, open } = visitor;
    let stream = ImpatientStream {
        inner: stream,
        patience: limits.send_timeout,
        stalled: None,
        activity: Arc::clone(&activity),
    };
    let service = Watched { routes: TowerToHyperService::new(router), activity: Arc::clone(&activity), peer };
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_read_timeout)
        .serve_connection(TokioIo::new(stream), service);
    async move {
        let mut connection = pin!(connection);
        let mut asked = false;
        let ended = tokio::select! {
            result = connection.as_mut() => Some(result),
            () = async { drop(stopped.wait_for(|stopped| *stopped).await) } => None,
            () = activity.asked_to_close() => { asked = true; None },
        };
        let result = match ended {
            Some(result) => result,
            None => {
                connection.as_mut().graceful_shutdown();
                if asked { until_closed(connection, &activity).await } else { connection.await }
            }
        };
        if let Err(error) = result {
            debug!(%error, "connection ended early");
        }
        drop((open, place));
        id
    }
}

/// Finishes what `connection` answers; one that has only begun to ask is given up, if it began a while ago at once.
async fn until_closed<E>(
    mut connection: Pin<&mut impl Future<Output = Result<(), E>>>,
    activity: &Activity,
) -> Result<(), E> {
    loop {
        let patience = if activity.is_busy() { CLOSE_PATIENCE } else { activity.patience(CLOSE_PATIENCE) };
        match timeout(patience, connection.as_mut()).await {
            Ok(result) => return result,
            Err(_) if activity.is_busy() || !activity.patience(CLOSE_PATIENCE).is_zero() => {}
            Err(_) => return Ok(()),
        }
    }
}

/// A connection that fails when the other side takes no bytes for a while: an answer nobody reads must not hold memory
/// and a place for ever.
#[derive(Debug)]
struct ImpatientStream {
    inner: TcpStream,
    patience: Duration,
    /// Runs since the first write that had to wait.
    stalled: Option<Pin<Box<Sleep>>>,
    activity: Arc<Activity>,
}

impl ImpatientStream {
    fn watched(
        &mut self,
        written: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            if self.stalled.take().is_some() {
                self.activity.set_sending(false);
            }
            return written;
        }
        self.activity.set_sending(true);
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(self.patience)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read its answer")))
    }
}

impl AsyncRead for ImpatientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.activity.heard();
        }
        read
    }
}

impl AsyncWrite for ImpatientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.watched(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.watched(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
