//! What a check beside the calls tells a breaker.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use portcullis_breaker::{BreakerLayer, HealthCheck, WhenOpen};
use portcullis_core::{Event, Reason, State, What, sync::Mutex};
use portcullis_testkit::{call, ready};
use tokio::{
    task::JoinHandle,
    time::{Instant, advance, sleep, timeout},
};

use crate::{SECOND, builder, open, service, trip};

/// A peer that is well or not, and counts how often it was asked.
#[derive(Clone, Default)]
struct Peer {
    is_well: Arc<AtomicBool>,
    asked: Arc<AtomicU32>,
}

// ===== impl Peer =====

impl Peer {
    fn set(&self, is_well: bool) {
        self.is_well.store(is_well, Ordering::Relaxed);
    }

    /// Checked every second, by two failures and two successes.
    fn checked(&self, handle: &portcullis_breaker::Handle) -> JoinHandle<()> {
        let peer = self.clone();
        let check = HealthCheck::builder(handle, move || peer.clone().ping());
        let check = check.interval(SECOND).failures(2).successes(2).build().unwrap();
        tokio::spawn(check.run())
    }

    async fn ping(self) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.is_well.load(Ordering::Relaxed)
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_no_call_has_met_opens_the_breaker_and_its_end_lets_probes_through() {
    let (peer, told) = (Peer::default(), Arc::new(Mutex::new(Vec::new())));
    let changes = told.clone();
    let observed = builder().observe(move |event: &Event<'_>| {
        if let What::StateChanged { to, reason, .. } = event.what {
            changes.lock().push((to, reason));
        }
    });
    let (mut service, handle) = service(observed);
    let _check = peer.checked(&handle);
    sleep(SECOND / 2).await;
    assert_eq!(handle.state(), State::Closed, "one failure is not two in a row");
    sleep(SECOND).await;
    assert_eq!(handle.state(), State::Open);
    let refused = call(&mut service, "ok").await.unwrap_err();
    assert_eq!(open(&refused).tripped_by().to_string(), "2 health checks in a row failed");

    peer.set(true);
    sleep(SECOND).await;
    assert_eq!(handle.state(), State::Open);
    sleep(SECOND).await;
    assert_eq!(handle.state(), State::HalfOpen, "seven seconds before its time");
    for _ in 0..2 {
        call(&mut service, "ok").await.unwrap();
    }
    assert_eq!(handle.state(), State::Closed);
    let reasons: Vec<_> = told.lock().iter().map(|(_, reason)| *reason).collect();
    assert_eq!(
        reasons,
        [
            Reason::ChecksFailed { count: 2 },
            Reason::ChecksSucceeded { count: 2 },
            Reason::ProbesSucceeded { succeeded: 2, threshold: 2 },
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_check_that_was_well_all_along_does_not_shorten_the_open_time() {
    let peer = Peer::default();
    peer.set(true);
    let (mut service, handle) = service(builder());
    let _check = peer.checked(&handle);
    trip(&mut service, &handle).await;
    sleep(9 * SECOND).await;
    assert!(peer.asked.load(Ordering::Relaxed) >= 9);
    assert_eq!(handle.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn calls_have_the_last_word() {
    let peer = Peer::default();
    let (mut service, handle) = service(builder());
    let _check = peer.checked(&handle);
    sleep(3 * SECOND / 2).await;
    assert_eq!(handle.state(), State::Open);
    peer.set(true);
    sleep(2 * SECOND).await;
    assert_eq!(handle.state(), State::HalfOpen);
    call(&mut service, "fail").await.unwrap_err();
    assert_eq!(handle.state(), State::Open);
    sleep(5 * SECOND).await;
    assert_eq!(handle.state(), State::Open, "it was well all along, since");
}

#[tokio::test(start_paused = true)]
async fn orders_stand_above_a_check() {
    let peer = Peer::default();
    let (_service, handle) = service(builder());
    let _check = peer.checked(&handle);
    handle.force_closed();
    sleep(10 * SECOND).await;
    assert_eq!(handle.state(), State::ForcedClosed);
    assert_eq!(handle.snapshot().judged, State::Closed);
    handle.force_open();
    peer.set(true);
    sleep(10 * SECOND).await;
    assert_eq!(handle.state(), State::ForcedOpen);

    peer.set(false);
    handle.disable();
    sleep(10 * SECOND).await;
    assert_eq!(handle.state(), State::Disabled);
    assert_eq!(handle.snapshot().judged, State::Open, "in shadow");
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_breaker_to_let_calls_through_is_woken() {
    let peer = Peer::default();
    let (mut service, handle) = service(builder().when_open(WhenOpen::NotReady));
    let _check = peer.checked(&handle);
    sleep(3 * SECOND / 2).await;
    peer.set(true);
    let began = Instant::now();
    timeout(60 * SECOND, ready(&mut service)).await.unwrap().unwrap();
    assert!(began.elapsed() < 3 * SECOND, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_check_that_hangs_has_failed_and_a_dropped_one_asks_no_more() {
    let (_service, handle) = service(builder());
    let check = HealthCheck::builder(&handle, pending::<bool>).timeout(SECOND).failures(1);
    let task = tokio::spawn(check.build().unwrap().run());
    sleep(2 * SECOND).await;
    assert_eq!(handle.state(), State::Open);
    task.abort();

    let peer = Peer::default();
    let task = peer.checked(&handle);
    sleep(5 * SECOND / 2).await;
    task.abort();
    advance(60 * SECOND).await;
    assert_eq!(peer.asked.load(Ordering::Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn the_breaker_of_a_key_is_found_again_each_time() {
    let layer = BreakerLayer::keyed("hosts", |key: &&'static str| (*key).into()).max_keys(1);
    let handles = layer.build().unwrap().handles();
    let peer = Peer::default();
    let asked = peer.clone();
    let check = HealthCheck::of_key(&handles, "a.test", move || asked.clone().ping());
    let check = check.interval(SECOND).failures(1).build().unwrap();
    assert!(format!("{check:?}").contains("a.test"));
    let _check = tokio::spawn(check.run());
    sleep(SECOND / 2).await;
    assert_eq!(handles.get("a.test").unwrap().state(), State::Open);
    peer.set(true);
    sleep(SECOND).await;
    assert_eq!(handles.get("a.test").unwrap().state(), State::HalfOpen);

    // There is no room: the breaker that keys share is not this peer's.
    handles.get("a.test").unwrap().reset();
    handles.get_or_create("b.test").force_open();
    assert!(handles.get("a.test").is_none());
    peer.set(false);
    sleep(5 * SECOND).await;
    assert_eq!(handles.overflow().state(), State::Closed);
}

#[test]
fn a_setting_out_of_its_range_is_named() {
    let (_service, handle) = service(builder());
    let check = || HealthCheck::builder(&handle, || async { true });
    for (check, field) in [
        (check().interval(Duration::ZERO), "interval"),
        (check().interval(SECOND * 86_401), "interval"),
        (check().timeout(Duration::ZERO), "timeout"),
        (check().failures(0), "failures"),
        (check().successes(0), "successes"),
    ] {
        assert_eq!(check.build().unwrap_err().field(), field);
    }
}
