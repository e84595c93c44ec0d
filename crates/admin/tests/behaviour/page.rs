//! The page and what is around it.

use axum::{
    Router,
    http::{StatusCode, header},
};
use portcullis_admin::Admin;

use crate::{ask, get, read, request};

fn nested() -> Router {
    Router::new().nest("/deep/admin", Admin::builder().build().unwrap().router())
}

fn nested_as_a_service() -> Router {
    Router::new().nest_service("/deep/admin", Admin::builder().build().unwrap().router())
}

#[tokio::test]
async fn the_page_finds_its_files_wherever_it_is_nested() {
    for app in [nested(), nested_as_a_service()] {
        let moved = ask(&app, request("GET", "/deep/admin?status=failed")).await;
        assert_eq!(moved.status, StatusCode::TEMPORARY_REDIRECT);
        assert_eq!(moved.headers[header::LOCATION], "./admin/page.html?status=failed");
        let page = ask(&app, request("GET", "/deep/admin/page.html")).await;
        assert_eq!(page.status, StatusCode::OK);
        assert!(page.text.contains("\"page.js\""));
        for file in ["page.css", "page.js", "icon.svg"] {
            let file = ask(&app, request("GET", &format!("/deep/admin/{file}"))).await;
            assert_eq!(file.status, StatusCode::OK);
            assert!(!file.text.is_empty());
        }
    }
    let folder = ask(&nested_as_a_service(), request("GET", "/deep/admin/")).await;
    assert_eq!(folder.status, StatusCode::OK);
    let bare = Admin::builder().build().unwrap();
    assert_eq!(get(&bare, "/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn every_answer_keeps_browsers_in_check() {
    for (method, path) in [
        ("GET", "/deep/admin"),
        ("GET", "/deep/admin/page.html"),
        ("HEAD", "/deep/admin/page.js"),
        ("GET", "/deep/admin/api/about"),
        ("GET", "/deep/admin/api/traces"),
        ("GET", "/deep/admin/nothing"),
        ("DELETE", "/deep/admin/api/about"),
        ("POST", "/deep/admin"),
        ("POST", "/deep/admin/api/metrics/reset"),
    ] {
        let answer = ask(&nested(), request(method, path)).await;
        let policy = answer.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'"), "{method} {path}");
        assert_eq!(answer.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(answer.headers[header::REFERRER_POLICY], "no-referrer");
        let file = path.ends_with("page.html") || path.ends_with("page.js");
        let cache = if file { "no-cache" } else { "no-store" };
        assert_eq!(answer.headers[header::CACHE_CONTROL], cache, "{method} {path}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_a_problem() {
    let app = nested();
    for (method, path, status) in [
        ("GET", "/deep/admin/nothing", 404),
        ("GET", "/deep/admin/api", 404),
        ("GET", "/deep/admin/api/breakers/x/reset/y", 404),
        ("DELETE", "/deep/admin/api/about", 405),
        ("POST", "/deep/admin/page.html", 405),
        ("POST", "/deep/admin", 405),
        ("GET", "/deep/admin/api/metrics/reset", 405),
        ("GET", "/deep/admin/metrics", 404),
        ("GET", "/deep/admin/api/traces", 404),
    ] {
        let answer = ask(&app, request(method, path)).await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert!(!answer.problem().is_empty());
    }
}

#[tokio::test]
async fn a_head_is_answered_without_a_body() {
    let admin = Admin::builder().build().unwrap();
    for path in ["/", "/api/about", "/api/breakers", "/health", "/api/events"] {
        let answer = ask(&admin.router(), request("HEAD", path)).await;
        assert_eq!((answer.status, &*answer.text), (StatusCode::OK, ""), "{path}");
    }
}

#[tokio::test]
async fn a_program_says_what_it_has_to_show() {
    let admin = Admin::builder().title("shop \"<b>\"").token("t").prometheus(|| None);
    let about = read(&admin.build().unwrap(), "/api/about").await;
    assert_eq!(about["title"], "shop \"<b>\"");
    assert_eq!((&about["token"], &about["store"]), (&true.into(), &false.into()));
    assert_eq!(about["prometheus"], true);
    assert_eq!(about["otlp"], cfg!(feature = "otlp"));
    assert!(about["version"].as_str().unwrap().contains('.'));
}

#[tokio::test]
async fn metrics_are_the_text_that_is_given() {
    let admin = Admin::builder().prometheus(|| Some("up 1\n".to_owned())).build().unwrap();
    let answer = get(&admin, "/metrics").await;
    assert_eq!(answer.text, "up 1\n");
    assert_eq!(answer.headers[header::CONTENT_TYPE], "text/plain; version=0.0.4; charset=utf-8");
    let none = Admin::builder().prometheus(|| None).build().unwrap();
    assert_eq!(get(&none, "/metrics").await.status, 404);
    let broken = Admin::builder().prometheus(|| panic!("no")).build().unwrap();
    let answer = get(&broken, "/metrics").await;
    assert_eq!(answer.status, 500);
    assert!(!answer.problem().contains("no\n"));
}

#[tokio::test]
async fn parameters_that_nobody_knows_are_refused_everywhere() {
    let admin = Admin::builder().store(portcullis::trace::MemoryStore::new());
    let admin = admin.prometheus(|| Some(String::new())).build().unwrap();
    for path in [
        "/api/breakers",
        "/api/breakers/x",
        "/api/limits",
        "/api/targets",
        "/api/traces",
        "/api/events",
        "/metrics",
    ] {
        let answer = get(&admin, &format!("{path}?keey=%22%0a1")).await;
        assert_eq!(answer.status, 400, "{path}");
        let problem = answer.problem();
        assert!(problem.starts_with("\"keey\" is no parameter of this address"), "{problem}");
    }
    let twice = get(&admin, "/api/traces?limit=1&limit=2").await;
    assert_eq!(twice.problem(), "limit is there twice, allowed is once.");
}
