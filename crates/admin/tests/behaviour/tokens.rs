//! Who may change something.

use axum::http::header;
use portcullis::Registry;
use portcullis::breaker::{BreakerConfig, Handle};
use portcullis_admin::Admin;

use crate::{ask, request, with_token};

fn breaker(registry: &Registry) -> Handle {
    let handle = Handle::new("search", BreakerConfig::default()).unwrap();
    registry.insert("search", handle.clone());
    handle
}

const CHANGES: [&str; 3] =
    ["/api/breakers/search/open", "/api/breakers/nobody/reset", "/api/metrics/reset"];

#[tokio::test]
async fn nothing_can_be_changed_without_a_token_configured() {
    let registry = Registry::new();
    let handle = breaker(&registry);
    let admin = Admin::builder().registry(&registry).build().unwrap();
    for path in CHANGES {
        let answer = ask(&admin.router(), with_token("POST", path, "")).await;
        assert_eq!(answer.status, 403, "{path}");
        assert!(answer.problem().contains("no token is configured"));
    }
    assert_eq!(handle.state().as_str(), "closed");
}

#[tokio::test]
async fn a_change_takes_exactly_the_token() {
    let registry = Registry::new();
    let handle = breaker(&registry);
    let admin = Admin::builder().registry(&registry).token("s3cret").build().unwrap();
    let with = |value: &str| {
        let mut request = request("POST", CHANGES[0]);
        request.headers_mut().insert(header::AUTHORIZATION, value.parse().unwrap());
        request
    };
    let mut twice = with("Bearer s3cret");
    twice.headers_mut().append(header::AUTHORIZATION, "Bearer s3cret".parse().unwrap());
    let wrong = [
        request("POST", CHANGES[0]),
        with("s3cret"),
        with("Bearer"),
        with("Bearer "),
        with("Bearer s3cre"),
        with("Bearer s3cret1"),
        with("Bearer S3CRET"),
        with("Basic s3cret"),
        twice,
    ];
    for request in wrong {
        let answer = ask(&admin.router(), request).await;
        assert_eq!(answer.status, 401);
        assert_eq!(answer.headers[header::WWW_AUTHENTICATE], "Bearer");
        assert!(!answer.problem().contains("s3c"));
    }
    assert_eq!(handle.state().as_str(), "closed");
    for path in CHANGES {
        // Nobody learns without it what there is.
        assert_eq!(ask(&admin.router(), request("POST", path)).await.status, 401);
    }

    assert_eq!(ask(&admin.router(), with("bearer s3cret")).await.status, 200);
    assert_eq!(handle.state().as_str(), "forced-open");
}

#[test]
fn a_token_that_no_header_can_carry_is_refused_and_not_repeated() {
    for token in ["", " ", "two words", "tab\t", "line\n", "schlüssel", &"x".repeat(4097)] {
        let invalid = Admin::builder().token(token).build().unwrap_err();
        assert_eq!(invalid.field(), "token");
        assert!(!invalid.to_string().contains("words"), "{invalid}");
    }
    assert!(Admin::builder().token("x".repeat(4096)).build().is_ok());
}

#[test]
fn a_token_is_in_no_debug_text() {
    let admin = Admin::builder().token("s3cret");
    assert!(!format!("{admin:?}").contains("s3cret"));
    let admin = admin.build().unwrap();
    assert!(!format!("{admin:?} {:?}", admin.observer()).contains("s3cret"));
}

#[test]
fn bounds_have_bounds() {
    for (admin, field) in [
        (Admin::builder().targets(0), "targets"),
        (Admin::builder().targets(1_000_000), "targets"),
        (Admin::builder().keys(1_000_000), "keys"),
    ] {
        assert_eq!(admin.build().unwrap_err().field(), field);
    }
    assert!(Admin::builder().keys(0).targets(1).build().is_ok());
}
