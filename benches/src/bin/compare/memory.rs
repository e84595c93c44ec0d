//! What things hold: breakers, keys, idle stacks, and the futures of calls.

use std::{
    borrow::Cow,
    hint::black_box,
    mem,
    task::{Context, Waker},
    time::Duration,
};

use benches::{
    inner::AtOnce,
    scenario::{self, LIMIT, breaker, http_client, limit, retry, stack, timeout, trace},
};
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use portcullis::{
    Stack,
    breaker::{BreakerConfig, BreakerLayer, Handle, Window},
};
use serde::Serialize;
use tower::{Layer, Service};

use crate::{
    measure::Effort,
    peers,
    rows::limits::{ours_keyed, tenants},
    table::number,
};

pub(crate) const GROUP: &str = "memory";

/// Bytes that one of something holds, itself and on the heap.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Held {
    pub(crate) name: String,
    pub(crate) ours_bytes: f64,
    pub(crate) peer: Option<&'static str>,
    pub(crate) peer_bytes: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
}

const TEN_SECONDS: Window = Window::Time(Duration::from_secs(10));

pub(crate) fn measure(effort: Effort) -> Vec<Held> {
    let mut all = breakers(effort);
    all.extend(keys(effort));
    all.extend(stacks());
    all.extend(futures());
    all
}

/// A breaker that has its window full, of calls or of what 10 s leave in it.
fn breakers(effort: Effort) -> Vec<Held> {
    let ours = |window| {
        of_each(10, |_| {
            let mut config = BreakerConfig::default();
            config.window = window;
            Handle::new("bench", config).expect("valid")
        })
    };
    let mut in_use = 0;
    let resilience = |window, calls, in_use: &mut u64| {
        of_each(1, |_| {
            let mut service = peers::resilience_broken(window, AtOnce);
            *in_use = effort.fill(calls, || _ = benches::inner::call(&mut service, ()));
            service
        })
    };
    let small = Window::Count(100);
    let large = Window::Count(100_000);
    vec![
        Held::with_peer(
            "breaker, time window of 10 s",
            ours(TEN_SECONDS),
            "tower-resilience",
            resilience(TEN_SECONDS, 20_000, &mut in_use),
        )
        .noted(format!("the peer's holds {} calls, and grows with them", number(in_use as f64))),
        Held::with_peer(
            "breaker, time window of 10 s",
            ours(TEN_SECONDS),
            "failsafe",
            of_each(10, |_| peers::failsafe(Duration::from_secs(10))),
        ),
        Held::with_peer(
            "breaker, window of 100 calls",
            ours(small),
            "tower-resilience",
            resilience(small, 100, &mut 0),
        )
        .noted("the peer's keeps sums only: its window never slides"),
        Held::with_peer(
            "breaker, window of 100 calls",
            ours(small),
            "recloser",
            of_each(10, |_| peers::recloser(100)),
        ),
        Held::with_peer(
            "breaker, window of 100 000 calls",
            ours(large),
            "recloser",
            of_each(10, |_| peers::recloser(100_000)),
        ),
    ]
}

/// What each key adds, its own text included.
fn keys(effort: Effort) -> Vec<Held> {
    // A million and a hundred thousand, but in a short run.
    let whole = effort.per_side >= Effort::of(10).per_side;
    let (limits, breakers) = if whole { (1_000_000, 100_000) } else { (10_000, 1_000) };

    let names = tenants(limits);
    let ours = per_key(&names, |names| {
        let limiter = ours_keyed(names.len());
        names.iter().for_each(|name| assert!(limiter.try_acquire(name).is_ok()));
        assert_eq!(limiter.len(), names.len());
        limiter
    });
    let governor = per_key(&names, |names| {
        let limiter = peers::governor_keyed();
        names.iter().for_each(|name| assert!(limiter.check_key(name).is_ok()));
        limiter
    });
    let breaker = per_key(&names[..breakers], |names| {
        fn key(key: &String) -> Cow<'_, str> {
            Cow::from(key)
        }
        let keyed = BreakerLayer::keyed("bench", key).max_keys(2 * names.len() + 128);
        let handles = keyed.build().expect("valid").handles();
        names.iter().for_each(|name| drop(handles.get_or_create(name)));
        assert_eq!(handles.len(), names.len());
        handles
    });
    vec![
        Held::with_peer("key of a limiter", ours, "governor", governor)
            .noted(format!("of {} keys of 13 letters", number(limits as f64))),
        Held::alone("key of a breaker", breaker)
            .noted(format!("of {}, time window", number(breakers as f64))),
    ]
}

fn stacks() -> Vec<Held> {
    let http = http_client();
    vec![
        Held::with_peer(
            "idle stack without traces",
            of_each(10, |_| stack(AtOnce)),
            "tower-resilience, four layers",
            of_each(10, |_| peers::resilience_stack::<_, ()>(AtOnce)),
        ),
        Held::alone("idle stack with traces", of_each(10, |_| trace(0.1).layer(stack(AtOnce))))
            .noted("with a recorder of its own, and its queues"),
        Held::alone("idle ready-made stack over HTTP", {
            of_each(10, |_| Stack::production("bench").build().expect("valid").layer(http.clone()))
        })
        .noted("likewise; each host it meets adds the keys above"),
    ]
}

fn futures() -> Vec<Held> {
    let tower = tower::timeout::Timeout::new(AtOnce, LIMIT);
    let http = http_client();
    let request = || Request::new(Full::new(Bytes::from_static(b"a question")));
    let http_alone = future(http.clone(), request);
    let http_stack = Stack::production("bench").build().expect("valid").layer(http);
    let resilience_timeout = future(peers::resilience_timeout().layer(AtOnce), || ());
    let resilience_retry = future(peers::resilience_retry().layer(AtOnce), || ());
    let resilience_limit = future(peers::resilience_limit().layer(AtOnce), || ());
    let resilience_breaker = future(peers::resilience_broken(TEN_SECONDS, AtOnce), || ());
    let resilience_stack = future(peers::resilience_stack(AtOnce), || ());
    let peer = "tower-resilience";
    let ours = |name: &str, bytes| (format!("future of the {name}"), bytes);
    let timeout = ours("timeout", future(timeout().layer(AtOnce), || ()));
    let retry = ours("retry", future(retry().layer(AtOnce), || ()));
    let limit = ours("rate limit", future(limit().layer(AtOnce), || ()));
    let breaker = ours("breaker", future(breaker(TEN_SECONDS).layer(AtOnce), || ()));
    let traced = ours("trace layer", future(trace(0.0).layer(AtOnce), || ()));
    let stack = ours("stack with traces", future(trace(0.0).layer(scenario::stack(AtOnce)), || ()));
    let http = ours("ready-made stack over HTTP", future(http_stack, request));
    vec![
        Held::with_peer(timeout.0.clone(), timeout.1, "tower", future(tower, || ())),
        Held::with_peer(timeout.0, timeout.1, peer, resilience_timeout),
        Held::with_peer(retry.0, retry.1, peer, resilience_retry),
        Held::with_peer(limit.0, limit.1, peer, resilience_limit),
        Held::with_peer(breaker.0, breaker.1, peer, resilience_breaker),
        Held::alone(traced.0, traced.1),
        Held::with_peer(stack.0, stack.1, "tower-resilience, four layers", resilience_stack),
        Held::alone(http.0, http.1).noted(format!("the client's own takes {http_alone} of them")),
    ]
}

// ===== impl Held =====

impl Held {
    fn alone(name: impl Into<String>, ours_bytes: f64) -> Self {
        Self { name: name.into(), ours_bytes, peer: None, peer_bytes: None, note: None }
    }

    fn with_peer(
        name: impl Into<String>,
        ours_bytes: f64,
        peer: &'static str,
        peer_bytes: f64,
    ) -> Self {
        Self { peer: Some(peer), peer_bytes: Some(peer_bytes), ..Self::alone(name, ours_bytes) }
    }

    fn noted(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }
}

/// The bytes of one of so many.
fn of_each<T>(many: usize, mut make: impl FnMut(usize) -> T) -> f64 {
    let mut all = Vec::with_capacity(many);
    let info = allocation_counter::measure(|| all.extend((0..many).map(&mut make)));
    black_box(&all);
    info.bytes_current as f64 / many as f64 + mem::size_of::<T>() as f64
}

/// The bytes of all that is made of these keys, by key.
fn per_key<T>(keys: &[String], make: impl FnOnce(&[String]) -> T) -> f64 {
    let mut made = None;
    let info = allocation_counter::measure(|| made = Some(make(keys)));
    black_box(&made);
    info.bytes_current as f64 / keys.len() as f64
}

/// The bytes of a call's future before it is polled, those it has boxed included.
fn future<S: Service<Req>, Req>(mut service: S, request: impl Fn() -> Req) -> f64 {
    let mut cx = Context::from_waker(Waker::noop());
    // What is made once, such as the state of a new key, is made in these; what is used again is there.
    for _ in 0..2 {
        assert!(service.poll_ready(&mut cx).is_ready());
        drop(service.call(request()));
    }
    assert!(service.poll_ready(&mut cx).is_ready());
    let request = request();
    let mut made = None;
    let info = allocation_counter::measure(|| made = Some(service.call(request)));
    let boxed = info.bytes_current.max(0) as f64;
    made.as_ref().map_or(0, mem::size_of_val) as f64 + boxed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_the_thing_and_its_heap() {
        assert_eq!(of_each(3, |_| Box::new([0_u8; 100])), 108.0);
        assert_eq!(of_each(3, |_| 7_u32), 4.0);
        let keys = ["a".to_owned(), "b".to_owned()];
        assert_eq!(per_key(&keys, |keys| vec![0_u8; 50 * keys.len()]), 50.0);
    }

    #[test]
    fn a_boxed_future_is_counted_with_its_box() {
        use tower::service_fn;
        let ready = || std::future::ready(Ok::<(), ()>(()));
        let bare = future(service_fn(move |()| ready()), || ());
        let boxed = future(service_fn(move |()| Box::pin(ready())), || ());
        assert_eq!(boxed, bare + mem::size_of::<usize>() as f64);
    }
}
