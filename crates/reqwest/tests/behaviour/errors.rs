//! What reqwest's errors are to the layers, each had from reqwest itself.

use std::io;

use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request};
use http_body_util::BodyExt;
use portcullis::{
    Classify, Error, FaultKind, Outcome, Replay,
    http::{GrpcClassifier, HttpClassifier},
};
use portcullis_reqwest::{Body, Client};
use tokio::io::AsyncReadExt;
use tower::ServiceExt;

use crate::support::{BOTH, Protocol, Reply, SOON, Upstream, builder, client};

type Response = http::Response<Body>;

const UNREACHED: Outcome = Outcome::failure(FaultKind::Connect, Replay::Safe);

/// What the classifiers make of an error, which is the same for both.
fn verdict(error: &Error) -> Outcome {
    let http = Classify::<Response>::at_head(&HttpClassifier::new(), Err(error)).outcome();
    let grpc = Classify::<Response>::at_head(&GrpcClassifier::new(), Err(error)).outcome();
    assert_eq!(http, grpc);
    http
}

fn reqwests(error: &Error) -> &reqwest::Error {
    error.find().expect("it is reqwest's own")
}

async fn fails(client: Client, request: Request<reqwest::Body>) -> Error {
    client.oneshot(request).await.unwrap_err()
}

#[tokio::test]
async fn a_refused_connection_was_never_made() {
    for protocol in BOTH {
        let request = Request::post(Upstream::refusing().await).body("".into()).unwrap();
        let error = fails(client(protocol), request).await;
        assert!(reqwests(&error).is_connect());
        assert_eq!(verdict(&error), UNREACHED);
    }
}

#[tokio::test]
async fn a_connection_that_takes_too_long_was_never_made() {
    struct Never;

    impl reqwest::dns::Resolve for Never {
        fn resolve(&self, _: reqwest::dns::Name) -> reqwest::dns::Resolving {
            Box::pin(std::future::pending())
        }
    }

    let client = builder(Protocol::Http1).dns_resolver(Never).connect_timeout(SOON / 10);
    let request = Request::post("http://search.internal/").body("".into()).unwrap();
    let error = fails(Client::new(client.build().unwrap()), request).await;
    assert!(reqwests(&error).is_connect() && reqwests(&error).is_timeout());
    assert_eq!(verdict(&error), UNREACHED);
}

#[tokio::test]
async fn a_resolver_that_asks_by_reqwest_fails_to_connect_like_any_other() {
    struct OverHttp(String);

    impl reqwest::dns::Resolve for OverHttp {
        fn resolve(&self, _: reqwest::dns::Name) -> reqwest::dns::Resolving {
            let client = reqwest::Client::builder().no_proxy().timeout(SOON).build().unwrap();
            let answer = client.get(&self.0).send();
            Box::pin(async { Err(answer.await?.bytes().await.unwrap_err().into()) })
        }
    }

    let names = Upstream::always(Protocol::Http1, Reply::Cut).await;
    let client = builder(Protocol::Http1).dns_resolver(OverHttp(names.url("/"))).build().unwrap();
    let request = Request::post("http://search.internal/").body("".into()).unwrap();
    let error = fails(Client::new(client), request).await;
    assert!(reqwests(&error).is_connect());
    assert_eq!(verdict(&error), UNREACHED);
}

#[tokio::test]
async fn a_timeout_of_reqwests_own_is_a_timeout() {
    for protocol in BOTH {
        let upstream = Upstream::always(protocol, Reply::Hang).await;
        let whole = builder(protocol).timeout(SOON / 10).build().unwrap();
        let reading = builder(protocol).read_timeout(SOON / 10).build().unwrap();
        for client in [whole, reading] {
            let error = fails(Client::new(client), upstream.get("/")).await;
            assert!(reqwests(&error).is_timeout());
            assert_eq!(verdict(&error), Outcome::timeout());
        }

        // One that is set for a request alone travels with it.
        let request = reqwest::Client::new().get(upstream.url("/")).timeout(SOON / 10).build();
        let error = fails(client(protocol), request.unwrap().try_into().unwrap()).await;
        assert!(reqwests(&error).is_timeout());
    }
}

#[tokio::test]
async fn what_ends_a_body_is_told_apart() {
    for protocol in BOTH {
        let upstream = Upstream::always(protocol, Reply::Unfinished(200)).await;
        let client = Client::new(builder(protocol).timeout(SOON).build().unwrap());
        let response = client.oneshot(upstream.get("/")).await.unwrap();
        let error = response.into_body().collect().await.unwrap_err();
        assert!(reqwests(&error).is_timeout() && reqwests(&error).is_body());
        assert_eq!(verdict(&error), Outcome::timeout());

        let upstream = Upstream::always(protocol, Reply::Cut).await;
        let client = crate::support::client(protocol);
        let response = client.oneshot(upstream.get("/")).await.unwrap();
        let error = response.into_body().collect().await.unwrap_err();
        assert!(reqwests(&error).is_body() && !reqwests(&error).is_timeout());
        assert_eq!(error.own_outcome(), None, "who watches the body knows");
    }
}

#[tokio::test]
async fn what_the_caller_got_wrong_is_no_verdict_on_the_server() {
    let client = client(Protocol::Http1);
    for uri in ["/nowhere", "gopher://search.internal/", "search.internal:80"] {
        let error = fails(client.clone(), Request::get(uri).body("".into()).unwrap()).await;
        assert!(reqwests(&error).is_builder(), "{uri}");
        assert_eq!(verdict(&error), Outcome::Ignored, "{uri}");
    }
}

#[tokio::test]
async fn a_redirect_that_is_not_followed_is_no_verdict_on_the_server() {
    let upstream = Upstream::always(Protocol::Http1, Reply::header(302, "location", "/")).await;
    let error = fails(client(Protocol::Http1), upstream.get("/")).await;
    assert!(reqwests(&error).is_redirect());
    assert_eq!(verdict(&error), Outcome::Ignored);
    assert_eq!(upstream.requests(), 11, "reqwest follows ten");
}

#[tokio::test]
async fn a_request_body_that_breaks_off_is_no_verdict_on_the_server() {
    for protocol in BOTH {
        let upstream = Upstream::always(protocol, Reply::Whole(200, "fine")).await;
        let parts = [Ok(Bytes::from("half")), Err(io::Error::other("the file is gone"))];
        let body = reqwest::Body::wrap_stream(stream::iter(parts));
        let request = upstream.request(Method::PUT, "/", body);
        let error = fails(client(protocol), request).await;
        assert_eq!(verdict(&error), Outcome::Ignored, "{protocol:?}");
    }
}

#[tokio::test]
async fn a_request_body_that_is_another_calls_response_is_no_verdict_on_the_server() {
    let source = Upstream::always(Protocol::Http1, Reply::Unfinished(200)).await;
    for protocol in BOTH {
        let upstream = Upstream::always(protocol, Reply::Whole(200, "fine")).await;
        let client = Client::new(builder(protocol).build().unwrap());
        let hasty = Client::new(builder(Protocol::Http1).timeout(SOON).build().unwrap());
        let piped = hasty.oneshot(source.get("/")).await.unwrap().into_body();
        let request = upstream.request(Method::PUT, "/", portcullis_reqwest::body(piped));
        let error = fails(client, request).await;
        assert_eq!(verdict(&error), Outcome::Ignored, "{protocol:?}: {error:?}");
    }
}

#[tokio::test]
async fn an_error_that_was_judged_reads_as_it_does_without_a_verdict() {
    let sources = |error: &dyn std::error::Error| {
        std::iter::successors(error.source(), |&error| error.source())
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    let hung = Upstream::always(Protocol::Http1, Reply::Hang).await;
    let hasty = Client::new(builder(Protocol::Http1).timeout(SOON / 10).build().unwrap());
    let error = fails(hasty, hung.get("/")).await;
    let own = reqwests(&error);
    assert_eq!(error.to_string(), own.to_string());
    assert_eq!(sources(&error)[0], own.to_string());
    assert_eq!(sources(&error)[1..], sources(own), "nothing is said three times");
}

#[tokio::test]
async fn a_refused_stream_was_not_processed() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}/", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let mut connection = h2::server::handshake(socket).await.unwrap();
            while let Some(Ok((_request, mut respond))) = connection.accept().await {
                respond.send_reset(h2::Reason::REFUSED_STREAM);
            }
        }
    });
    let client = builder(Protocol::Http2).retry(reqwest::retry::never()).build().unwrap();
    let error = fails(Client::new(client), Request::post(uri).body("".into()).unwrap()).await;
    assert_eq!(verdict(&error), Outcome::failure(FaultKind::Other, Replay::Unprocessed));
    server.abort();
}

/// A server that closes each connection, once it has read `requests` of requests. Its URL.
async fn closing(after: usize) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut read = vec![0; after];
            let _ = socket.read_exact(&mut read).await;
        }
    });
    uri
}

#[tokio::test]
async fn a_request_that_was_given_back_unsent_was_not_processed() {
    let request = Request::post(closing(0).await).body("".into()).unwrap();
    let error = fails(client(Protocol::Http1), request).await;
    assert!(error.find::<hyper::Error>().unwrap().is_canceled(), "{error:?}");
    assert!(reqwests(&error).is_request() && !reqwests(&error).is_connect());
    assert_eq!(verdict(&error), Outcome::failure(FaultKind::Other, Replay::Unsent));
}

#[tokio::test]
async fn a_request_whose_connection_is_closed_on_it_may_have_been_heard() {
    let request = Request::post(closing(1).await).body("".into()).unwrap();
    let error = fails(client(Protocol::Http1), request).await;
    assert!(reqwests(&error).is_request() && !reqwests(&error).is_connect());
    assert_eq!(verdict(&error), Outcome::failure(FaultKind::Other, Replay::IfIdempotent));
}
