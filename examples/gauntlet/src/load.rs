//! The load: the same requests at the same times through any client, whatever becomes of them.

use std::{
    error::Error,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri, uri::Authority};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy;
use portcullis::trace::TraceScope;
use portcullis_core::{BoxError, RejectionKind, clock, find_error, find_rejection};
use portcullis_testkit::Seed;
use tokio::{
    task::JoinSet,
    time::{sleep, sleep_until},
};
use tower::{Service, ServiceExt};

use crate::{
    attempts::REQUEST_ID,
    stop::Stop,
    weather::{Script, Weather},
};

/// Requests a second, in all weathers but a burst.
pub(crate) const RATE: f64 = 150.0;
/// How long the harness waits for a call. It is no time limit of the client's: the bare one has
/// none, and its user would wait for ever. A call that is abandoned counts as failed, with the time
/// it had taken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How long after the last request, or once it is told to stop, the harness still waits for calls that
/// are out; those that are left are abandoned.
pub(crate) const DRAIN: Duration = Duration::from_millis(2_500);

/// The attribute that joins a call's trace and the logs.
pub(crate) const REQUEST: &str = "request";

/// A request that will be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) id: u32,
    /// When, in time since the start.
    pub(crate) at: Duration,
    pub(crate) method: Method,
}

/// A call, as the one who made it saw it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Called {
    pub(crate) id: u32,
    /// The weather it was made in.
    pub(crate) weather: Weather,
    pub(crate) started: Instant,
    /// When the body was read to its end, or the call had failed.
    pub(crate) ended: Instant,
    pub(crate) result: Result<(), Failed>,
}

/// Why a call counts as failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// A status other than 2xx, its body whole.
    Status(StatusCode),
    /// No connection could be made.
    Connect,
    /// The connection failed before the head.
    Broken,
    /// The body broke off.
    Body,
    /// A layer refused it, or ended it.
    Rejected(RejectionKind),
    /// The harness lost its patience.
    Abandoned,
}

/// A call that failed, with what it failed of.
#[derive(Debug)]
struct CallError {
    failed: Failed,
    cause: Option<BoxError>,
}

/// How a side fares at this moment.
#[derive(Debug, Default)]
pub(crate) struct Progress([(AtomicU32, AtomicU32); Weather::ALL.len()]);

/// Where and when the load runs.
#[derive(Clone, Debug)]
pub(crate) struct Course {
    pub(crate) script: Arc<Script>,
    pub(crate) start: Instant,
}

// ===== impl Course =====

impl Course {
    /// The weather at a point in time.
    pub(crate) fn weather_at(&self, at: Instant) -> Weather {
        self.script.at(self.since_start(at)).weather
    }

    /// A point in time, counted from the start.
    pub(crate) fn since_start(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.start)
    }
}

// ===== impl Progress =====

impl Progress {
    /// The share of the calls made in this weather and over by now that succeeded.
    pub(crate) fn success(&self, weather: Weather) -> Option<f64> {
        // Only a display: the two need not be of the same moment.
        let (over, ok) = &self.0[weather as usize];
        let over = over.load(Ordering::Relaxed);
        (over > 0).then(|| f64::from(ok.load(Ordering::Relaxed)) / f64::from(over))
    }

    fn note(&self, called: &Called) {
        let (over, ok) = &self.0[called.weather as usize];
        if called.result.is_ok() {
            ok.fetch_add(1, Ordering::Relaxed);
        }
        over.fetch_add(1, Ordering::Relaxed);
    }
}

/// The requests of a run: evenly spaced but for a seeded jitter of half a space, closer in a burst;
/// 80 % GET, 15 % PUT, 5 % POST.
pub(crate) fn plan(seed: u64, script: &Script) -> Vec<Planned> {
    let mut seed = Seed::new(seed).split();
    let phases = script.phases().iter();
    phases
        .flat_map(|phase| {
            let (from, until) = (phase.from.as_secs_f64(), phase.until.as_secs_f64());
            let space = 1.0 / (RATE * phase.weather.load());
            let count = ((until - from) / space).round() as u32;
            (0..count).map(move |place| (from + f64::from(place) * space, space))
        })
        .zip(0..)
        .map(|((from, space), id)| {
            let at = from + seed.unit() / 2.0 * space;
            let method = match seed.within(0..100) {
                0..80 => Method::GET,
                80..95 => Method::PUT,
                _ => Method::POST,
            };
            Planned { id, at: Duration::from_secs_f64(at), method }
        })
        .collect()
}

/// Makes every planned request at its time, whether or not earlier ones are answered, until it is told
/// to stop, and waits until all are over.
pub(crate) async fn run<S, B>(
    service: S,
    upstream: Authority,
    plan: &[Planned],
    course: &Course,
    progress: &Arc<Progress>,
    stop: &Stop,
) -> Vec<Called>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Body<Data: Send, Error: Into<BoxError>> + Send,
{
    let last = course.start + course.script.length() + DRAIN;
    let mut calls = JoinSet::new();
    for planned in plan {
        tokio::select! {
            () = sleep_until((course.start + planned.at).into()) => {}
            () = stop.told() => break,
        }
        let request = request(planned, &upstream);
        let (service, course, progress) = (service.clone(), course.clone(), progress.clone());
        let stop = stop.clone();
        let id = planned.id;
        // What its user would call it. Nothing is recorded by a client that has no trace layer.
        let scope = TraceScope::start(format!("{} /", planned.method)).attribute(REQUEST, id);
        calls.spawn(async move {
            let started = clock::now();
            let until = last.min(started + PATIENCE);
            let impatient = async {
                tokio::select! {
                    () = sleep_until(until.into()) => {}
                    () = async { stop.told().await; sleep(DRAIN).await } => {}
                }
            };
            let result = tokio::select! {
                biased;
                called = scope.try_run(call(service, request)) => called.map_err(|error| error.failed),
                () = impatient => Err(Failed::Abandoned),
            };
            let called = Called {
                id,
                weather: course.weather_at(started),
                started,
                ended: clock::now(),
                result,
            };
            progress.note(&called);
            called
        });
    }
    calls.join_all().await
}

async fn call<S, B>(service: S, request: Request<Full<Bytes>>) -> Result<(), CallError>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: Body<Error: Into<BoxError>>,
{
    let response = service.oneshot(request).await;
    let response = response.map_err(|error| CallError::new(error.into(), Failed::Broken))?;
    let (head, body) = response.into_parts();
    let mut body = std::pin::pin!(body);
    while let Some(frame) = body.frame().await {
        frame.map_err(|error| CallError::new(error.into(), Failed::Body))?;
    }
    match head.status.is_success() {
        true => Ok(()),
        false => Err(CallError { failed: Failed::Status(head.status), cause: None }),
    }
}

fn request(planned: &Planned, upstream: &Authority) -> Request<Full<Bytes>> {
    let mut uri = Uri::default().into_parts();
    uri.scheme = Some(http::uri::Scheme::HTTP);
    uri.authority = Some(upstream.clone());
    uri.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
    let body = match planned.method {
        Method::GET => Full::default(),
        _ => Full::from("a small body, of the kind that can be sent again"),
    };
    let mut request = Request::new(body);
    *request.method_mut() = planned.method.clone();
    // All parts are there, so it cannot fail; were it to, the call would, and be seen to.
    *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
    request.headers_mut().insert(REQUEST_ID, planned.id.into());
    request
}

// ===== impl Failed =====

impl Failed {
    fn of(error: &BoxError, otherwise: Self) -> Self {
        if let Some(rejection) = find_rejection(&**error) {
            return Self::Rejected(rejection.kind());
        }
        match find_error::<legacy::Error>(&**error) {
            Some(error) if error.is_connect() => Self::Connect,
            _ => otherwise,
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "answered {status}"),
            Self::Connect => f.write_str("no connection could be made"),
            Self::Broken => f.write_str("the connection broke before the head"),
            Self::Body => f.write_str("the body broke off"),
            Self::Rejected(RejectionKind::Elapsed) => f.write_str("its time ran out"),
            Self::Rejected(_) => f.write_str("the stack refused it"),
            Self::Abandoned => f.write_str("abandoned"),
        }
    }
}

// ===== impl CallError =====

impl CallError {
    fn new(cause: BoxError, otherwise: Failed) -> Self {
        Self { failed: Failed::of(&cause, otherwise), cause: Some(cause) }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.failed.fmt(f)
    }
}

impl Error for CallError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_hangs_on_its_seed_and_keeps_its_rate() {
        let script = Script::new(43, 1);
        let plan_of = |seed| plan(seed, &script);
        assert_eq!(plan_of(1), plan_of(1));
        assert_ne!(plan_of(1), plan_of(2));

        let plan = plan_of(1);
        // Two seconds of it are a burst.
        assert_eq!(plan.len(), 150 * (43 + 2 * 2));
        assert!(plan.is_sorted_by_key(|planned| planned.at));
        assert!(plan.iter().zip(0..).all(|(planned, id)| planned.id == id));
        let within = |from: Duration| {
            let second = from..from + Duration::from_secs(1);
            plan.iter().filter(|planned| second.contains(&planned.at)).count()
        };
        assert_eq!(within(Duration::from_secs(4)), 150);
        assert_eq!(within(script.phase(Weather::Burst).from), 450);
        let share = |method: Method| plan.iter().filter(|planned| planned.method == method).count();
        assert!((5_500..5_800).contains(&share(Method::GET)));
        assert!((270..440).contains(&share(Method::POST)));
    }
}
