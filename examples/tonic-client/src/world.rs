//! The server: it fails as its script says, and counts what it was sent.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{net::TcpListener, task::JoinSet};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, metadata::MetadataMap, transport::Server};

use crate::hello::{Greeter, GreeterServer, HelloReply, HelloRequest};

/// A server on the loopback interface, until it is dropped.
pub(crate) struct World {
    pub(crate) addr: SocketAddr,
    requests: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

/// Whom it greets decides how it fails.
struct Moody {
    requests: Arc<AtomicUsize>,
}

// ===== impl World =====

impl World {
    pub(crate) async fn begin() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let requests = Arc::new(AtomicUsize::new(0));
        let greeter = GreeterServer::new(Moody { requests: requests.clone() });
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let router = Server::builder().add_service(greeter);
            if let Err(error) = router.serve_with_incoming(TcpListenerStream::new(listener)).await {
                eprintln!("the server ended: {error}");
            }
        });
        Ok(Self { addr, requests, _serving: serving })
    }

    /// How many requests came in since this was asked last.
    pub(crate) fn requests(&self) -> usize {
        self.requests.swap(0, Ordering::Relaxed)
    }
}

// ===== impl Moody =====

#[tonic::async_trait]
impl Greeter for Moody {
    async fn say_hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloReply>, Status> {
        let nth = self.requests.fetch_add(1, Ordering::Relaxed);
        let name = request.into_inner().name;
        match (&*name, nth) {
            ("a late riser", 0) => return Err(Status::unavailable("still asleep")),
            ("a late riser", 1) => return Err(come_back_in("150")),
            ("nobody", _) => return Err(Status::not_found("nobody of that name")),
            ("a wall", _) => std::future::pending().await,
            ("a fool", _) => return Err(Status::internal("lost my temper")),
            _ => {}
        }
        Ok(Response::new(HelloReply { message: format!("Hello, {name}!") }))
    }
}

/// A refusal that says when to come back, in milliseconds.
fn come_back_in(millis: &'static str) -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert("grpc-retry-pushback-ms", tonic::metadata::MetadataValue::from_static(millis));
    Status::with_metadata(tonic::Code::ResourceExhausted, "still yawning", metadata)
}
