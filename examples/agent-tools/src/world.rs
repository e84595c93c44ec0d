//! The servers, which fail as they are told to, and the names they are found by.

use std::{
    collections::BTreeMap,
    future::{Ready, ready},
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, routing::any};
use http::{HeaderValue, Response, StatusCode, header};
use hyper_util::client::legacy::connect::dns::Name;
use tokio::{net::TcpListener, task::JoinSet, time::sleep};
use tower::Service;

/// How long a server thinks before it answers.
const THINKS: Duration = Duration::from_millis(150);

/// What a server does with its next request.
#[derive(Clone, Copy)]
enum Reply {
    Text(&'static str),
    Fails(StatusCode),
    /// Asks to come back in a second.
    Busy,
    /// Takes a job on, and says where to ask about it.
    Accepts,
    /// Is not done with it.
    Works,
    Hangs,
}

const MODEL: &[Reply] = &[
    Reply::Busy,
    Reply::Text("Search the incidents, look into the program, try it on the test bench."),
    Reply::Text("Deploy 418 reads whole carts. Revert it: the test bench shows that it helps."),
];
const SEARCH: &[Reply] = &[
    Reply::Fails(StatusCode::SERVICE_UNAVAILABLE),
    Reply::Text("14:05 checkout slow, after deploy 418"),
];
const METRICS: &[Reply] = &[Reply::Hangs];
const BENCH: &[Reply] = &[
    Reply::Accepts,
    Reply::Works,
    Reply::Fails(StatusCode::SERVICE_UNAVAILABLE),
    Reply::Works,
    Reply::Text("p95 of 2.1 s with deploy 418, of 180 ms without"),
];

/// The servers. They end when this is dropped.
pub(crate) struct World {
    names: Names,
    servers: JoinSet<io::Result<()>>,
}

/// Finds servers by name, in place of DNS.
#[derive(Clone, Default)]
pub(crate) struct Names(Arc<BTreeMap<String, SocketAddr>>);

// ===== impl World =====

impl World {
    pub(crate) async fn begin() -> io::Result<Self> {
        let mut world = Self { names: Names::default(), servers: JoinSet::new() };
        let mut names = BTreeMap::new();
        for (name, replies) in
            [("model", MODEL), ("search", SEARCH), ("metrics", METRICS), ("bench", BENCH)]
        {
            names.insert(format!("{name}.example"), world.serve(replies).await?);
        }
        // A port on which nobody listens any more.
        let gone = TcpListener::bind("127.0.0.1:0").await?;
        names.insert("people.example".to_owned(), gone.local_addr()?);
        world.names = Names(Arc::new(names));
        Ok(world)
    }

    pub(crate) fn names(&self) -> Names {
        self.names.clone()
    }

    /// A server that gives these replies one after the other, and the last one again and again.
    async fn serve(&mut self, replies: &'static [Reply]) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let asked = Arc::new(AtomicUsize::new(0));
        let app = Router::new().fallback(any(move || {
            let number = asked.fetch_add(1, Ordering::Relaxed);
            answer(replies.get(number).or(replies.last()).copied())
        }));
        self.servers.spawn(axum::serve(listener, app).into_future());
        Ok(addr)
    }
}

async fn answer(reply: Option<Reply>) -> Response<String> {
    let mut response = Response::default();
    match reply.unwrap_or(Reply::Hangs) {
        Reply::Text(text) => {
            sleep(THINKS).await;
            *response.body_mut() = text.to_owned();
        }
        Reply::Fails(status) => *response.status_mut() = status,
        Reply::Busy => {
            *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
            response.headers_mut().insert(header::RETRY_AFTER, 1.into());
        }
        Reply::Accepts => {
            *response.status_mut() = StatusCode::ACCEPTED;
            let headers = response.headers_mut();
            headers.insert(header::LOCATION, HeaderValue::from_static("/runs/7"));
            headers.insert(header::RETRY_AFTER, 1.into());
        }
        Reply::Works => *response.status_mut() = StatusCode::ACCEPTED,
        Reply::Hangs => std::future::pending().await,
    }
    response
}

// ===== impl Names =====

impl Service<Name> for Names {
    type Response = std::option::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        ready(Ok(self.0.get(name.as_str()).copied().into_iter()))
    }
}
