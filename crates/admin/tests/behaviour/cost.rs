//! What counting costs.

use std::{sync::Arc, time::Duration};

use portcullis::{
    Call, Course, FaultKind, LayerKind, Outcome, Reason, Replay, State, Voice, What, clock,
};
use portcullis_admin::Admin;

#[test]
fn an_event_of_a_known_target_allocates_nothing() {
    let admin = Admin::builder().build().unwrap();
    let voice = |layer| Voice::new(layer, "shop").with_observer(Arc::new(admin.observer()));
    let voices = [
        LayerKind::Trace,
        LayerKind::Retry,
        LayerKind::RateLimit,
        LayerKind::Breaker,
        LayerKind::Timeout,
        LayerKind::Poll,
    ]
    .map(voice);
    let [trace, retry, limit, breaker, timeout, poll] = &voices;
    let failed = Outcome::failure(FaultKind::Status(503), Replay::Safe);
    let second = Duration::from_secs(1);
    let reason = Reason::Manual;
    let settled = |outcome| What::Settled { outcome, head_after: None, elapsed: second };
    let (call, now) = (Call::new(), clock::now());
    let tell = || {
        let key = Some("shop.test");
        trace.tell(&call, now, || What::Started);
        retry.tell(&call, now, || What::Attempting { attempt: 1 });
        limit.tell_of(key, &call, now, || What::Waited { waited: second, reason });
        limit.tell_of(key, &call, now, || What::Acquired { cost: 1, left: 2 });
        breaker.tell_of(key, &call, now, || What::Admitted { state: State::Closed, reason });
        breaker.tell_of(key, &call, now, || settled(failed));
        breaker.tell(&call, now, || settled(Outcome::Success));
        timeout.tell(&call, now, || settled(failed));
        retry.tell(&call, now, || What::Retrying {
            attempt: 1,
            outcome: failed,
            delay: second,
            reason,
        });
        let ended = Course::Ended { outcome: failed };
        poll.tell(&call, now, || What::Polled { polls: 2, elapsed: second, course: ended });
        breaker.tell_of(key, &call, now, || What::StateChanged {
            from: State::Closed,
            to: State::Open,
            reason,
            open_for: Some(second),
        });
        trace.tell(&call, now, || settled(failed));
        trace.tell(&call, now, || settled(Outcome::Success));
    };
    let first = allocation_counter::measure(tell);
    assert!(first.count_total > 0, "the target, and its breaker, are made");
    let later = allocation_counter::measure(|| (0..1000).for_each(|_| tell()));
    assert_eq!(later.count_total, 0);
}

#[test]
fn threads_that_count_at_once_lose_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let admin = Admin::builder().build().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let voice = Voice::new(LayerKind::Trace, "shop");
                let voice = voice.with_observer(Arc::new(admin.observer()));
                let (call, now) = (Call::new(), clock::now());
                let outcome = Outcome::Success;
                for _ in 0..10_000 {
                    voice.tell(&call, now, || What::Started);
                    let elapsed = Duration::from_millis(3);
                    voice.tell(&call, now, || What::Settled { outcome, head_after: None, elapsed });
                }
            });
        }
    });
    let all = runtime.block_on(crate::read(&admin, "/api/targets"));
    let shop = &all["targets"][0];
    assert_eq!((&shop["started"], &shop["ended"]), (&40_000.into(), &40_000.into()));
    assert_eq!(shop["in_flight"], 0);
}
