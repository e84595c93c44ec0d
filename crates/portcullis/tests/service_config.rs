//! gRPC service configs: what is read from them, what is refused, and what it comes to.

#![cfg(feature = "service-config")]

use std::time::Duration;

use portcullis::{
    Call, Invalid, Reason, ServiceConfig, Stack, call, clock,
    http::CloneBody,
    retry::{Attempt, Decision, Policy, Progress, RetryLayer},
    timeout::{TimeoutLayer, engine::Policy as Times},
};
use portcullis::{Fault, FaultKind, Hint, Outcome, Replay};
use serde_json::{Value, json};

const MS: Duration = Duration::from_millis(1);

/// The document's example.
fn policy() -> Value {
    json!({
        "maxAttempts": 4,
        "initialBackoff": "0.1s",
        "maxBackoff": "1s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"]
    })
}

fn parse(config: &Value) -> Result<ServiceConfig, Invalid> {
    ServiceConfig::parse(&config.to_string())
}

fn retries(config: &ServiceConfig) -> Policy {
    let layer = config.retries(RetryLayer::builder("shop", CloneBody)).build().unwrap();
    layer.policy().clone()
}

fn times(config: &ServiceConfig) -> Times {
    let timeout = TimeoutLayer::builder("shop").total(30_000 * MS);
    let layer = config.timeouts(timeout).build().unwrap();
    layer.policy().clone()
}

/// The call of an operation.
async fn of(name: &str) -> Call {
    call::with().name(name).run(async { Call::current() }).await
}

/// What follows a first attempt that ended as UNAVAILABLE.
fn decide(retries: &Policy, call: &Call, pushback: Hint) -> Decision<()> {
    let fault = Fault::new(FaultKind::Grpc(14), Replay::Safe).with_hint(pushback);
    let attempt = Attempt::new(1, Outcome::Failure(fault));
    retries.decide(&attempt, call, clock::now(), Progress::default(), |_| Some(()), || 0)
}

/// What is refused: where, which field, its value, and what is allowed.
fn refused(config: &Value) -> String {
    parse(config).unwrap_err().to_string()
}

#[tokio::test]
async fn the_method_stands_above_its_service_and_that_above_the_rest() {
    let with = |attempts| {
        let mut policy = policy();
        policy["maxAttempts"] = json!(attempts);
        policy
    };
    let config = parse(&json!({
        "loadBalancingPolicy": "round_robin",
        "methodConfig": [
            { "name": [{}], "retryPolicy": with(5), "timeout": "7s" },
            { "name": [{ "service": "shop.Cart" }], "retryPolicy": with(3), "waitForReady": true },
            {
                "name": [
                    { "service": "shop.Cart", "method": "Add" },
                    { "service": "shop.Stock", "method": "List" }
                ],
                "timeout": "0.25s"
            }
        ]
    }))
    .unwrap();
    let (retries, times) = (retries(&config), times(&config));
    for (name, attempts, limit) in [
        ("shop.Cart/Add", 1, 250),
        ("shop.Stock/List", 1, 250),
        // Nothing is put together from two: its service has no limit, though the rest has one.
        ("shop.Cart/List", 3, 30_000),
        ("shop.Stock/Add", 5, 7_000),
        ("search", 5, 7_000),
    ] {
        let call = of(name).await;
        assert_eq!(retries.max_attempts(&call), attempts, "{name}");
        let start = clock::now();
        let plan = times.plan(&call, None, start);
        assert_eq!(plan.whole().unwrap().limit, limit * MS, "{name}");
    }
}

#[tokio::test]
async fn what_is_not_said_is_the_stacks_timeout_and_no_retries() {
    let config = parse(&json!({ "methodConfig": [
        { "name": [{ "service": "a.B" }], "timeout": "1s" },
        { "name": [{ "service": "a.B", "method": "C" }], "retryPolicy": policy() }
    ] }))
    .unwrap();
    let (retries, times) = (retries(&config), times(&config));
    // Nothing is put together from two: the method has no limit of its service's.
    for (name, attempts, limit) in [("a.B/C", 4, 30_000), ("a.B/D", 1, 1_000), ("x", 1, 30_000)] {
        let call = of(name).await;
        assert_eq!(retries.max_attempts(&call), attempts, "{name}");
        assert_eq!(times.plan(&call, None, clock::now()).whole().unwrap().limit, limit * MS);
    }
}

#[test]
fn a_policy_comes_to_the_waits_of_the_document() {
    let config = json!({ "methodConfig": [{ "name": [{}], "retryPolicy": policy() }] });
    let waits = retries(&parse(&config).unwrap());
    let waits: Vec<_> = waits.waits().take(5).map(|it| (it.shortest, it.longest)).collect();
    let around = |ms: u32| (ms * MS * 4 / 5, ms * MS * 6 / 5);
    assert_eq!(waits, [100, 200, 400, 800, 1_000].map(around));
}

#[test]
fn throttling_takes_the_place_of_the_budget() {
    let config = json!({
        "methodConfig": [{ "name": [{}], "retryPolicy": policy() }],
        "retryThrottling": { "maxTokens": 10, "tokenRatio": 0.1 }
    });
    let retries = retries(&parse(&config).unwrap());
    assert!(retries.budget().is_none());
    let throttling = retries.throttling().unwrap();
    assert_eq!((throttling.config().max_tokens, throttling.config().token_ratio), (10, 0.1));

    for _ in 0..5 {
        let _ = decide(&retries, &Call::new(), Hint::None);
    }
    assert!(!throttling.allows());
    let decision = decide(&retries, &Call::new(), Hint::None);
    assert!(matches!(decision, Decision::GiveUp(Reason::RetriesThrottled { .. })));
}

#[tokio::test]
async fn a_method_without_a_policy_takes_no_tokens_unless_it_is_asked_for_no_retries() {
    let config = parse(&json!({
        "methodConfig": [{ "name": [{ "service": "a.B", "method": "C" }], "retryPolicy": policy() }],
        "retryThrottling": { "maxTokens": 10, "tokenRatio": 0.1 }
    }));
    let retries = retries(&config.unwrap());
    let tokens = || retries.throttling().unwrap().tokens();
    // No status qualifies as retryable there.
    let decision = decide(&retries, &of("a.B/D").await, Hint::None);
    assert!(matches!(decision, Decision::GiveUp(Reason::AttemptsUsed { max: 1 })));
    assert_eq!(tokens(), 10.0);
    let _ = decide(&retries, &of("a.B/D").await, Hint::Never);
    assert_eq!(tokens(), 9.0);
    // What is retryable counts, even if the caller wants no retry of it, or has it where there was none.
    let _ = decide(&retries, &of("a.B/C").await, Hint::None);
    assert_eq!(tokens(), 8.0);
    let once = call::with().name("a.B/C").no_retry().run(async { Call::current() }).await;
    let _ = decide(&retries, &once, Hint::None);
    assert_eq!(tokens(), 7.0);
    let more = call::with().name("a.B/D").max_attempts(2).run(async { Call::current() }).await;
    assert!(matches!(decide(&retries, &more, Hint::None), Decision::Retry(_)));
    assert_eq!(tokens(), 6.0);
}

#[tokio::test]
async fn more_than_five_attempts_are_five() {
    let mut many = policy();
    many["maxAttempts"] = json!(4_000_000_000_u64);
    let config = parse(&json!({ "methodConfig": [{ "name": [{}], "retryPolicy": many }] }));
    assert_eq!(retries(&config.unwrap()).max_attempts(&Call::new()), 5);
}

#[test]
fn durations_and_codes_are_read_in_every_form() {
    let with = |field: &str, value: Value| {
        let mut policy = policy();
        policy[field] = value;
        parse(&json!({ "methodConfig": [{ "name": [{}], "retryPolicy": policy }] }))
    };
    for (text, longest) in [
        ("1s", 1_000 * MS),
        ("1.5s", 1_500 * MS),
        ("0.100s", 100 * MS),
        ("0.000000001s", Duration::from_nanos(1)),
        ("315576000000s", Duration::from_secs(86_400)),
    ] {
        let config = with("maxBackoff", json!(text)).unwrap();
        assert_eq!(retries(&config).longest_backoff(), longest, "{text}");
    }
    for text in [
        "0s",
        "0.0s",
        "-1s",
        "1",
        "s",
        "1.s",
        ".5s",
        "1e3s",
        "01s",
        " 1s",
        "1.0000000001s",
        "315576000001s",
        "99999999999999999999s",
        "+1s",
        "1ms",
        "٣s",
    ] {
        let refused = with("initialBackoff", json!(text)).unwrap_err();
        assert_eq!(
            (refused.field(), refused.value()),
            ("initialBackoff", &*json!(text).to_string())
        );
    }
    for codes in [json!([14]), json!(["unavailable"]), json!(["UNAVAILABLE", 10, "Aborted"])] {
        assert!(with("retryableStatusCodes", codes).is_ok());
    }
}

#[test]
fn what_is_not_as_the_document_wants_it_is_named() {
    let in_policy = |field: &str, value: Value| {
        let mut policy = policy();
        policy[field] = value;
        refused(&json!({ "methodConfig": [{ "name": [{}], "retryPolicy": policy }] }))
    };
    let place = "methodConfig[0]: retryPolicy: ";
    for (field, value, allowed) in [
        ("maxAttempts", json!(1), "a whole number from 2"),
        ("maxAttempts", json!(2.5), "a whole number from 2"),
        ("maxAttempts", json!(null), "a whole number from 2"),
        ("maxBackoff", json!("0s"), "a duration above 0, as \"1.5s\""),
        ("initialBackoff", json!(1), "a duration above 0, as \"1.5s\""),
        ("backoffMultiplier", json!(0), "a number above 0"),
        ("backoffMultiplier", json!("2"), "a number above 0"),
        ("retryableStatusCodes", json!([]), "a list of at least one status code"),
        ("retryableStatusCodes", json!("UNAVAILABLE"), "a list of at least one status code"),
    ] {
        let expected = format!("{place}{field} is {value}, allowed is {allowed}");
        assert_eq!(in_policy(field, value), expected);
    }
    for (codes, value) in [(json!(["TEAPOT"]), "\"TEAPOT\""), (json!([14, 17]), "17")] {
        let expected = format!(
            "{place}retryableStatusCodes is {value}, allowed is status codes of gRPC's, by name or number"
        );
        assert_eq!(in_policy("retryableStatusCodes", codes), expected);
    }

    let throttled = |tokens: Value, ratio: Value| {
        let throttling = json!({ "maxTokens": tokens, "tokenRatio": ratio });
        refused(&json!({ "retryThrottling": throttling }))
    };
    for tokens in [json!(0), json!(1_001), json!(0.5), json!(null)] {
        let refused = throttled(tokens, json!(0.1));
        assert!(refused.starts_with("retryThrottling: maxTokens is "), "{refused}");
    }
    for ratio in [json!(0), json!(-1), json!(0.0001), json!("0.1"), json!(null)] {
        let refused = throttled(json!(10), ratio);
        assert!(refused.starts_with("retryThrottling: tokenRatio is "), "{refused}");
    }

    let one = |entry: Value| refused(&json!({ "methodConfig": [{}, entry] }));
    for (entry, starts) in [
        (json!({ "hedgingPolicy": { "maxAttempts": 2 } }), "methodConfig[1]: hedgingPolicy is {"),
        (json!({ "timeout": "0s" }), "methodConfig[1]: timeout is \"0s\""),
        (json!({ "name": [{ "method": "Add" }] }), "methodConfig[1]: method is \"Add\""),
        (json!({ "name": [{ "service": "a/b" }] }), "methodConfig[1]: service is \"a/b\""),
        (json!({ "name": [{}, { "service": "" }] }), "methodConfig[1]: name is \"\""),
        (json!({ "name": {} }), "methodConfig[1]: name is {}, allowed is a list"),
        (json!({ "retryPolicy": [] }), "methodConfig[1]: retryPolicy is []"),
        (json!(7), "methodConfig[1]: methodConfig is 7"),
    ] {
        let refused = one(entry);
        assert!(refused.starts_with(starts), "{refused}");
    }
    assert!(refused(&json!([])).starts_with("service config is []"));
    assert_eq!(ServiceConfig::parse("{").unwrap_err().allowed(), "JSON");
}

#[test]
fn a_stack_is_built_with_it() {
    let config = json!({
        "methodConfig": [{ "name": [{ "service": "shop.Cart" }], "retryPolicy": policy() }],
        "retryThrottling": { "maxTokens": 10, "tokenRatio": 0.1 }
    });
    let stack = Stack::production("shop").service_config(&parse(&config).unwrap()).build().unwrap();
    assert!(stack.retry().throttling().is_some());
    assert!(stack.check().find("no-budget").is_none());
}

#[tokio::test]
async fn a_stack_is_built_with_timeouts_however_short_or_long() {
    for timeout in ["0.000000001s", "0.05s", "99999999s", "315576000000s"] {
        let config = parse(&json!({ "methodConfig": [
            { "name": [{}], "timeout": timeout },
            { "name": [{ "service": "a.B" }], "timeout": timeout, "retryPolicy": policy() },
            { "name": [{ "service": "a.C" }] }
        ] }))
        .unwrap();
        let built = Stack::production("shop").service_config(&config).build();
        let stack = built.unwrap_or_else(|invalid| panic!("{timeout}: {invalid}"));
        let limit = async |name| {
            let plan = stack.total().policy().plan(&of(name).await, None, clock::now());
            plan.whole().map(|until| until.limit)
        };
        // What is as good as no limit is none.
        assert_eq!(limit("a.B/C").await.is_some(), timeout != "315576000000s");
        assert_eq!(limit("x").await, limit("a.B/C").await);
        assert_eq!(limit("a.C/D").await, Some(30_000 * MS));
    }
}
