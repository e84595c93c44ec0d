//! One level of a stack: a layer of ours, or what else may stand between two of them.

use std::{
    future::{Future, poll_fn},
    task::Poll,
    time::Duration,
};

use futures_util::{StreamExt, future, stream::FuturesUnordered};
use portcullis::{
    BoxError, ByClone, Call,
    breaker::BreakerLayer,
    ratelimit::RateLimitLayer,
    retry::{Backoff, Jitter, RetryLayer},
    timeout::TimeoutLayer,
};
use portcullis_testkit::Seed;
use tokio::{task::JoinSet, time::sleep};
use tower::{Layer, Service, ServiceExt, buffer::Buffer, service_fn, util::BoxCloneService};

use super::witness::Witness;

/// A service that is always ready. So it may be called without being asked, as services do here that
/// call more than once within one `call`.
pub(super) type Any = BoxCloneService<(), (), BoxError>;

#[derive(Clone, Copy, Debug)]
pub(super) enum Level {
    Timeout(Timeout),
    Breaker,
    Retry(Retry),
    Limit(Limit),
    /// Five layers of ours with nothing in between.
    Five {
        attempt: Timeout,
        limit: Limit,
        retry: Retry,
        total: Timeout,
    },
    /// Calls only after a while.
    Hesitates(Duration),
    /// Calls at once, and answers a while after it was answered.
    Lingers(Duration),
    /// Calls at once, and polls only after a while.
    Unpolled(Duration),
    /// Calls again if there is no answer after a while; the first success wins.
    Hedges(Duration),
    /// Calls twice at once and polls what was woken; the first success wins.
    Races,
    /// Calls at once and again after a while, and waits for both.
    Joins(Duration),
    /// Calls twice, one after the other.
    Repeats,
    /// Calls at once; another task polls.
    Spawns,
    /// The same, with the current call.
    SpawnsInScope,
    /// Calls and polls once; then another task polls, and answers after a while.
    Moves(Duration),
    /// The worker of a buffer calls.
    Buffers,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Timeout {
    phase: Phase,
    limit: Duration,
    heard: bool,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Total,
    Attempt,
    Head,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Retry {
    attempts: u32,
    backoff: Duration,
    heard: bool,
}

/// One call in this time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit(Duration);

pub(super) const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(super) fn boxed<S>(service: S) -> Any
where
    S: Service<(), Response = ()> + Clone + Send + 'static,
    S::Future: Send + 'static,
    BoxError: From<S::Error>,
{
    BoxCloneService::new(service.map_err(BoxError::from))
}

/// Calls once the service is ready, within the future.
pub(super) fn when_ready(inner: Any) -> impl Future<Output = Result<(), BoxError>> + Send {
    inner.oneshot(())
}

// ===== impl Level =====

impl Level {
    /// Any of them; those that share the most readings of the clock the most often.
    pub(super) fn draw(draw: &mut Seed) -> Self {
        let wait = millis(draw.within(0..30));
        match draw.within(0..18) {
            0 | 1 => Self::Timeout(Timeout::draw(draw)),
            2 | 3 => Self::Breaker,
            4 => Self::Retry(Retry::draw(draw)),
            5 => Self::Limit(Limit::draw(draw)),
            6 => Self::Hesitates(wait),
            7 => Self::Lingers(wait),
            8 => Self::Unpolled(wait),
            9 => Self::Hedges(wait),
            10 => Self::Races,
            11 => Self::Joins(wait),
            12 => Self::Repeats,
            13 => Self::Spawns,
            14 => Self::SpawnsInScope,
            15 => Self::Moves(wait * 100),
            16 => Self::Buffers,
            _ => Self::Five {
                attempt: Timeout::draw(draw),
                limit: Limit::draw(draw),
                retry: Retry::draw(draw),
                total: Timeout::draw(draw),
            },
        }
    }

    /// The longest that anybody above may measure.
    pub(super) fn limit(&self) -> Option<Duration> {
        match self {
            Self::Timeout(timeout) | Self::Five { total: timeout, .. } => Some(timeout.limit),
            _ => None,
        }
    }

    /// Whether the level tells what its calls took.
    pub(super) fn is_heard(&self) -> bool {
        match self {
            Self::Timeout(timeout) | Self::Five { total: timeout, .. } => timeout.heard,
            _ => matches!(self, Self::Breaker),
        }
    }

    /// How long the level does not poll what it has called.
    pub(super) fn unpolled(&self) -> Duration {
        match self {
            Self::Unpolled(wait) => *wait,
            _ => Duration::ZERO,
        }
    }

    /// Puts the level over `inner`.
    pub(super) fn over(self, mut inner: Any, name: &str, witness: &Witness) -> Any {
        match self {
            Self::Timeout(timeout) => {
                witness.around(name, timeout.layer(name, witness).layer(inner))
            }
            Self::Breaker => witness.around(name, breaker(name, witness).layer(inner)),
            Self::Retry(retry) => boxed(retry.layer(name, witness).layer(inner)),
            Self::Limit(limit) => boxed(limit.layer(name, witness).layer(inner)),
            Self::Five { attempt, limit, retry, total } => {
                let part = |part| format!("{name}-{part}");
                let inner = attempt.layer(&part("attempt"), witness).layer(inner);
                let inner = limit.layer(&part("limit"), witness).layer(inner);
                let inner = breaker(&part("breaker"), witness).layer(inner);
                let inner = retry.layer(&part("retry"), witness).layer(inner);
                witness.around(name, total.layer(name, witness).layer(inner))
            }
            Self::Hesitates(wait) => boxed(service_fn(move |()| after(wait, inner.clone()))),
            Self::Lingers(wait) => boxed(inner.then(move |result| async move {
                sleep(wait).await;
                result
            })),
            Self::Unpolled(wait) => boxed(service_fn(move |()| {
                let future = inner.call(());
                async move {
                    sleep(wait).await;
                    future.await
                }
            })),
            Self::Hedges(wait) => boxed(service_fn(move |()| {
                let hedge = Box::pin(after(wait, inner.clone()));
                let both = future::select_ok([inner.call(()), hedge]);
                async move { both.await.map(|(answer, _)| answer) }
            })),
            Self::Races => boxed(service_fn(move |()| {
                let mut both = FuturesUnordered::from_iter([inner.call(()), inner.call(())]);
                async move {
                    let mut last = Err("no call".into());
                    while let Some(result) = both.next().await {
                        last = result;
                        if last.is_ok() {
                            break;
                        }
                    }
                    last
                }
            })),
            Self::Joins(wait) => boxed(service_fn(move |()| {
                let both = future::join(inner.call(()), after(wait, inner.clone()));
                async move {
                    let (one, two) = both.await;
                    one.and(two)
                }
            })),
            Self::Repeats => boxed(service_fn(move |()| {
                let inner = inner.clone();
                async move {
                    // The second decides.
                    let _ = when_ready(inner.clone()).await;
                    when_ready(inner).await
                }
            })),
            Self::Spawns => boxed(service_fn(move |()| {
                let future = inner.call(());
                async move { tokio::spawn(future).await? }
            })),
            Self::SpawnsInScope => boxed(service_fn(move |()| {
                let mut tasks = JoinSet::new();
                tasks.spawn(Call::current().in_scope(inner.call(())));
                async move { tasks.join_next().await.ok_or("no task")?? }
            })),
            Self::Moves(wait) => boxed(service_fn(move |()| {
                let mut future = inner.call(());
                async move {
                    let polled = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
                    if let Poll::Ready(result) = polled {
                        return result;
                    }
                    let moved = async move {
                        let result = future.await;
                        sleep(wait).await;
                        result
                    };
                    tokio::spawn(moved).await?
                }
            })),
            Self::Buffers => {
                let buffer = boxed(Buffer::new(inner, 4));
                boxed(service_fn(move |()| when_ready(buffer.clone())))
            }
        }
    }
}

async fn after(wait: Duration, inner: Any) -> Result<(), BoxError> {
    sleep(wait).await;
    when_ready(inner).await
}

/// A breaker that never opens: it is here for what it tells.
fn breaker(name: &str, witness: &Witness) -> BreakerLayer {
    BreakerLayer::builder(name.to_owned())
        .minimum_calls(100_000)
        .consecutive_failures(None)
        .observe(witness.clone())
        .build()
        .unwrap()
}

// ===== impl Timeout =====

impl Timeout {
    fn draw(draw: &mut Seed) -> Self {
        Self {
            phase: *draw.pick(&[Phase::Total, Phase::Attempt, Phase::Head]),
            limit: millis(draw.within(1..121)),
            heard: draw.chance(0.75),
        }
    }

    fn layer(self, name: &str, witness: &Witness) -> TimeoutLayer {
        let builder = TimeoutLayer::builder(name.to_owned());
        let builder = match self.phase {
            Phase::Total => builder.total(self.limit),
            Phase::Attempt => builder.attempt(self.limit),
            Phase::Head => builder.head(self.limit),
        };
        let builder = if self.heard { builder.observe(witness.clone()) } else { builder };
        builder.build().unwrap()
    }
}

// ===== impl Retry =====

impl Retry {
    fn draw(draw: &mut Seed) -> Self {
        Self {
            attempts: draw.within(1..4) as u32,
            backoff: millis(5 * draw.within(0..3)),
            heard: draw.chance(0.5),
        }
    }

    fn layer(self, name: &str, witness: &Witness) -> RetryLayer<ByClone> {
        let builder = RetryLayer::builder(name.to_owned(), ByClone::idempotent())
            .max_attempts(self.attempts)
            .no_budget()
            .backoff(Backoff::fixed(self.backoff))
            .jitter(Jitter::None);
        let builder = if self.heard { builder.observe(witness.clone()) } else { builder };
        builder.build().unwrap()
    }
}

// ===== impl Limit =====

impl Limit {
    fn draw(draw: &mut Seed) -> Self {
        Self(millis(draw.within(1..11)))
    }

    fn layer(self, name: &str, witness: &Witness) -> RateLimitLayer {
        RateLimitLayer::builder(name.to_owned())
            .rate(1, self.0)
            .burst(1)
            .max_wait(millis(50))
            .observe(witness.clone())
            .build()
            .unwrap()
    }
}
