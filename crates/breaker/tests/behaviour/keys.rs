//! Keys, handles and settings.

use std::{borrow::Cow, time::Duration};

use portcullis_breaker::{BreakerConfig, BreakerLayer, Engine, Handle, Mode, Open, Ramp, Window};
use portcullis_core::{Outcome, Registry, State, call as overrides, clock};
use portcullis_testkit::{TestError, call};
use tower_layer::Layer;

use crate::{SECOND, Told, inner, open};

#[tokio::test(start_paused = true)]
async fn each_key_has_its_breaker_and_the_callers_key_goes_first() {
    let layer = BreakerLayer::keyed("upstream", |req: &&'static str| Cow::Borrowed(*req))
        .consecutive_failures(2)
        .build()
        .unwrap();
    let (mut service, handles) = (layer.layer(inner()), layer.handles());
    for _ in 0..2 {
        call(&mut service, "fail").await.unwrap_err();
    }
    let error = call(&mut service, "fail").await.unwrap_err();
    assert_eq!(open(&error).key(), Some("fail"));
    assert!(error.to_string().starts_with("upstream [fail]: open, 2 failures"));
    call(&mut service, "ok").await.unwrap();

    let other = overrides::with().key("tenant-7").run(call(&mut service, "fail")).await;
    assert!(other.unwrap_err().is::<TestError>());
    assert_eq!(handles.get("tenant-7").unwrap().snapshot().counts.failures, 1);
    assert_eq!(handles.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_nobody_asks_for_any_more_gives_way_once_its_open_time_is_over() {
    let layer = BreakerLayer::keyed("upstream", |req: &&'static str| Cow::Borrowed(*req))
        .consecutive_failures(1)
        .open_time(SECOND, SECOND)
        .max_keys(1)
        .build()
        .unwrap();
    let handles = layer.handles();
    call(&mut layer.layer(inner()), "fail").await.unwrap_err();
    assert_eq!(handles.get("fail").unwrap().state(), State::Open);
    call(&mut layer.layer(inner()), "ok").await.unwrap();
    assert!(handles.get("ok").is_none(), "it is still open");

    tokio::time::advance(SECOND).await;
    call(&mut layer.layer(inner()), "ok").await.unwrap();
    assert_eq!(handles.get("ok").unwrap().snapshot().counts.total, 1);
}

#[tokio::test(start_paused = true)]
async fn one_that_was_built_to_let_calls_pass_gives_way() {
    for mode in [Mode::Disabled, Mode::ForcedClosed] {
        let layer = BreakerLayer::keyed("upstream", |req: &&'static str| Cow::Borrowed(*req))
            .mode(mode)
            .max_keys(1)
            .build()
            .unwrap();
        let handles = layer.handles();
        for key in ["a", "b"] {
            let _ = handles.get_or_create(key);
            assert!(handles.get(key).is_some());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn closed_breakers_give_way_to_new_keys_and_open_ones_do_not() {
    let told = Told::default();
    let layer = BreakerLayer::keyed("upstream", |req: &&'static str| Cow::Borrowed(*req))
        .max_keys(2)
        .observe(told.observer())
        .build()
        .unwrap();
    let handles = layer.handles();
    handles.get_or_create("a").force_open();
    for key in ["b", "c", "d"] {
        let _ = handles.get_or_create(key);
    }
    let mut keys: Vec<_> = handles.all().into_iter().map(|(key, _)| key.to_string()).collect();
    keys.sort();
    assert_eq!(keys, ["a", "d"]);

    handles.get_or_create("d").force_open();
    told.take();
    call(&mut layer.layer(inner()), "ok").await.unwrap();
    assert_eq!(
        told.take()[0],
        "breaker upstream [ok]: shares the overflow entry: all 2 keys are in use and none may be \
         evicted"
    );
    assert_eq!(handles.overflow().snapshot().counts.total, 1);
    handles.get_or_create("d").reset();
    let _ = handles.get_or_create("e");
    assert!(handles.get("e").is_some());
}

#[test]
fn a_registry_gets_or_creates() {
    let registry = Registry::new();
    let get = |config: BreakerConfig| {
        registry.get_or_try_insert_with("search", || Handle::new("search", config))
    };
    let mut bad = BreakerConfig::default();
    bad.probes = 0;
    assert_eq!(get(bad).unwrap_err().field(), "probes");
    get(BreakerConfig::default()).unwrap().force_open();
    assert_eq!(get(BreakerConfig::default()).unwrap().state(), State::ForcedOpen);
    assert_eq!(registry.all::<Handle>().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn one_handle_serves_several_layers_and_plain_code() {
    let handle = Handle::new("search", BreakerConfig::default()).unwrap();
    let (one, two) = (BreakerLayer::new(handle.clone()), BreakerLayer::new(handle.clone()));
    for _ in 0..2 {
        call(&mut one.layer(inner()), "fail").await.unwrap_err();
        call(&mut two.layer(inner()), "fail").await.unwrap_err();
    }
    handle.admit().unwrap().settle(Outcome::timeout());
    assert!(handle.admit().unwrap_err().is::<Open>());
    assert!(call(&mut one.layer(inner()), "ok").await.unwrap_err().is::<Open>());
}

#[test]
fn settings_out_of_range_are_named() {
    type Set = fn(&mut BreakerConfig);
    let cases: [(&str, Set); 15] = [
        ("window", |c| c.window = Window::Time(Duration::from_millis(99))),
        ("window", |c| c.window = Window::Count(0)),
        ("window", |c| c.window = Window::Count(1_000_001)),
        ("minimum_calls", |c| c.minimum_calls = 0),
        ("minimum_calls", |c| c.window = Window::Count(19)),
        ("consecutive_failures", |c| c.consecutive_failures = Some(0)),
        ("failure_rate", |c| c.failure_rate = Some(f64::NAN)),
        ("slow_rate", |c| (c.slow_rate, c.slow_threshold) = (Some(1.1), Some(SECOND))),
        ("slow_threshold", |c| c.slow_rate = Some(0.5)),
        ("open_initial", |c| c.open_initial = 301 * SECOND),
        ("open_cap", |c| c.open_cap = Duration::MAX),
        ("probe_successes", |c| c.probe_successes = 0),
        ("max_wait", |c| c.max_wait = Duration::ZERO),
        ("ramp.aggression", |c| c.ramp = Some(Ramp { over: SECOND, aggression: 0.0 })),
        ("max_keys", |c| c.max_keys = 0),
    ];
    for (field, set) in cases {
        let mut config = BreakerConfig::default();
        set(&mut config);
        let invalid = BreakerLayer::builder("x").config(config.clone()).build().unwrap_err();
        assert_eq!(invalid.field(), field);
        assert_eq!(Engine::new(config, clock::now()).unwrap_err(), invalid);
    }
}

#[cfg(feature = "serde")]
#[test]
fn settings_come_from_files() {
    use portcullis_breaker::{Abandoned, Mode};

    let text = r#"{"window": {"time": "30s"}, "failure_rate": "off", "open_initial": "5s",
        "abandoned": {"after": "2s"}, "ramp": {"over": "1m"}, "mode": "disabled"}"#;
    let config: BreakerConfig = serde_json::from_str(text).unwrap();
    let mut expected = BreakerConfig::default();
    expected.window = Window::Time(30 * SECOND);
    expected.failure_rate = None;
    expected.open_initial = 5 * SECOND;
    expected.abandoned = Abandoned::After(2 * SECOND);
    expected.ramp = Some(Ramp::new(60 * SECOND));
    expected.mode = Mode::Disabled;
    assert_eq!(config, expected);
    let back = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<BreakerConfig>(&back).unwrap(), config);
    assert!(serde_json::from_str::<BreakerConfig>(r#"{"failure_ratio": 0.5}"#).is_err());
}
