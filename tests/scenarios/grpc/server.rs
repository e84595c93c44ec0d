//! A server as tonic generates it, that answers as it is told.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::{Stream, StreamExt, stream};
use portcullis::sync::Mutex;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming, metadata::MetadataMap, transport::Server};

use super::wire::{Answer, Ask, Echo, EchoServer, answer};

/// What the server does with the call of a number, from 0, before it does what its method says.
pub(crate) type Script = dyn Fn(usize) -> Result<(), Status> + Send + Sync;

/// A server on a port of its own. Stops, and closes its connections, when dropped.
#[derive(Debug)]
pub(crate) struct Upstream {
    addr: SocketAddr,
    seen: Arc<Seen>,
    _serving: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Seen {
    calls: Mutex<Vec<MetadataMap>>,
    under_way: AtomicUsize,
}

#[derive(Clone)]
struct Scripted {
    seen: Arc<Seen>,
    script: Arc<Script>,
}

type Answers = Pin<Box<dyn Stream<Item = Result<Answer, Status>> + Send>>;

// ===== impl Upstream =====

impl Upstream {
    pub(crate) async fn new(
        script: impl Fn(usize) -> Result<(), Status> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let echo = Scripted { seen: seen.clone(), script: Arc::new(script) };
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let router = Server::builder().add_service(EchoServer::new(echo));
            router.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        Self { addr, seen, _serving: serving }
    }

    /// A server that always does what its methods say.
    pub(crate) async fn well() -> Self {
        Self::new(|_| Ok(())).await
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many calls came in.
    pub(crate) fn calls(&self) -> usize {
        self.seen.calls.lock().len()
    }

    /// The metadata of each call that came in.
    pub(crate) fn metadata(&self) -> Vec<MetadataMap> {
        self.seen.calls.lock().clone()
    }

    /// How many calls are being answered.
    pub(crate) fn under_way(&self) -> usize {
        self.seen.under_way.load(Ordering::SeqCst)
    }
}

// ===== impl Scripted =====

impl Scripted {
    fn begin<T>(&self, request: &Request<T>) -> Result<UnderWay, Status> {
        let mut calls = self.seen.calls.lock();
        calls.push(request.metadata().clone());
        let nth = calls.len() - 1;
        drop(calls);
        (self.script)(nth)?;
        self.seen.under_way.fetch_add(1, Ordering::SeqCst);
        Ok(UnderWay(self.seen.clone()))
    }
}

/// A call that is being answered, until it is dropped.
struct UnderWay(Arc<Seen>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tonic::async_trait]
impl Echo for Scripted {
    type CountStream = Answers;
    type ChatStream = Answers;

    /// Says what was said; to "hang" it never answers.
    async fn say(&self, request: Request<Ask>) -> Result<Response<Answer>, Status> {
        let _under_way = self.begin(&request)?;
        let text = request.into_inner().text;
        if text == "hang" {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(answer(&text)))
    }

    /// Says in one what was said in many, by its length if it is long.
    async fn collect(&self, request: Request<Streaming<Ask>>) -> Result<Response<Answer>, Status> {
        let _under_way = self.begin(&request)?;
        let mut asks = request.into_inner();
        let mut text = String::new();
        while let Some(ask) = asks.message().await? {
            text.push_str(&ask.text);
        }
        let text = if text.len() > 100 { text.len().to_string() } else { text };
        Ok(Response::new(answer(&text)))
    }

    /// Counts to the number that was said; then it fails if the number was negative, or never ends if
    /// there was none.
    async fn count(&self, request: Request<Ask>) -> Result<Response<Self::CountStream>, Status> {
        let under_way = self.begin(&request)?;
        let to: Option<i32> = request.into_inner().text.parse().ok();
        let numbers =
            stream::iter(1..=to.map_or(1, i32::abs)).map(|number| Ok(answer(&number.to_string())));
        let end: Answers = match to {
            None => Box::pin(stream::pending()),
            Some(..0) => Box::pin(stream::iter([Err(Status::data_loss("lost count"))])),
            Some(_) => Box::pin(stream::empty()),
        };
        let answers = numbers.chain(end).inspect(move |_| {
            let _ = &under_way;
        });
        Ok(Response::new(Box::pin(answers)))
    }

    /// Speaks first, and then says what was said.
    async fn chat(
        &self,
        request: Request<Streaming<Ask>>,
    ) -> Result<Response<Self::ChatStream>, Status> {
        let under_way = self.begin(&request)?;
        let asks = request.into_inner();
        let echoed = asks.map(move |ask| {
            let _ = &under_way;
            ask.map(|ask| answer(&ask.text))
        });
        Ok(Response::new(Box::pin(stream::iter([Ok(answer("hello"))]).chain(echoed))))
    }
}
