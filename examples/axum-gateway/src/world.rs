//! The services behind the gateway: real servers on the loopback interface, each flaky in its way.

use std::{
    future::pending,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::Path, routing::get};
use http::{HeaderMap, StatusCode};
use portcullis::sync::Mutex;
use tokio::{net::TcpListener, task::JoinSet, time::sleep};

/// How long a price takes.
const THINKS: Duration = Duration::from_millis(80);

/// What has no price, however long one waits.
pub(crate) const NO_PRICE: u32 = 13;

/// The services. They end when this is dropped.
pub(crate) struct World {
    pub(crate) stock: Peer,
    pub(crate) prices: Peer,
    servers: JoinSet<io::Result<()>>,
}

/// A service, and the headers of all requests that it got.
#[derive(Clone)]
pub(crate) struct Peer {
    addr: SocketAddr,
    asked: Arc<Mutex<Vec<HeaderMap>>>,
}

// ===== impl World =====

impl World {
    pub(crate) async fn begin() -> io::Result<Self> {
        let mut servers = JoinSet::new();
        let stock = Peer::serve(&mut servers, |number, _| async move {
            // It fails whenever it has not just failed.
            if number % 2 == 0 { Err(StatusCode::SERVICE_UNAVAILABLE) } else { Ok("12".to_owned()) }
        })
        .await?;
        let prices = Peer::serve(&mut servers, |_, id| async move {
            if id == NO_PRICE {
                pending::<()>().await;
            }
            sleep(THINKS).await;
            Ok(format!("{id}.90"))
        })
        .await?;
        Ok(Self { stock, prices, servers })
    }

    /// One more server, which ends with the others.
    pub(crate) async fn serve(&mut self, app: Router) -> io::Result<SocketAddr> {
        serve(&mut self.servers, app).await
    }
}

// ===== impl Peer =====

impl Peer {
    async fn serve<H, F>(servers: &mut JoinSet<io::Result<()>>, answer: H) -> io::Result<Self>
    where
        H: Fn(usize, u32) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<String, StatusCode>> + Send,
    {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, count) = (asked.clone(), Arc::new(AtomicUsize::new(0)));
        let handler = move |Path(id): Path<u32>, headers: HeaderMap| {
            log.lock().push(headers);
            answer(count.fetch_add(1, Ordering::Relaxed), id)
        };
        let addr = serve(servers, Router::new().route("/{id}", get(handler))).await?;
        Ok(Self { addr, asked })
    }

    pub(crate) fn host(&self) -> String {
        self.addr.to_string()
    }

    /// What a header said in each request since this was asked last.
    pub(crate) fn was_told(&self, name: &str) -> Vec<String> {
        let text = |headers: HeaderMap| {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or("nothing").to_owned()
        };
        self.asked.lock().drain(..).map(text).collect()
    }
}

async fn serve(servers: &mut JoinSet<io::Result<()>>, app: Router) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    servers.spawn(axum::serve(listener, app).into_future());
    Ok(addr)
}
