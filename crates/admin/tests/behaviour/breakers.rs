//! Breakers as they are shown, and orders to them.

use std::time::Duration;

use portcullis::{
    FaultKind, Outcome, Registry, Replay, Stack, State,
    breaker::{BreakerConfig, BreakerLayer, Handle},
    ratelimit::Limiter,
};
use portcullis_admin::Admin;
use portcullis_testkit::call as send;
use serde_json::{Value, json};
use tokio::time::advance;
use tower::Layer;

use crate::{answering, ask, get, outgoing, read, with_token};

async fn order(admin: &Admin, path: &str) -> Value {
    let answer = ask(&admin.router(), with_token("POST", path, "t")).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    answer.json()
}

/// What it says of one breaker.
async fn one(admin: &Admin, path: &str) -> Value {
    let all = read(admin, path).await;
    let [breaker] = &all["breakers"].as_array().unwrap()[..] else { panic!("{all}") };
    breaker.clone()
}

#[tokio::test(start_paused = true)]
async fn a_breaker_that_opens_is_told_with_its_numbers_and_its_last_minute() {
    let registry = Registry::new();
    let admin = Admin::builder().registry(&registry).build().unwrap();
    let stack = Stack::production("shop")
        .register_in(&registry)
        .observe(admin.observer())
        .retry(|retry| retry.max_attempts(1))
        .breaker(|breaker| {
            let minute = Duration::from_secs(60);
            breaker.consecutive_failures(3).open_time(minute, minute).jitter(false)
        })
        .build()
        .unwrap();
    let mut client = stack.layer(answering([200, 500, 500, 500]));
    for _ in 0..4 {
        send(&mut client, outgoing("http://shop.test/")).await.unwrap();
        advance(Duration::from_secs(1)).await;
    }
    send(&mut client, outgoing("http://shop.test/")).await.unwrap_err();
    advance(Duration::from_secs(20)).await;

    let shop = one(&admin, "/api/breakers").await;
    assert_eq!(shop["name"], "shop");
    assert_eq!(shop["key"], "shop.test");
    assert_eq!((&shop["state"], &shop["judged"]), (&json!("open"), &json!("open")));
    assert_eq!((&shop["mode"], &shop["shared"]), (&json!("auto"), &json!(false)));
    assert_eq!(shop["for_ms"], 21_000.0);
    assert!(shop["since"].as_str().unwrap().ends_with('Z'));
    assert_eq!(shop["tripped_by"], "3 failures in a row (limit 3)");
    assert_eq!(shop["half_open_in_ms"], 39_000.0);
    assert_eq!(shop["thresholds"]["window"], "60s");
    assert_eq!(shop["thresholds"]["failure_rate"], 0.5);
    assert_eq!(shop["thresholds"]["slow_rate"], Value::Null);
    assert_eq!(shop["probes_needed"], 2);
    let spark = shop["spark"].as_array().unwrap();
    assert_eq!(spark.len(), 60);
    // 24 s ago, and a second apart.
    assert_eq!(
        spark[35..40],
        [json!([1, 0, 0]), json!([0, 1, 0]), json!([0, 1, 0]), json!([0, 1, 0]), json!([0, 0, 1])]
    );
    let zero = json!([0, 0, 0]);
    assert!(spark[..35].iter().chain(&spark[40..]).all(|second| *second == zero));
}

#[tokio::test(start_paused = true)]
async fn orders_go_to_one_key_or_to_all_of_a_name() {
    let registry = Registry::new();
    let stack = Stack::production("shop").register_in(&registry).build().unwrap();
    let handles = stack.breaker().handles();
    for key in ["a", "b"] {
        let _ = handles.get_or_create(key);
    }
    let single = Handle::new("mail", BreakerConfig::default()).unwrap();
    registry.insert("mail", single.clone());
    let admin = Admin::builder().registry(&registry).token("t").build().unwrap();

    let told = order(&admin, "/api/breakers/shop/open?key=b").await;
    assert_eq!(told["breakers"][0]["state"], "forced-open");
    assert_eq!(told["breakers"].as_array().unwrap().len(), 1);
    let states = |all: &Value| -> Vec<String> {
        let all = all["breakers"].as_array().unwrap().iter();
        all.map(|it| format!("{} {} {}", it["name"], it["key"], it["state"])).collect()
    };
    assert_eq!(
        states(&read(&admin, "/api/breakers").await),
        [r#""mail" null "closed""#, r#""shop" "a" "closed""#, r#""shop" "b" "forced-open""#]
    );
    order(&admin, "/api/breakers/shop/close").await;
    assert!(handles.all().iter().all(|(_, it)| it.state().as_str() == "forced-closed"));
    assert_eq!(handles.overflow().state().as_str(), "forced-closed");
    order(&admin, "/api/breakers/shop/auto").await;
    assert!(handles.all().iter().all(|(_, it)| it.state().as_str() == "closed"));

    order(&admin, "/api/breakers/mail/open").await;
    let before = single.snapshot().generation;
    order(&admin, "/api/breakers/mail/reset").await;
    assert_eq!(single.state().as_str(), "closed");
    assert!(single.snapshot().generation > before);
}

#[tokio::test(start_paused = true)]
async fn names_and_keys_are_whatever_somebody_made_them() {
    let registry = Registry::new();
    let admin = Admin::builder().registry(&registry).token("t").build().unwrap();
    for (name, path) in [
        ("a/b", "a%2Fb"),
        ("../..", "..%2F.."),
        ("\"><script>", "%22%3E%3Cscript%3E"),
        ("naïve 😀?#&", "na%C3%AFve%20%F0%9F%98%80%3F%23%26"),
        ("100%", "100%25"),
        ("reset", "reset"),
        ("\u{0}\n", "%00%0A"),
    ] {
        let layer = BreakerLayer::keyed(name.to_owned(), |key: &String| key.into());
        let handles = layer.build().unwrap().handles();
        let handle = handles.get_or_create(name);
        registry.insert(name, handles.clone());
        let told = one(&admin, &format!("/api/breakers/{path}?key={path}")).await;
        assert_eq!((&told["name"], &told["key"]), (&json!(name), &json!(name)));
        order(&admin, &format!("/api/breakers/{path}/open?key={path}")).await;
        assert_eq!(handle.state().as_str(), "forced-open", "{name:?}");
    }
    let broken = get(&admin, "/api/breakers/%FF%FE").await;
    assert_eq!(broken.status, 400);
    broken.problem();
}

#[tokio::test]
async fn what_nobody_registered_is_not_found() {
    let registry = Registry::new();
    let stack = Stack::production("shop").register_in(&registry).build().unwrap();
    let admin = Admin::builder().registry(&registry).token("t").build().unwrap();
    let nobody = get(&admin, &format!("/api/breakers/{}", "x".repeat(5000))).await;
    assert_eq!(nobody.status, 404);
    assert!(nobody.problem().len() < 200);
    assert_eq!(get(&admin, "/api/breakers/shop?key=a").await.status, 404);
    assert_eq!(stack.breaker().handles().len(), 0, "looking makes none");
    let unknown = ask(&admin.router(), with_token("POST", "/api/breakers/shop/explode", "t")).await;
    assert_eq!(unknown.status, 404);
    let long = get(&admin, &format!("/api/breakers/shop?key={}", "x".repeat(10_000))).await;
    assert_eq!(long.status, 404);
    assert!(long.problem().len() < 200);
}

#[tokio::test]
async fn a_breaker_is_ordered_about_whatever_its_key() {
    let registry = Registry::new();
    let stack = Stack::production("shop").register_in(&registry).build().unwrap();
    let admin = Admin::builder().registry(&registry).token("t").build().unwrap();
    let long = "x".repeat(10_000);
    for key in ["", "?&=#%2F+ /", "é\n\"", &long] {
        let handle = stack.breaker().handles().get_or_create(key);
        let query: String = form_urlencoded::byte_serialize(key.as_bytes()).collect();
        let order = format!("/api/breakers/shop/open?key={query}");
        let answer = ask(&admin.router(), with_token("POST", &order, "t")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(answer.json()["breakers"].as_array().unwrap().len(), 1);
        assert_eq!(answer.json()["breakers"][0]["key"], key);
        assert_eq!(handle.state(), State::ForcedOpen);
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_minute_leaves_out_what_says_nothing_of_the_peer() {
    let registry = Registry::new();
    let admin = Admin::builder().registry(&registry).build().unwrap();
    let layer = BreakerLayer::builder("peer").observe(admin.observer()).build().unwrap();
    registry.insert("peer", layer.handle().clone());
    let refused = Outcome::failure(FaultKind::Rejected, Replay::Safe);
    for outcome in [Outcome::Success, refused, Outcome::Ignored, Outcome::timeout()] {
        layer.handle().admit().unwrap().settle(outcome);
    }
    let peer = one(&admin, "/api/breakers/peer").await;
    assert_eq!((&peer["calls"], &peer["failures"]), (&json!(2), &json!(1)));
    assert_eq!(peer["spark"][59], json!([1, 1, 0]));
}

#[tokio::test(start_paused = true)]
async fn since_is_told_of_the_state_that_it_is_in_only() {
    let registry = Registry::new();
    let admin = Admin::builder().registry(&registry).build().unwrap();
    let layer = BreakerLayer::keyed("many", |key: &String| key.into());
    let layer = layer.max_keys(1).observe(admin.observer()).build().unwrap();
    let breakers = layer.handles();
    registry.insert("many", breakers.clone());
    for _ in 0..10 {
        let Ok(call) = breakers.get_or_create("a").admit() else { break };
        call.settle(Outcome::timeout());
    }
    advance(Duration::from_secs(600)).await;
    let open = read(&admin, "/api/breakers/many").await;
    assert_eq!(open["breakers"][0]["for_ms"], 600_000.0);
    // Forgotten for another key, and made anew.
    let _ = breakers.get_or_create("b");
    let _ = breakers.get_or_create("a");
    let anew = read(&admin, "/api/breakers").await;
    assert_eq!(anew["breakers"][0]["state"], "closed");
    assert_eq!(
        (&anew["breakers"][0]["since"], &anew["breakers"][0]["for_ms"]),
        (&json!(null), &json!(null))
    );
}

#[tokio::test(start_paused = true)]
async fn the_breaker_that_keys_share_is_shown_once_it_is_needed() {
    let registry = Registry::new();
    let layer = BreakerLayer::keyed("many", |key: &String| key.into()).max_keys(1);
    let handles = layer.build().unwrap().handles();
    registry.insert("many", handles.clone());
    let admin = Admin::builder().registry(&registry).build().unwrap();
    handles.get_or_create("a").force_open();
    assert_eq!(one(&admin, "/api/breakers").await["key"], "a");
    handles.get_or_create("b").admit().unwrap().settle(Outcome::Success);
    let all = read(&admin, "/api/breakers").await;
    let shared = &all["breakers"][0];
    assert_eq!((&shared["key"], &shared["shared"]), (&json!("(overflow)"), &json!(true)));
    assert_eq!(shared["calls"], 1);
}

#[tokio::test(start_paused = true)]
async fn of_more_breakers_than_a_list_holds_those_not_closed_go_first() {
    let registry = Registry::new();
    let layer = BreakerLayer::keyed("many", |key: &String| key.into()).max_keys(4000);
    let handles = layer.build().unwrap().handles();
    registry.insert("many", handles.clone());
    for key in 0..1500 {
        let _ = handles.get_or_create(&format!("{key:04}"));
    }
    handles.get_or_create("1499").force_open();
    let admin = Admin::builder().registry(&registry).build().unwrap();
    let all = read(&admin, "/api/breakers").await;
    assert_eq!(all["omitted"], 500);
    let all = all["breakers"].as_array().unwrap();
    assert_eq!(all.len(), 1000);
    assert!(all.iter().any(|it| it["key"] == "1499"));
    assert!(all.is_sorted_by_key(|it| it["key"].as_str().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn limits_are_shown_with_what_is_left() {
    let registry = Registry::new();
    let second = Duration::from_secs(1);
    let single = Limiter::builder("all").rate(10, second).burst(3).build().unwrap();
    let keyed = Limiter::builder("user").rate(1, second).burst(1).build_keyed().unwrap();
    registry.insert("all", single.clone());
    registry.insert("user", keyed.clone());
    let admin = Admin::builder().registry(&registry).build().unwrap();
    single.try_acquire().unwrap();
    keyed.try_acquire("ada").unwrap();
    single.hint(5 * second);
    let limits = read(&admin, "/api/limits").await;
    assert_eq!(
        limits["limits"][1],
        json!({
            "name": "user", "key": "ada", "shared": false, "limit": 1, "per_ms": 1000.0,
            "burst": 1, "left": 0, "wait_ms": 1000.0, "held": false,
        })
    );
    let all = &limits["limits"][0];
    assert_eq!(
        (&all["name"], &all["key"], &all["held"]),
        (&json!("all"), &json!(null), &json!(true))
    );
    assert_eq!(all["wait_ms"], 5000.0);
    assert_eq!(limits["omitted"], 0);
}
