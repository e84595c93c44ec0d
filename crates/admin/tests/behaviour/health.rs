//! Whether all is well.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use portcullis::{Registry, Stack};
use portcullis_admin::Admin;
use portcullis_testkit::call as send;
use serde_json::{Value, json};
use tower::Layer;

use crate::{answering, get, outgoing, read};

#[tokio::test(start_paused = true)]
async fn an_open_breaker_degrades_and_the_program_still_answers_200() {
    let registry = Registry::new();
    let admin = Admin::builder().registry(&registry).build().unwrap();
    assert_eq!(read(&admin, "/health").await, json!({"status": "ok", "open": [], "traces": null}));
    let stack = Stack::production("shop").register_in(&registry).build().unwrap();
    let again = Stack::production("mail").recorder(stack.trace().recorder()).register_in(&registry);
    let _again = again.build().unwrap();
    let mut client = stack.layer(answering([200]));
    send(&mut client, outgoing("http://shop.test/")).await.unwrap();
    let health = read(&admin, "/health").await;
    assert_eq!(health["status"], "ok");
    assert_eq!(health["traces"]["seen"], 1, "two stacks share one recorder");

    stack.breaker().handles().get_or_create("shop.test").force_open();
    let health = read(&admin, "/health").await;
    assert_eq!(health["status"], "degraded");
    assert_eq!(
        health["open"],
        json!([{"name": "shop", "key": "shop.test", "state": "forced-open", "half_open_in_ms": null}])
    );
}

#[tokio::test]
async fn a_program_is_ready_when_all_its_checks_say_so() {
    let none = Admin::builder().build().unwrap();
    assert_eq!(get(&none, "/health/ready").await.status, 200);
    let warm = Arc::new(AtomicBool::new(false));
    let is_warm = warm.clone();
    let admin = Admin::builder()
        .ready("always", || true)
        .ready("cache \"<\"", move || is_warm.load(Ordering::Relaxed))
        .build()
        .unwrap();
    let cold = get(&admin, "/health/ready").await;
    assert_eq!(cold.status, 503);
    assert_eq!(
        cold.json()["checks"],
        json!([{"name": "always", "ok": true}, {"name": "cache \"<\"", "ok": false}])
    );
    warm.store(true, Ordering::Relaxed);
    assert_eq!(get(&admin, "/health/ready").await.status, 200);
    let broken = Admin::builder().ready("broken", || panic!("no")).build().unwrap();
    assert_eq!(get(&broken, "/health/ready").await.status, 503);
    assert_eq!(get(&broken, "/health/live").await.json()["status"], Value::from("live"));
}
