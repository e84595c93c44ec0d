//! A server of bare HTTP/2 that does as it is told, whether gRPC allows it or not.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream, SendStream,
    server::{self, SendResponse},
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, request::Parts};
use portcullis::sync::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc},
    task::JoinSet,
};

use super::wire::{answer, framed};

/// What the server does with one request.
#[derive(Clone, Debug)]
pub(crate) enum Play {
    /// It answers.
    Reply(Reply),
    /// It answers once it has read the whole request.
    ReadThen(Reply),
    /// It resets the stream before any head.
    Reset(Reason),
    /// It ends the whole connection with this reason before any head.
    GoAway(Reason),
    /// It answers, lets the connection take no further requests, and ends this one when it is told.
    LeaveThen(Reply, Arc<Notify>),
    /// It closes the connection without a word.
    Close,
    /// It never answers.
    Hang,
}

/// A response, as far as it goes.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    status: u16,
    head: HeaderMap,
    frames: Vec<Bytes>,
    end: End,
}

#[derive(Clone, Debug)]
enum End {
    /// The head is all there is.
    InHead,
    /// The last frame of data ends it.
    WithData,
    Trailers(HeaderMap),
    Reset(Reason),
    Close,
    Hang,
}

/// A server on a port of its own. Stops, and closes its connections, when dropped.
#[derive(Debug)]
pub(crate) struct Raw {
    addr: SocketAddr,
    seen: Arc<Seen>,
    _accepting: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Seen {
    heads: Mutex<Vec<Parts>>,
    bodies: Mutex<Vec<usize>>,
    streams: AtomicUsize,
    connections: AtomicUsize,
}

type Script = Arc<dyn Fn(usize) -> Play + Send + Sync>;

// ===== impl Reply =====

impl Reply {
    fn new(end: End) -> Self {
        let mut head = HeaderMap::new();
        head.insert("content-type", HeaderValue::from_static("application/grpc"));
        Self { status: 200, head, frames: Vec::new(), end }
    }

    /// A head that is all there is, with these headers.
    pub(crate) fn only(headers: &[(&str, &str)]) -> Self {
        Self { end: End::InHead, ..Self::new(End::InHead) }.with(headers)
    }

    /// A head, and a body that ends with these trailers.
    pub(crate) fn trailers(trailers: &[(&str, &str)]) -> Self {
        Self::new(End::Trailers(map(trailers)))
    }

    /// A head, and a body that ends without trailers.
    pub(crate) fn unended() -> Self {
        Self::new(End::WithData)
    }

    /// A head, and a body that is reset.
    pub(crate) fn reset(reason: Reason) -> Self {
        Self::new(End::Reset(reason))
    }

    /// A head, and a body in the middle of which the connection is closed.
    pub(crate) fn cut() -> Self {
        Self::new(End::Close)
    }

    /// A head, and a body that never ends.
    pub(crate) fn hanging() -> Self {
        Self::new(End::Hang)
    }

    pub(crate) fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Headers of the head.
    pub(crate) fn with(mut self, headers: &[(&str, &str)]) -> Self {
        self.head.extend(map(headers));
        self
    }

    /// Without the `content-type` that says gRPC.
    pub(crate) fn not_grpc(mut self) -> Self {
        self.head.insert("content-type", HeaderValue::from_static("text/html"));
        self
    }

    /// One more message of the body.
    pub(crate) fn message(mut self, text: &str) -> Self {
        self.frames.push(framed(&answer(text)));
        self
    }

    /// One more frame of the body, whatever it is.
    pub(crate) fn frame(mut self, frame: &'static [u8]) -> Self {
        self.frames.push(Bytes::from_static(frame));
        self
    }
}

/// Headers with all their duplicates.
fn map(headers: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    map
}

// ===== impl Raw =====

impl Raw {
    /// Does with the request of each number, from 0, what `script` says.
    pub(crate) async fn new(script: impl Fn(usize) -> Play + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, seen.clone(), Arc::new(script)));
        Self { addr, seen, _accepting: accepting }
    }

    /// Does these in turn, and the last of them again and again.
    pub(crate) async fn playing(plays: Vec<Play>) -> Self {
        Self::new(move |nth| plays[nth.min(plays.len() - 1)].clone()).await
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many requests came in.
    pub(crate) fn requests(&self) -> usize {
        self.seen.heads.lock().len()
    }

    /// The head of the request of this number.
    pub(crate) fn head(&self, nth: usize) -> Parts {
        self.seen.heads.lock()[nth].clone()
    }

    /// The lengths of the requests' bodies that came to their end.
    pub(crate) fn bodies(&self) -> Vec<usize> {
        self.seen.bodies.lock().clone()
    }

    /// How many connections came in.
    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// How many requests are being answered.
    pub(crate) fn streams(&self) -> usize {
        self.seen.streams.load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, seen: Arc<Seen>, script: Script) {
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        seen.connections.fetch_add(1, Ordering::SeqCst);
        connections.spawn(serve(socket, seen.clone(), script.clone()));
    }
}

/// What ends a connection.
enum Exit {
    Close,
    GoAway(Reason),
    /// What has begun goes on.
    Gracefully,
}

async fn serve(socket: TcpStream, seen: Arc<Seen>, script: Script) {
    let Ok(mut connection) = server::handshake(socket).await else { return };
    let (exit, mut exits) = mpsc::unbounded_channel();
    let mut replies = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            Some(exit) = exits.recv() => match exit {
                Exit::Close => return,
                Exit::GoAway(reason) => {
                    connection.abrupt_shutdown(reason);
                    continue;
                }
                Exit::Gracefully => {
                    connection.graceful_shutdown();
                    continue;
                }
            },
        };
        let Some(Ok((request, mut respond))) = accepted else { return };
        let (head, body) = request.into_parts();
        let nth = {
            let mut heads = seen.heads.lock();
            heads.push(head);
            heads.len() - 1
        };
        let (seen, exit, play) = (seen.clone(), exit.clone(), script(nth));
        replies.spawn(async move {
            seen.streams.fetch_add(1, Ordering::SeqCst);
            let _over = Over(seen.clone());
            let drained = drain(body, &seen);
            match play {
                Play::Reply(reply) => {
                    let Some(stream) = begin(&mut respond, &reply) else { return };
                    tokio::join!(drained, send(stream, reply, exit));
                }
                Play::ReadThen(reply) => {
                    drained.await;
                    let Some(stream) = begin(&mut respond, &reply) else { return };
                    send(stream, reply, exit).await;
                }
                Play::Reset(reason) => respond.send_reset(reason),
                Play::GoAway(reason) => {
                    let _ = exit.send(Exit::GoAway(reason));
                    drained.await;
                }
                Play::LeaveThen(reply, end) => {
                    drained.await;
                    let Some(stream) = begin(&mut respond, &reply) else { return };
                    let _ = exit.send(Exit::Gracefully);
                    end.notified().await;
                    send(stream, reply, exit).await;
                }
                Play::Close => {
                    let _ = exit.send(Exit::Close);
                }
                Play::Hang => {
                    drained.await;
                    // Until the client resets it.
                    let _ = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
                }
            }
        });
    }
}

fn begin(respond: &mut SendResponse<Bytes>, reply: &Reply) -> Option<SendStream<Bytes>> {
    let mut response = Response::new(());
    *response.status_mut() = reply.status.try_into().unwrap();
    *response.headers_mut() = reply.head.clone();
    let ended = matches!(reply.end, End::InHead);
    respond.send_response(response, ended).ok()
}

async fn send(mut stream: SendStream<Bytes>, reply: Reply, exit: mpsc::UnboundedSender<Exit>) {
    let (count, with_data) = (reply.frames.len(), matches!(reply.end, End::WithData));
    for (nth, frame) in reply.frames.into_iter().enumerate() {
        if stream.send_data(frame, with_data && nth + 1 == count).is_err() {
            return;
        }
    }
    match reply.end {
        End::InHead => {}
        End::WithData if count > 0 => {}
        End::WithData => drop(stream.send_data(Bytes::new(), true)),
        End::Trailers(trailers) => drop(stream.send_trailers(trailers)),
        End::Reset(reason) => {
            written(&mut stream).await;
            stream.send_reset(reason);
        }
        End::Close => {
            written(&mut stream).await;
            let _ = exit.send(Exit::Close);
        }
        End::Hang => {
            let _ = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
        }
    }
}

/// Gives the connection the turns in which it writes what was sent so far.
async fn written(stream: &mut SendStream<Bytes>) {
    for _ in 0..32 {
        let _ = stream.capacity();
        tokio::task::yield_now().await;
    }
}

/// Reads a request's body, and notes how long it was if it comes to its end.
async fn drain(mut body: RecvStream, seen: &Seen) {
    let mut length = 0;
    while let Some(frame) = body.data().await {
        let Ok(frame) = frame else { return };
        length += frame.len();
        let _ = body.flow_control().release_capacity(frame.len());
    }
    seen.bodies.lock().push(length);
}

/// Takes a request off those that are being answered.
struct Over(Arc<Seen>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::SeqCst);
    }
}

// ===== a server that leaves =====

/// A server whose first `leaves` connections say, on the first request, that they process none and go
/// away; what follows is the work of `next`, to which connections are then handed.
pub(crate) async fn leaving(leaves: usize, next: SocketAddr) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        for nth in 0.. {
            let Ok((mut socket, _)) = listener.accept().await else { return };
            connections.spawn(async move {
                if nth < leaves {
                    let _ = leave(socket).await;
                } else if let Ok(mut onward) = TcpStream::connect(next).await {
                    let _ = tokio::io::copy_bidirectional(&mut socket, &mut onward).await;
                }
            });
        }
    });
    (addr, tasks)
}

/// Waits for a request's head, and answers with a GOAWAY that names no stream at all as processed
/// (RFC 9113, section 6.8).
async fn leave(mut socket: TcpStream) -> std::io::Result<()> {
    const PREFACE: usize = 24;
    const HEADERS: u8 = 1;
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let acknowledged = [0, 0, 0, 4, 1, 0, 0, 0, 0];
    let go_away = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

    socket.read_exact(&mut [0; PREFACE]).await?;
    socket.write_all(&settings).await?;
    socket.write_all(&acknowledged).await?;
    loop {
        let mut header = [0; 9];
        socket.read_exact(&mut header).await?;
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        tokio::io::copy(&mut (&mut socket).take(length.into()), &mut tokio::io::sink()).await?;
        if header[3] == HEADERS {
            break;
        }
    }
    socket.write_all(&go_away).await?;
    // What is still to come is read, or closing would reset the connection before it is read.
    tokio::io::copy(&mut socket, &mut tokio::io::sink()).await?;
    Ok(())
}
