//! A limit for each key, and several at once.

use std::borrow::Cow;

use portcullis_core::{Call, Rejection, call as overrides, clock};
use portcullis_ratelimit::{Limiter, Limits, RateLimitLayer};
use portcullis_testkit::call;
use tokio::time::advance;
use tower_layer::Layer;

use crate::{SECOND, Told, inner, limited, limiter};

fn key<'r>(req: &'r &'static str) -> Cow<'r, str> {
    Cow::from(*req)
}

#[tokio::test(start_paused = true)]
async fn each_key_has_its_limit_and_the_callers_key_goes_first() {
    let layer = RateLimitLayer::keyed("users", key).rate(1, SECOND).burst(1).build().unwrap();
    let mut service = layer.layer(inner());
    call(&mut service, "ada").await.unwrap();
    let error = call(&mut service, "ada").await.unwrap_err();
    assert_eq!(limited(&error).key(), Some("ada"));
    assert_eq!(error.to_string(), "users [ada]: limit of 1 in 1s (burst 1); try again in 1.0s");
    call(&mut service, "grace").await.unwrap();
    overrides::with().key("tenant-7").run(call(&mut service, "ada")).await.unwrap();
    assert_eq!(layer.limiters().len(), 3);
    assert_eq!(layer.limiters().get("tenant-7").unwrap().snapshot().left, 0);
}

#[tokio::test(start_paused = true)]
async fn a_key_is_forgotten_only_when_its_backlog_has_drained() {
    let limiters = limiter(2).max_keys(2).build_keyed().unwrap();
    limiters.try_acquire("a").unwrap();
    limiters.try_acquire_n("b", 2).unwrap();
    tokio::time::advance(SECOND).await;
    limiters.try_acquire("c").unwrap();
    assert!(limiters.get("a").is_none() && limiters.get("b").is_some());
    assert_eq!(limiters.limiter("b").snapshot().left, 1);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_nobody_has_in_hand_any_more_keeps_what_passed_from_clocks_read_before() {
    let limiters = limiter(1).build_keyed().unwrap();
    advance(SECOND).await;
    let read = clock::now();
    limiters.limiter("ada").try_acquire().unwrap();
    advance(SECOND).await;
    // All that passed has drained, and this takes nothing.
    assert!(limiters.try_acquire_n("ada", 2).unwrap_err().is_permanent());
    let _ = Call::new().enter(read, || limiters.try_acquire("ada").unwrap());
    assert!(limiters.try_acquire("ada").is_err());
}

#[tokio::test(start_paused = true)]
async fn a_key_that_somebody_has_in_hand_is_not_forgotten() {
    let limiters = limiter(1).max_keys(1).build_keyed().unwrap();
    let ada = limiters.limiter("ada");
    let _ = limiters.limiter("grace");
    assert!(limiters.get("ada").is_some());
    drop(ada);
    let _ = limiters.limiter("grace");
    assert!(limiters.get("ada").is_none() && limiters.get("grace").is_some());
}

#[tokio::test(start_paused = true)]
async fn looking_at_all_keys_takes_none_in_hand() {
    let limiters = limiter(2).max_keys(2).build_keyed().unwrap();
    limiters.try_acquire("ada").unwrap();
    limiters.try_acquire_n("grace", 2).unwrap();
    let mut all = limiters.snapshots(10);
    all.sort_by(|a, b| a.0.cmp(&b.0));
    let left: Vec<_> = all.iter().map(|(key, it)| (&**key, it.left)).collect();
    assert_eq!(left, [("ada", 1), ("grace", 0)]);
    assert_eq!(limiters.snapshots(1).len(), 1);

    tokio::time::advance(2 * SECOND).await;
    limiters.try_acquire("joan").unwrap();
    assert_eq!(limiters.len(), 2, "one of them was forgotten for the new one");
    assert!(limiters.get("joan").is_some());
}

#[tokio::test(start_paused = true)]
async fn when_all_keys_are_busy_new_ones_share_a_limit_and_it_is_told() {
    let told = Told::default();
    let limiters = limiter(2).max_keys(1).observe(told.observer()).build_keyed().unwrap();
    limiters.try_acquire("ada").unwrap();
    told.take();
    limiters.try_acquire("grace").unwrap();
    assert_eq!(
        told.take(),
        [
            "ratelimit search [grace]: shares the overflow entry: all 1 keys are in use and none may \
             be evicted",
            "ratelimit search [(overflow)]: took 1, 1 left",
        ]
    );
    limiters.try_acquire("edsger").unwrap();
    assert_eq!(limiters.try_acquire("grace").unwrap_err().key(), Some("(overflow)"));

    // There is room again: a key starts where the limit it shared stands.
    tokio::time::advance(SECOND).await;
    limiters.try_acquire("grace").unwrap();
    assert_eq!(limiters.get("grace").unwrap().snapshot().left, 0);
}

#[tokio::test(start_paused = true)]
async fn several_limits_at_once_are_all_or_nothing() {
    let told = Told::default();
    let everybody = Limiter::builder("everybody").rate(1, SECOND).burst(3).build().unwrap();
    let hosts = Limiter::builder("hosts").rate(1, SECOND).burst(1).build_keyed().unwrap();
    let layer = RateLimitLayer::keyed("users", |_: &&'static str| Cow::from("ada"))
        .rate(1, SECOND)
        .burst(2)
        .observe(told.observer())
        .and_keyed(hosts.clone(), key)
        .and(everybody.clone())
        .build()
        .unwrap();
    let mut service = layer.layer(inner());
    call(&mut service, "north").await.unwrap();
    let error = call(&mut service, "north").await.unwrap_err();
    assert_eq!(limited(&error).name(), "hosts");
    assert_eq!(everybody.snapshot().left, 2);

    call(&mut service, "south").await.unwrap();
    let error = call(&mut service, "west").await.unwrap_err();
    assert_eq!((limited(&error).name(), limited(&error).key()), ("users", Some("ada")));
    assert_eq!(everybody.snapshot().left, 1);
    assert_eq!(hosts.limiter("west").snapshot().left, 1);

    // The caller's key is for the first.
    overrides::with().key("grace").run(call(&mut service, "west")).await.unwrap();
    let error = overrides::with().key("edsger").run(call(&mut service, "east")).await.unwrap_err();
    assert_eq!(limited(&error).name(), "everybody");
    assert_eq!(hosts.limiter("east").snapshot().left, 1);
}

#[tokio::test(start_paused = true)]
async fn of_several_that_refuse_the_slowest_speaks() {
    let slow = Limiter::builder("slow").rate(1, 60 * SECOND).burst(1).build().unwrap();
    let fast = limiter(1).build().unwrap();
    let both = Limits::all([fast.clone(), slow.clone()]).unwrap();
    let receipt = both.try_acquire().unwrap();
    let refused = both.try_acquire().unwrap_err();
    assert_eq!((refused.name(), refused.retry_after()), ("slow", Some(60 * SECOND)));
    receipt.settle(0);
    assert_eq!((slow.snapshot().left, fast.snapshot().left), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn there_may_be_four_limits() {
    let four = || (0..4).map(|_| limiter(1).build().unwrap());
    assert!(Limits::all(four()).unwrap().try_acquire().is_ok());
    assert_eq!(Limits::all(four().take(0)).unwrap_err().field(), "limits");
    assert_eq!(Limits::all(four().chain(four())).unwrap_err().field(), "limits");

    let [a, b, c, d] = [(); 4].map(|()| limiter(1).build().unwrap());
    let more = RateLimitLayer::builder("own").and(a).and(b).and(c);
    assert!(more.clone().build().is_ok());
    assert_eq!(more.and(d).build().unwrap_err().field(), "limits");
}
