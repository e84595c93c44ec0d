//! What the story comes to, and the project's page's snippets.

use axum::{Router, body::Bytes};
use tokio::{net::TcpListener, task::JoinSet};

use crate::story;

/// What the project's page shows.
mod page {
    pub(super) mod middleware {
        include!(concat!(env!("OUT_DIR"), "/middleware.rs"));

        pub(in super::super) fn build(
            client: reqwest::Client,
        ) -> anyhow::Result<reqwest_middleware::ClientWithMiddleware> {
            payments(client)
        }
    }

    pub(super) mod service {
        include!(concat!(env!("OUT_DIR"), "/service.rs"));

        pub(in super::super) async fn run(
            client: reqwest::Client,
            body: reqwest::Body,
        ) -> anyhow::Result<reqwest::Response> {
            pay(client, body).await
        }
    }
}

#[tokio::test]
async fn the_clients_of_the_projects_page_get_their_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new().fallback(|body: Bytes| async { body });
    let mut serving = JoinSet::new();
    serving.spawn(async move { axum::serve(listener, app).await });

    let payments = page::middleware::build(reqwest::Client::new()).unwrap();
    let response = payments.post(&url).body("a coin").send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), "a coin");

    // The page's own host is nowhere; whoever stands between is asked instead.
    let proxy = reqwest::Proxy::http(&url).unwrap();
    let client = reqwest::Client::builder().proxy(proxy).build().unwrap();
    let response = page::service::run(client, "two coins".into()).await.unwrap();
    assert_eq!(response.url().as_str(), "http://payments.internal/42");
    assert_eq!(response.text().await.unwrap(), "two coins");
}

#[tokio::test]
async fn both_ways_come_through_what_can_be_come_through_and_are_refused_the_rest() {
    let lines = story(|_| ()).await.unwrap();
    let ends = lines.iter().map(|line| line.split_once(':').unwrap().1.trim()).collect::<Vec<_>>();
    assert_eq!(ends[0], "200 OK, \"an answer to 10 bytes\"");
    assert_eq!(ends[1], ends[0], "the server asked for a second, and had it");
    assert!(ends[2].starts_with("200 OK, but "), "{}", ends[2]);
    assert_eq!(ends[3], ends[0]);
    assert!(ends[4].starts_with("500 "), "the third in a row: {}", ends[4]);
    assert!(ends[5].contains("open"), "{}", ends[5]);
    assert!(ends[6].starts_with("refused (open), come back in "), "{}", ends[6]);
}
