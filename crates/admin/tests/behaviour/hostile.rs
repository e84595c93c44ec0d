//! Requests that nobody in their right mind makes.

use std::time::Duration;

use axum::http::{Request, StatusCode, header};
use portcullis::{Registry, Stack, trace::MemoryStore};
use portcullis_admin::Admin;
use proptest::prelude::*;
use tokio::time::timeout;

use crate::{ask, request};

/// Some of a path or a query: what means something here, and what means something elsewhere.
fn part() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "api",
            "breakers",
            "traces",
            "targets",
            "limits",
            "shop",
            "open",
            "reset",
            "otlp",
            "metrics",
            "health",
            "page.html",
            "",
            ".",
            "..",
            "%2e%2e",
            "%2F",
            "%00",
            "%FF",
            "%",
            "*",
            "{x}",
        ])
        .prop_map(str::to_owned),
        "[!-~&&[^#?/]]{0,12}",
        Just("x".repeat(3000)),
    ]
}

fn parameter() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "limit", "cursor", "status", "q", "since", "min_ms", "key", "KEY", "", "limit%00",
    ]);
    let value = prop_oneof![
        prop::sample::select(vec![
            "1",
            "-1",
            "1e9",
            "99999999999999999999",
            "NaN",
            "failed",
            "",
            "%00",
            "%F0%9F",
            "+",
            "'",
            "ffffffffffffffffffffffffffffffff",
            "9999-12-31T23:59:59Z",
            "0000-01-01T00:00:00Z",
        ])
        .prop_map(str::to_owned),
        "[!-~&&[^#&]]{0,20}",
    ];
    (name, value).prop_map(|(name, value)| format!("{name}={value}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_request_is_answered_or_told_what_is_wrong_with_it(
        method in prop::sample::select(vec!["GET", "POST", "HEAD", "PUT", "OPTIONS", "BREW"]),
        path in prop::collection::vec(part(), 0..5),
        query in prop::collection::vec(parameter(), 0..4),
        token in prop::option::of("[ -~]{0,20}"),
    ) {
        let uri = format!("/{}?{}", path.join("/"), query.join("&"));
        let mut request = Request::builder().method(method).uri(&uri);
        if let Some(token) = &token {
            request = request.header(header::AUTHORIZATION, token);
        }
        // What is no request does not come here.
        let Ok(request) = request.body(axum::body::Body::empty()) else { return Ok(()) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answer = runtime.block_on(async {
            let registry = Registry::new();
            let _stack = Stack::production("shop").register_in(&registry).build().unwrap();
            let admin = Admin::builder().registry(&registry).store(MemoryStore::new()).token("t");
            let router = admin.build().unwrap().router();
            timeout(Duration::from_secs(20), ask(&router, request)).await.unwrap()
        });
        prop_assert!(answer.headers.contains_key(header::CONTENT_SECURITY_POLICY));
        let status = answer.status;
        let fine = status.is_success() || status == StatusCode::TEMPORARY_REDIRECT;
        prop_assert!(fine || status.is_client_error(), "{method} {uri}: {answer:?}");
        if status.is_client_error() && method != "HEAD" {
            prop_assert!(answer.problem().len() < 600, "{}", answer.problem());
        }
    }
}

#[tokio::test]
async fn who_asks_in_the_wrong_way_is_told_the_right_one() {
    let registry = Registry::new();
    let _stack = Stack::production("shop").register_in(&registry).build().unwrap();
    let admin = Admin::builder().registry(&registry).token("t").build().unwrap();
    let ways = [
        ("HEAD", "/api/breakers/shop/open", "POST"),
        ("GET", "/api/metrics/reset", "POST"),
        ("POST", "/api/targets", "GET,HEAD"),
    ];
    for (method, path, allowed) in ways {
        let answer = ask(&admin.router(), request(method, path)).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
        assert_eq!(answer.headers.get(header::ALLOW).unwrap(), allowed, "{method} {path}");
    }
    // A reader that only looks whether there is something takes nobody's place.
    for _ in 0..100 {
        let head = ask(&admin.router(), request("HEAD", "/api/events")).await;
        assert_eq!(head.status, StatusCode::OK);
        // Nobody on the way is to keep events until there are more of them.
        assert_eq!(head.headers["x-accel-buffering"], "no");
    }
}
