//! A program with something to show.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::Router;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use portcullis::{
    HttpStack, Stack,
    admin::{Admin, AdminBuilder},
    breaker,
    retry::{Backoff, Jitter},
    trace::{MemoryStore, Query, Recorder, TraceScope, record::Trace},
};
use portcullis_core::{BoxError, Registry, clock};
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};
use tower::{Layer, ServiceExt, service_fn};

use crate::upstream::Upstream;

const SECOND: Duration = Duration::from_secs(1);
/// The word that lets a reader change something.
const TOKEN: &str = "open-sesame";
/// The same jitter in every run.
const SEED: u64 = 17;

/// A program with something to show: stacks over scripted servers, and the admin router.
///
/// To be made in a runtime of one thread whose clock is paused.
#[derive(Debug)]
pub struct World {
    admin: Admin,
    registry: Registry,
    recorder: Recorder,
    upstream: Upstream,
    stacks: HashMap<String, HttpStack>,
    began: Instant,
    addr: Option<SocketAddr>,
    server: Option<JoinHandle<()>>,
}

// ===== impl World =====

impl World {
    /// One that has done nothing yet. Every trace is kept.
    ///
    /// # Panics
    ///
    /// If a setting is out of its range, which none is.
    #[must_use]
    pub fn new(title: &str) -> Self {
        Self::with(title, |admin| admin.token(TOKEN))
    }

    /// One of which nothing can be changed.
    ///
    /// # Panics
    ///
    /// If a setting is out of its range, which none is.
    #[must_use]
    pub fn to_look_at(title: &str) -> Self {
        Self::with(title, |admin| admin)
    }

    /// One that has no room for what it hears of breakers.
    ///
    /// # Panics
    ///
    /// If a setting is out of its range, which none is.
    #[must_use]
    pub fn hard_of_hearing(title: &str) -> Self {
        Self::with(title, |admin| admin.keys(0))
    }

    fn with(title: &str, set: impl FnOnce(AdminBuilder) -> AdminBuilder) -> Self {
        let registry = Registry::new();
        let store = MemoryStore::new();
        let recorder = Recorder::builder().store(store).sample_rate(1.0).build();
        let recorder = recorder.expect("the settings are in range");
        registry.insert("traces", recorder.clone());
        let admin = Admin::builder().title(title).registry(&registry);
        let admin = set(admin.shared_store(recorder.store().clone())).build();
        let admin = admin.expect("the settings are in range");
        let (upstream, stacks) = (Upstream::new(&recorder), HashMap::new());
        let began = clock::now();
        Self { admin, registry, recorder, upstream, stacks, began, addr: None, server: None }
    }

    /// The word that lets a reader change something.
    #[must_use]
    pub const fn token(&self) -> &'static str {
        TOKEN
    }

    /// The breakers of a stack, by host.
    ///
    /// # Panics
    ///
    /// If no call was made through it yet.
    #[must_use]
    pub fn breakers(&self, name: &str) -> breaker::Handles {
        self.stacks[name].breaker().handles()
    }

    /// Makes a call through the stack of this name, which is made with the first. The address says what the
    /// servers answer: see `upstream`.
    ///
    /// # Errors
    ///
    /// If the stack has no response for it.
    pub async fn call(&mut self, name: &str, uri: &str) -> Result<StatusCode, BoxError> {
        let stack = self.stack(name);
        send(stack, self.upstream.clone(), uri.to_owned()).await
    }

    /// Fails calls until the breaker of the host has opened and refused one.
    pub async fn trip(&mut self, name: &str, host: &str) {
        while self.call(name, &format!("http://{host}/?500:1")).await.is_ok() {}
    }

    /// The same as [`call`](Self::call), to be polled beside others.
    pub fn calling(
        &mut self,
        name: &str,
        uri: &str,
    ) -> impl Future<Output = Result<StatusCode, BoxError>> + use<> {
        send(self.stack(name), self.upstream.clone(), uri.to_owned())
    }

    /// A scope whose trace is kept with the others.
    pub fn scope(&self, name: &str) -> TraceScope {
        TraceScope::start(name).recorder(&self.recorder)
    }

    /// Waits until what is over by now is in the store.
    pub async fn settle(&self) {
        self.recorder.flush().await;
    }

    fn stack(&mut self, name: &str) -> HttpStack {
        let Self { admin, registry, recorder, stacks, .. } = self;
        let make = || {
            Stack::production(name)
                .recorder(recorder)
                .total(|timeout| timeout.total(5 * SECOND))
                .attempt(|timeout| timeout.attempt(SECOND / 2))
                .retry(|retry| {
                    let backoff = Backoff::fixed(3 * SECOND / 10);
                    retry.max_attempts(3).backoff(backoff).jitter(Jitter::None).seed(SEED)
                })
                .limit(|limit| limit.rate(10, SECOND).burst(5).max_wait(SECOND))
                .breaker(|breaker| {
                    let breaker = breaker.consecutive_failures(5).failure_rate(0.5).ramp(None);
                    breaker.open_time(30 * SECOND, 30 * SECOND).jitter(false).seed(SEED)
                })
                .observe(admin.observer())
                .register_in(registry)
                .build()
                .expect("the settings are in range")
        };
        stacks.entry(name.to_owned()).or_insert_with(make).clone()
    }

    /// Lets the clock go, and serves the page; its address. Served again, it is where it was before.
    ///
    /// # Panics
    ///
    /// If there is no port for it.
    pub async fn show(&mut self) -> String {
        if self.addr.is_none() {
            self.settle().await;
            self.backdate();
            tokio::time::resume();
        }
        let at = self.addr.unwrap_or(([127, 0, 0, 1], 0).into());
        let listener = TcpListener::bind(at).await.expect("a port on the loopback interface");
        let addr = listener.local_addr().expect("it has an address");
        self.addr = Some(addr);
        let app = Router::new().nest("/ops/admin", self.admin.router());
        self.server = Some(tokio::spawn(serve(listener, app)));
        format!("http://{addr}/ops/admin")
    }

    /// What was played took no time by the wall clock: moves the dates back, so that the last of it is just
    /// over. Dates are reckoned from one reading of that clock for a minute; a longer script has more.
    fn backdate(&self) {
        let played = clock::now().saturating_duration_since(self.began);
        let store = self.recorder.store();
        let mut query = Query::new().limit(1000);
        let mut all = Vec::new();
        loop {
            let page = store.query(&query).expect("the store is in memory");
            all.extend(page.traces.iter().map(|trace| {
                let mut trace = Trace::clone(trace);
                trace.started_at -= played;
                Arc::new(trace)
            }));
            query = match page.next {
                Some(next) => query.after(next),
                None => break,
            };
        }
        store.put(&all).expect("the store is in memory");
    }

    /// Ends the server in the midst of whatever it does.
    pub fn hide(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.hide();
    }
}

async fn send(stack: HttpStack, upstream: Upstream, uri: String) -> Result<StatusCode, BoxError> {
    let client = service_fn(move |request: Request<Full<Bytes>>| upstream.clone().answer(request));
    let request = Request::get(uri).body(Full::default())?;
    let response = stack.layer(client).oneshot(request).await?;
    let status = response.status();
    response.into_body().collect().await?;
    Ok(status)
}

/// Ends its connections when it is dropped, those that stream for ever among them.
async fn serve(listener: TcpListener, app: Router) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let service = TowerToHyperService::new(app.clone());
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        // A browser that goes away is no concern of the server's.
        connections.spawn(async move {
            let _ = connection.await;
        });
    }
}
