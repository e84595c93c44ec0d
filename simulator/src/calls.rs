//! The calls: who makes them and when, how they read, and when they lose their patience.

use std::{
    io,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use portcullis_core::{BoxError, Error, Outcome, RejectionKind, call, clock, find_rejection};
use portcullis_testkit::Seed;
use tokio::time::{sleep, timeout};
use tower::{Service, ServiceExt};

use crate::{
    forecast::{Forecast, Weather},
    journal::Journal,
    upstream::{CALL, Upstream},
};

/// A call that will be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) number: u32,
    /// When, since the start of the run.
    pub(crate) at: Duration,
    pub(crate) host: usize,
    method: Method,
    /// How long the caller's patience lasts.
    patience: Option<Duration>,
    /// How long the reader is away before each frame.
    pub(crate) away: Duration,
    /// After how many frames the reader has enough.
    enough: Option<usize>,
    /// The caller's own limit of the whole call.
    pub(crate) limit: Option<Duration>,
    no_retry: bool,
    cost: u32,
}

/// A call, as the one who made it saw it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Called {
    pub(crate) started: Instant,
    pub(crate) ended: Instant,
    /// The status of the head, and when it was there, if there was one.
    pub(crate) head: Option<(StatusCode, Instant)>,
    pub(crate) fate: Fate,
}

/// How a call ended for the one who made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The body was read to its end, whatever the status.
    Whole,
    /// The client failed before the head.
    Failed(io::ErrorKind),
    /// The body broke off.
    Cut,
    /// A layer refused it, or ended it.
    Rejected(RejectionKind),
    /// The caller lost patience.
    GaveUp,
    /// The reader had enough of the body.
    Enough,
}

// ===== impl Planned =====

impl Planned {
    /// So many calls, spread over the run; a third of them in bursts, which come at one moment.
    pub(crate) fn all(seed: &mut Seed, count: u32, forecast: &Forecast) -> Vec<Self> {
        let hosts = 0..forecast.hosts();
        let bursts = hosts.clone().flat_map(|host| {
            let parts = forecast.of(host).iter().filter(|part| part.weather == Weather::Burst);
            parts.map(move |part| (host, part.from + (part.until - part.from) / 4))
        });
        let bursts: Vec<_> = bursts.collect();
        let length = forecast.length().as_nanos() as u64;
        let mut all: Vec<_> = (0..count)
            .map(|_| {
                let (host, at) = match seed.chance(Self::IN_BURSTS) {
                    true => *seed.pick(&bursts),
                    false => {
                        let host = seed.within(0..hosts.end as u64) as usize;
                        (host, Duration::from_nanos(seed.within(0..length)))
                    }
                };
                Self::draw(seed, host, at)
            })
            .collect();
        all.sort_by_key(|planned| planned.at);
        for (number, planned) in (0..).zip(&mut all) {
            planned.number = number;
        }
        all
    }

    /// The share of the calls that come in bursts.
    pub(crate) const IN_BURSTS: f64 = 1.0 / 3.0;

    fn draw(seed: &mut Seed, host: usize, at: Duration) -> Self {
        let mut some = |share: f64, millis: std::ops::Range<u64>| {
            seed.chance(share).then(|| Duration::from_millis(seed.within(millis)))
        };
        // Some lose patience before anything can have happened, some when nearly all has.
        let patience = some(0.08, 0..40).or_else(|| some(0.06, 40..2_500));
        let away = some(0.05, 20..400).unwrap_or_default();
        let limit = some(0.04, 100..1_500);
        Self {
            number: 0,
            at,
            host,
            method: if seed.chance(0.75) { Method::GET } else { Method::POST },
            patience,
            away,
            enough: seed.chance(0.05).then(|| seed.within(0..3) as usize),
            limit,
            no_retry: seed.chance(0.03),
            cost: if seed.chance(0.05) { seed.within(2..4) as u32 } else { 1 },
        }
    }

    /// Whether it must succeed where nothing goes wrong.
    pub(crate) fn is_plain(&self) -> bool {
        self.patience.is_none() && self.away.is_zero() && self.limit.is_none()
    }

    /// The attempts it may have, where others may have so many.
    pub(crate) const fn most_attempts(&self, others: u32) -> u32 {
        if self.no_retry { 1 } else { others }
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let uri = format!("http://{}/", Upstream::host(self.host));
        let request = Request::builder().method(self.method.clone()).uri(uri);
        let request = request.header(CALL, self.number);
        request.body(Full::default()).expect("every part of it is valid")
    }

    /// Makes the call, in the scope that names it by its number.
    pub(crate) async fn make<S, B>(&self, service: S, journal: &Journal) -> Called
    where
        S: Service<Request<Full<Bytes>>, Response = http::Response<B>, Error = Error>,
        B: http_body::Body<Data = Bytes, Error = Error> + Unpin,
    {
        sleep(self.at).await;
        let started = clock::now();
        journal.note(started, format_args!("call {} begins: {self:?}", self.number));
        let mut with = call::with().name(self.number.to_string()).cost(self.cost);
        if let Some(limit) = self.limit {
            with = with.timeout(limit);
        }
        if self.no_retry {
            with = with.no_retry();
        }
        let mut head = None;
        let exchange = with.run(self.exchange(service, &mut head));
        let fate = match self.patience {
            Some(patience) => timeout(patience, exchange).await.unwrap_or(Fate::GaveUp),
            None => exchange.await,
        };
        let ended = clock::now();
        let called = Called { started, ended, head, fate };
        let status = head.map(|(status, _)| status.as_u16());
        journal.note(ended, format_args!("call {} ended: {fate:?}, {status:?}", self.number));
        called
    }

    async fn exchange<S, B>(&self, service: S, head: &mut Option<(StatusCode, Instant)>) -> Fate
    where
        S: Service<Request<Full<Bytes>>, Response = http::Response<B>, Error = Error>,
        B: http_body::Body<Data = Bytes, Error = Error> + Unpin,
    {
        let response = match service.oneshot(self.request()).await {
            Ok(response) => response,
            Err(error) => return Fate::of(error, false),
        };
        *head = Some((response.status(), clock::now()));
        let mut body = response.into_body();
        for read in 0.. {
            if self.enough == Some(read) {
                return Fate::Enough;
            }
            if !self.away.is_zero() {
                sleep(self.away).await;
            }
            match body.frame().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Fate::of(error, true),
                None => break,
            }
        }
        Fate::Whole
    }
}

// ===== impl Called =====

impl Called {
    /// Whether the one who made it got all there was to get, and it was good.
    pub(crate) fn succeeded(&self) -> bool {
        let good = self.head.is_some_and(|(status, _)| status.is_success());
        good && matches!(self.fate, Fate::Whole | Fate::Enough)
    }

    /// Whether it is what a call comes to whose end the trace layer tells as `outcome`.
    pub(crate) fn fits(&self, planned: &Planned, outcome: Outcome) -> bool {
        use portcullis_core::FaultKind::{Body, Connect, Other, Rejected, Status, Timeout};
        let kind = outcome.kind();
        let by_head = || match self.head {
            Some((status, _)) if status.is_success() => outcome == Outcome::Success,
            Some((status, _)) => kind == Some(Status(status.as_u16())),
            None => false,
        };
        match self.fate {
            Fate::Whole | Fate::Enough => by_head(),
            Fate::Failed(io::ErrorKind::ConnectionRefused) => kind == Some(Connect),
            Fate::Failed(_) => kind == Some(Other),
            Fate::Cut => kind == Some(Body),
            // A limit that ends a body for which nobody waited until then says nothing of the server:
            // the reader was away, or the head came at the very moment.
            Fate::Rejected(RejectionKind::Elapsed) => {
                let at_once = self.head.is_some_and(|(_, at)| at == self.ended);
                kind == Some(Timeout) || ((at_once || !planned.away.is_zero()) && by_head())
            }
            Fate::Rejected(RejectionKind::Exhausted) => kind.is_some(),
            Fate::Rejected(_) => kind == Some(Rejected),
            // Its own deadline may have come at the very moment.
            Fate::GaveUp if self.head.is_some() => by_head() || kind == Some(Timeout),
            Fate::GaveUp => outcome == Outcome::Cancelled || kind == Some(Timeout),
        }
    }
}

// ===== impl Fate =====

impl Fate {
    fn of(error: Error, in_body: bool) -> Self {
        let error = BoxError::from(error);
        if let Some(refusal) = find_rejection(&*error) {
            return Self::Rejected(refusal.kind());
        }
        let mut causes =
            std::iter::successors(Some(&*error as &(dyn std::error::Error + 'static)), |error| {
                error.source()
            });
        match causes.find_map(|cause| cause.downcast_ref::<io::Error>()) {
            Some(_) if in_body => Self::Cut,
            Some(error) => Self::Failed(error.kind()),
            None => Self::Failed(io::ErrorKind::Other),
        }
    }
}
