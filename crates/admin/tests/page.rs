//! The page and what is around it.

use axum::{
    Router,
    body::Body,
    http::{Request, Response, StatusCode, header},
};
use http_body_util::BodyExt;
use portcullis_admin::Admin;
use tower::ServiceExt;

async fn ask(router: &Router, method: &str, path: &str) -> Response<Body> {
    let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    router.clone().oneshot(request).await.unwrap()
}

async fn text(response: Response<Body>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn nested() -> Router {
    Router::new().nest("/deep/admin", Admin::builder().build().unwrap().router())
}

fn nested_as_a_service() -> Router {
    Router::new().nest_service("/deep/admin", Admin::builder().build().unwrap().router())
}

#[tokio::test]
async fn the_page_finds_its_files_wherever_it_is_nested() {
    for app in [nested(), nested_as_a_service()] {
        let moved = ask(&app, "GET", "/deep/admin?status=failed").await;
        assert_eq!(moved.status(), StatusCode::TEMPORARY_REDIRECT);
        assert_eq!(moved.headers()[header::LOCATION], "./admin/page.html?status=failed");
        let page = ask(&app, "GET", "/deep/admin/page.html").await;
        assert_eq!(page.status(), StatusCode::OK);
        assert!(text(page).await.contains("src=\"page.js\""));
        for file in ["page.css", "page.js", "icon.svg"] {
            let file = ask(&app, "GET", &format!("/deep/admin/{file}")).await;
            assert_eq!(file.status(), StatusCode::OK);
        }
    }
    let folder = ask(&nested_as_a_service(), "GET", "/deep/admin/").await;
    assert_eq!(folder.status(), StatusCode::OK);
    let bare = Admin::builder().build().unwrap().router();
    assert_eq!(ask(&bare, "GET", "/").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn every_answer_keeps_browsers_in_check() {
    let app = nested();
    for (method, path) in [
        ("GET", "/deep/admin"),
        ("GET", "/deep/admin/page.html"),
        ("HEAD", "/deep/admin/page.js"),
        ("GET", "/deep/admin/api/about"),
        ("GET", "/deep/admin/nothing"),
        ("DELETE", "/deep/admin/api/about"),
        ("POST", "/deep/admin"),
    ] {
        let answer = ask(&app, method, path).await;
        let headers = answer.headers();
        assert!(
            headers[header::CONTENT_SECURITY_POLICY]
                .to_str()
                .unwrap()
                .starts_with("default-src 'none'"),
            "{method} {path}"
        );
        assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(headers[header::REFERRER_POLICY], "no-referrer");
        assert!(headers.contains_key(header::CACHE_CONTROL));
    }
}

#[tokio::test]
async fn what_is_not_there_is_a_problem() {
    let app = nested();
    for (method, path, status) in [
        ("GET", "/deep/admin/nothing", 404),
        ("GET", "/deep/admin/api", 404),
        ("DELETE", "/deep/admin/api/about", 405),
        ("POST", "/deep/admin/page.html", 405),
        ("POST", "/deep/admin", 405),
    ] {
        let answer = ask(&app, method, path).await;
        assert_eq!(answer.status(), status, "{method} {path}");
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/problem+json");
        assert!(text(answer).await.contains(&format!("\"status\":{status}")));
    }
}
