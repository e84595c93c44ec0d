//! The upstream: a real HTTP/1 server over loopback that suffers the weather and keeps a log.

#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Either, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use portcullis::http::trace_context;
use portcullis_core::{SpanId, clock, sync::Mutex};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::oneshot,
    task::{JoinHandle, JoinSet},
    time::{Sleep, sleep, sleep_until},
};

use crate::{
    attempts::{ATTEMPT, REQUEST_ID},
    weather::{Act, Script, Weather},
};

/// What the upstream noted about one request that reached it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    pub(crate) id: u32,
    /// Which attempt the client said it is, from 1.
    pub(crate) attempt: u32,
    /// The span it was asked in, if it was told.
    pub(crate) span: Option<SpanId>,
    pub(crate) begun: Instant,
    /// When the head was handed to the connection, or the client was gone.
    pub(crate) ended: Instant,
    /// The status it was answered with, if it was answered.
    pub(crate) status: Option<StatusCode>,
}

/// A running upstream.
#[derive(Debug)]
pub(crate) struct Upstream {
    shared: Arc<Shared>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<io::Result<()>>,
}

/// An address for upstreams, one after the other.
///
/// Its port is below those the kernel gives to clients. In an outage the port is free: a client that was
/// given it would block the rebind, and one that called it from itself would be connected.
#[derive(Debug)]
pub(crate) struct Place {
    addr: SocketAddr,
    /// Keeps others away until the first upstream is there.
    held: Mutex<Option<TcpListener>>,
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    script: Arc<Script>,
    start: Instant,
    log: Mutex<Vec<Access>>,
    arrivals: Mutex<VecDeque<Instant>>,
}

/// The duty to log a request, however it ends.
#[derive(Debug)]
struct Noting {
    shared: Arc<Shared>,
    access: Access,
}

type ResponseBody = Either<Full<Bytes>, Cut>;

/// How long the upstream waits for a rebind of its own port.
const REBIND: Duration = Duration::from_secs(2);
/// Over how long the rate of arrivals is taken.
const RATE_OVER: Duration = Duration::from_millis(500);

const LENGTH: usize = 4 * 1024;
static WHOLE: [u8; LENGTH] = [b'.'; LENGTH];

// ===== impl Place =====

impl Place {
    /// One that is free.
    ///
    /// # Errors
    ///
    /// That of the last bind, when none is.
    pub(crate) fn new() -> io::Result<Self> {
        // Runs at the same time start from ports of their own, or one would take the other's.
        let first = (std::process::id() % 2_000) as u16 * 4;
        let mut refused = io::ErrorKind::AddrInUse.into();
        for next in 0..200 {
            let port = 20_000 + (first + next) % 8_000;
            let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            match bind(addr) {
                Ok(listener) => return Ok(Self { addr, held: Mutex::new(Some(listener)) }),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }
}

// ===== impl Upstream =====

impl Upstream {
    /// Serves at `place` until it is stopped. The script's time runs from `start`.
    ///
    /// # Errors
    ///
    /// That of the bind, when somebody else has taken the port since it was served last.
    pub(crate) fn start(place: &Place, script: Arc<Script>, start: Instant) -> io::Result<Self> {
        let addr = place.addr;
        let held = place.held.lock().take();
        let listener = held.map_or_else(|| bind(addr), Ok)?;
        let shared =
            Arc::new(Shared { script, start, log: Mutex::default(), arrivals: Mutex::default() });
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(serve(listener, addr, shared.clone(), stopped));
        Ok(Self { shared, stop, served })
    }

    /// Stops it, cutting what is still connected, and hands out its log.
    ///
    /// # Errors
    ///
    /// When it could not listen again after the outage.
    pub(crate) async fn stop(self) -> io::Result<Vec<Access>> {
        // It has ended by itself only if it failed, which the next line tells.
        let _ = self.stop.send(());
        self.served.await.map_err(io::Error::other)??;
        Ok(std::mem::take(&mut *self.shared.log.lock()))
    }
}

async fn serve(
    listener: TcpListener,
    addr: SocketAddr,
    shared: Arc<Shared>,
    mut stopped: oneshot::Receiver<()>,
) -> io::Result<()> {
    let outage = shared.script.phase(Weather::Outage);
    let at = |time: Duration| (shared.start + time).into();
    let mut connections = JoinSet::new();
    let mut listener = listener;
    // A script that was started long enough ago has the outage behind it.
    if clock::now() < shared.start + outage.until {
        tokio::select! {
            () = accept(&listener, &shared, &mut connections) => {}
            () = sleep_until(at(outage.from)) => {}
            _ = &mut stopped => return Ok(()),
        }
        // Without a listener the kernel refuses, and resets what it had not handed over yet.
        drop(listener);
        connections.shutdown().await;
        tokio::select! {
            () = sleep_until(at(outage.until)) => {}
            _ = &mut stopped => return Ok(()),
        }
        listener = rebind(addr).await?;
    }
    tokio::select! {
        () = accept(&listener, &shared, &mut connections) => {}
        _ = &mut stopped => {}
    }
    connections.shutdown().await;
    Ok(())
}

/// Takes connections for ever.
async fn accept(listener: &TcpListener, shared: &Arc<Shared>, connections: &mut JoinSet<()>) {
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let shared = shared.clone();
                    connections.spawn(async move {
                        // Without it, a head and a body written apart wait for each other's ACK.
                        let _ = stream.set_nodelay(true);
                        let service = service_fn(move |request| answer(shared.clone(), request));
                        // A client that leaves, or a body that is cut, ends it with an error.
                        let _ = http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service)
                            .await;
                    });
                }
                // Out of descriptors, most likely; they come back when a client gives up.
                Err(_) => sleep(Duration::from_millis(10)).await,
            },
        }
    }
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let begun = clock::now();
    let rate = shared.arrived(begun);
    let (head, body) = request.into_parts();
    let id = number(&head.headers, REQUEST_ID).unwrap_or(u32::MAX);
    let attempt = number(&head.headers, ATTEMPT).unwrap_or(0);
    let span = trace_context::from_headers(&head.headers).map(|trace| trace.context.span_id);
    let elapsed = begun.saturating_duration_since(shared.start);
    let fate = shared.script.fate(id, attempt, elapsed, rate);
    let mut noting =
        Noting { shared, access: Access { id, attempt, span, begun, ended: begun, status: None } };

    // A body that breaks off is the client's doing; the log has the request all the same.
    let _ = body.collect().await;
    sleep(fate.delay).await;
    let whole = || Either::Left(Full::from(&WHOLE[..]));
    let empty = || Either::Left(Full::default());
    let (status, body) = match fate.act {
        Act::Answer => (StatusCode::OK, whole()),
        Act::Fail => (StatusCode::SERVICE_UNAVAILABLE, empty()),
        Act::Throttle => (StatusCode::TOO_MANY_REQUESTS, empty()),
        Act::Cut => (StatusCode::OK, Either::Right(Cut::default())),
        Act::Hang => std::future::pending().await,
    };
    noting.access.status = Some(status);
    let mut response = Response::new(body);
    *response.status_mut() = status;
    if fate.act == Act::Throttle {
        let second = header::HeaderValue::from_static("1");
        response.headers_mut().insert(header::RETRY_AFTER, second);
    }
    Ok(response)
}

// ===== impl Shared =====

impl Shared {
    /// Notes an arrival; how many have lately come in a second.
    fn arrived(&self, now: Instant) -> f64 {
        let mut arrivals = self.arrivals.lock();
        arrivals.push_back(now);
        while arrivals
            .front()
            .is_some_and(|&first| now.saturating_duration_since(first) > RATE_OVER)
        {
            arrivals.pop_front();
        }
        arrivals.len() as f64 / RATE_OVER.as_secs_f64()
    }
}

// ===== impl Noting =====

impl Drop for Noting {
    fn drop(&mut self) {
        self.access.ended = clock::now();
        self.shared.log.lock().push(self.access);
    }
}

pin_project! {
    /// A body that promises its whole length and breaks off half-way.
    #[derive(Debug, Default)]
    struct Cut {
        half_sent: bool,
        #[pin]
        pause: Option<Sleep>,
    }
}

// ===== impl Cut =====

impl Body for Cut {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let mut this = self.project();
        if !*this.half_sent {
            *this.half_sent = true;
            let half = Bytes::from_static(&WHOLE[..LENGTH / 2]);
            return Poll::Ready(Some(Ok(Frame::data(half))));
        }
        // An error at once would be ahead of the head and the half: the connection is closed with
        // whatever has not left its buffer by then.
        if this.pause.is_none() {
            this.pause.set(Some(sleep(Duration::from_millis(5))));
        }
        if let Some(pause) = this.pause.as_pin_mut() {
            std::task::ready!(pause.poll(cx));
        }
        Poll::Ready(Some(Err(io::Error::other("cut half-way"))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(LENGTH as u64)
    }
}

async fn rebind(addr: SocketAddr) -> io::Result<TcpListener> {
    let until = clock::now() + REBIND;
    loop {
        match bind(addr) {
            Err(_) if clock::now() < until => sleep(Duration::from_millis(1)).await,
            done => return done,
        }
    }
}

fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    // Connections of before the outage linger in TIME_WAIT and would keep the port.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(1024)
}

fn number(headers: &HeaderMap, name: &str) -> Option<u32> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}
