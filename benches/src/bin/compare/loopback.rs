//! A real client and a real server over loopback: the bare client and the one in the stack, in turns.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use benches::{
    observed::metrics,
    scenario::{BURST, RATE, SECOND},
};
use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use portcullis::{Stack, breaker::Window, clock, sqlite::SqliteStore, trace::Recorder};
use serde::Serialize;
use tokio::{net::TcpListener, runtime, task::JoinSet};
use tower::{Layer, Service, ServiceExt};

use crate::{peers, stats};

pub(crate) const GROUP: &str = "loopback";
const CONNECTIONS: usize = 32;
const PAIRS: usize = 20;
/// Runs in a row of the peer, whose window fills meanwhile.
const PEER_RUNS: usize = 6;

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Loopback {
    pub(crate) connections: usize,
    pub(crate) pairs: usize,
    pub(crate) seconds_per_run: f64,
    pub(crate) bare: Load,
    pub(crate) ours: Load,
    /// Ours' requests per second by the bare client's of the same pair.
    pub(crate) requests_ratio: Ratio,
    /// Ours' 99th percentile by the bare client's of the same pair.
    pub(crate) p99_ratio: Ratio,
    /// Ours with its traces stored and its events counted.
    pub(crate) watched: Watched,
    pub(crate) peer: &'static str,
    /// Its last run.
    pub(crate) peer_load: Load,
    pub(crate) peer_requests_ratio: f64,
    /// Requests it had seen by the end.
    pub(crate) peer_window: u64,
}

/// The stack with an SQLite store and metrics, beside the stack without, in pairs of their own.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Watched {
    pub(crate) load: Load,
    pub(crate) requests_ratio: Ratio,
    pub(crate) p99_ratio: Ratio,
    /// Traces that were stored, and those that found no room on their way.
    pub(crate) stored: u64,
    pub(crate) dropped: u64,
}

/// The median of many ratios, and where it lies with 95 %.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Ratio {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// One run, or the medians of many.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Load {
    pub(crate) requests_per_second: f64,
    pub(crate) p99_micros: f64,
    #[serde(skip)]
    requests: u64,
}

type Requests = Request<Full<Bytes>>;

/// Takes about `seconds` / 2.
pub(crate) fn measure(seconds: u32) -> Loopback {
    let runtime = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let run = Duration::from_secs(seconds.into()) / 180;
    runtime.expect("a runtime").block_on(in_pairs(run))
}

async fn in_pairs(run: Duration) -> Loopback {
    let server = serve().await;
    let uri: Uri = format!("http://{server}/search").parse().expect("an address and a path");
    let bare = client();
    // As it is in production, its limit aside.
    let stack = Stack::production("bench").limit(|limit| limit.rate(RATE, SECOND).burst(BURST));
    let ours = stack.build().expect("valid").layer(client());

    let pairs = pairs(&bare, &ours, &uri, run).await;
    let watched = watched(&ours, &uri, run).await;

    let minute = Window::Time(Duration::from_secs(60));
    let peer = peers::resilience_broken(minute, client());
    let mut peer_runs = Vec::with_capacity(PEER_RUNS);
    for _ in 0..PEER_RUNS {
        peer_runs.push(load(&peer, &uri, run).await);
    }
    let peer_load = peer_runs[PEER_RUNS - 1];

    let [requests_ratio, p99_ratio] = ratios(&pairs);
    let (bare, ours) =
        (Load::median(pairs.iter().map(|p| p.0)), Load::median(pairs.iter().map(|p| p.1)));
    Loopback {
        connections: CONNECTIONS,
        pairs: PAIRS,
        seconds_per_run: run.as_secs_f64(),
        requests_ratio,
        p99_ratio,
        watched,
        peer: "tower-resilience, breaker alone, time window of 60 s",
        peer_requests_ratio: peer_load.requests_per_second / bare.requests_per_second,
        peer_load,
        peer_window: peer_runs.iter().map(|run| run.requests).sum(),
        bare,
        ours,
    }
}

/// The one and the other in turns, after a run of each that does not count.
async fn pairs<S, T, B, C>(one: &S, other: &T, uri: &Uri, run: Duration) -> Vec<(Load, Load)>
where
    S: Service<Requests, Response = Response<B>, Error: std::fmt::Debug, Future: Send>,
    S: Clone + Send + 'static,
    B: Body<Data: Send, Error: std::fmt::Debug> + Send + 'static,
    T: Service<Requests, Response = Response<C>, Error: std::fmt::Debug, Future: Send>,
    T: Clone + Send + 'static,
    C: Body<Data: Send, Error: std::fmt::Debug> + Send + 'static,
{
    load(one, uri, run).await;
    load(other, uri, run).await;
    let mut pairs = Vec::with_capacity(PAIRS);
    for nth in 0..PAIRS {
        pairs.push(if nth % 2 == 0 {
            let one = load(one, uri, run).await;
            (one, load(other, uri, run).await)
        } else {
            let other = load(other, uri, run).await;
            (load(one, uri, run).await, other)
        });
    }
    pairs
}

/// The other's requests per second and its 99th percentile by those of the one in the same pair.
fn ratios(pairs: &[(Load, Load)]) -> [Ratio; 2] {
    let each = |of: fn(&Load) -> f64| {
        Ratio::of(&pairs.iter().map(|(one, other)| of(other) / of(one)).collect::<Vec<f64>>())
    };
    [each(|load| load.requests_per_second), each(|load| load.p99_micros)]
}

/// The stack beside one whose traces, a tenth of all, go into a file and whose events become metrics.
async fn watched<S, B>(plain: &S, uri: &Uri, run: Duration) -> Watched
where
    S: Service<Requests, Response = Response<B>, Error: std::fmt::Debug, Future: Send>,
    S: Clone + Send + 'static,
    B: Body<Data: Send, Error: std::fmt::Debug> + Send + 'static,
{
    let folder = tempfile::tempdir().expect("a folder");
    let store = SqliteStore::builder(folder.path().join("traces.db")).build().expect("a store");
    let recorder = Recorder::builder().store(store).build().expect("valid");
    let stack = Stack::production("bench").limit(|limit| limit.rate(RATE, SECOND).burst(BURST));
    let stack = stack.recorder(&recorder).observe(metrics()).build().expect("valid");
    let pairs = pairs(plain, &stack.layer(client()), uri, run).await;
    recorder.shutdown().await;
    let counts = recorder.counts();
    let [requests_ratio, p99_ratio] = ratios(&pairs);
    Watched {
        load: Load::median(pairs.iter().map(|p| p.1)),
        requests_ratio,
        p99_ratio,
        stored: counts.stored,
        dropped: counts.dropped_successes + counts.dropped_others,
    }
}

/// Answers whatever it is asked, until the runtime ends.
async fn serve() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let answer = service_fn(|_| async {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"an answer"))))
    });
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Small answers must not wait for more to come.
            _ = stream.set_nodelay(true);
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        }
    });
    address
}

fn client() -> Client<HttpConnector, Full<Bytes>> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new()).build(connector)
}

/// Every connection asks again as soon as it is answered, for so long.
async fn load<S, B>(service: &S, uri: &Uri, time: Duration) -> Load
where
    S: Service<Requests, Response = Response<B>, Error: std::fmt::Debug, Future: Send>,
    S: Clone + Send + 'static,
    B: Body<Data: Send, Error: std::fmt::Debug> + Send + 'static,
{
    let start = clock::now();
    let until = start + time;
    let mut callers = JoinSet::new();
    for _ in 0..CONNECTIONS {
        callers.spawn(ask(service.clone(), uri.clone(), until));
    }
    let latencies: Vec<f64> = callers.join_all().await.into_iter().flatten().collect();
    Load {
        requests_per_second: latencies.len() as f64 / start.elapsed().as_secs_f64(),
        p99_micros: stats::quantile(&latencies, 0.99),
        requests: latencies.len() as u64,
    }
}

/// How long each request took to the end of its body, in microseconds. At least one is made.
async fn ask<S, B>(mut service: S, uri: Uri, until: Instant) -> Vec<f64>
where
    S: Service<Requests, Response = Response<B>, Error: std::fmt::Debug>,
    B: Body<Error: std::fmt::Debug>,
{
    let mut latencies = Vec::with_capacity(4096);
    let mut begun = clock::now();
    loop {
        let mut request = Request::new(Full::default());
        *request.uri_mut() = uri.clone();
        let service = service.ready().await.expect("the client is always ready");
        let response = service.call(request).await.expect("the server answers");
        response.into_body().collect().await.expect("and to the end");
        let ended = clock::now();
        latencies.push((ended - begun).as_secs_f64() * 1e6);
        if ended >= until {
            return latencies;
        }
        begun = ended;
    }
}

// ===== impl Load =====

impl Load {
    fn median(runs: impl Iterator<Item = Self>) -> Self {
        let runs: Vec<Self> = runs.collect();
        let of = |f: fn(&Self) -> f64| stats::median(&runs.iter().map(f).collect::<Vec<f64>>());
        Self {
            requests_per_second: of(|run| run.requests_per_second),
            p99_micros: of(|run| run.p99_micros),
            requests: runs.iter().map(|run| run.requests).sum(),
        }
    }
}

// ===== impl Ratio =====

impl Ratio {
    fn of(ratios: &[f64]) -> Self {
        let (low, high) = stats::interval(ratios);
        Self { median: stats::median(ratios), low, high }
    }
}
