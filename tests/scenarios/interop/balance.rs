//! Under a balancer: an endpoint whose breaker is open is not asked, and comes back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use portcullis::{
    State,
    breaker::{BreakerLayer, Handle, WhenOpen},
    clock,
};
use tower::{
    Layer, Service, ServiceExt, balance::p2c::Balance, discover::ServiceList, load::Constant,
    service_fn, util::BoxService,
};

const OPEN_FOR: Duration = Duration::from_secs(5);

type Endpoint = Constant<BoxService<u32, &'static str, portcullis::Error>, u32>;

/// An endpoint that answers with its name, or fails while it is `down`.
struct Peer {
    name: &'static str,
    down: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    breaker: Handle,
}

impl Peer {
    fn new(name: &'static str, down: bool) -> (Self, Endpoint) {
        let layer = BreakerLayer::builder(name)
            .consecutive_failures(2)
            .failure_rate(None)
            .open_time(OPEN_FOR, OPEN_FOR)
            .jitter(false)
            .probes(1, 1)
            .when_open(WhenOpen::NotReady)
            .build()
            .unwrap();
        let (down, asked) = (Arc::new(AtomicBool::new(down)), Arc::default());
        let peer = Self { name, down, asked, breaker: layer.handle() };
        let (is_down, count) = (peer.down.clone(), Arc::clone(&peer.asked));
        let service = service_fn(move |_: u32| {
            count.fetch_add(1, Ordering::Relaxed);
            let down = is_down.load(Ordering::Relaxed);
            async move { if down { Err("down") } else { Ok(name) } }
        });
        let boxed = BoxService::new(layer.layer(service));
        (peer, Constant::new(boxed, 1))
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

#[tokio::test(start_paused = true)]
async fn a_balancer_looks_elsewhere_while_one_breaker_is_open_and_comes_back_after() {
    let (a, at_a) = Peer::new("a", true);
    let (b, at_b) = Peer::new("b", false);
    let mut balance = Balance::new(ServiceList::new::<u32>(vec![at_a, at_b]));
    let mut failed = 0;
    for number in 0..200 {
        match balance.ready().await.unwrap().call(number).await {
            Ok(name) => assert_eq!(name, b.name),
            Err(error) => {
                failed += 1;
                assert_eq!(error.to_string(), "down", "and none is a refusal of ours");
            }
        }
    }
    assert_eq!((a.breaker.state(), a.asked(), failed), (State::Open, 2, 2));
    assert_eq!(b.asked(), 198, "one is refused nothing, for the other is there");

    a.down.store(false, Ordering::Relaxed);
    tokio::time::advance(OPEN_FOR).await;
    for number in 0..200 {
        balance.ready().await.unwrap().call(number).await.unwrap();
    }
    assert_eq!(a.breaker.state(), State::Closed);
    assert!(a.asked() > 50 && b.asked() > 250, "{} and {}", a.asked(), b.asked());
}

#[tokio::test(start_paused = true)]
async fn with_every_breaker_open_a_balancer_waits_until_the_first_lets_a_probe_through() {
    let (a, at_a) = Peer::new("a", true);
    let (b, at_b) = Peer::new("b", true);
    let mut balance = Balance::new(ServiceList::new::<u32>(vec![at_a, at_b]));
    for number in 0..4 {
        balance.ready().await.unwrap().call(number).await.unwrap_err();
    }
    assert_eq!((a.breaker.state(), b.breaker.state()), (State::Open, State::Open));

    a.down.store(false, Ordering::Relaxed);
    b.down.store(false, Ordering::Relaxed);
    let start = clock::now();
    let answer = balance.ready().await.unwrap().call(9).await.unwrap();
    assert!(answer == a.name || answer == b.name);
    assert_eq!(clock::now() - start, OPEN_FOR, "woken, and neither refused nor asked too soon");
}
