//! What is told of a client's answers.

use std::{convert::Infallible, io, time::Duration};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::Full;
use portcullis_core::{
    Answer, BoxError, Call, Event, FaultKind, LayerKind, What, call, clock, sync::Mutex,
};
use portcullis_http::PropagateLayer;
use portcullis_testkit::{call as send, poll_k};
use std::sync::Arc;
use tower::{Layer, service_fn};

type Body = Full<Bytes>;
type Told = Arc<Mutex<Vec<(String, Answer, Duration)>>>;

fn telling() -> (PropagateLayer, Told) {
    let told = Told::default();
    let ear = told.clone();
    let layer = PropagateLayer::new().with_observer("shop", move |event: &Event<'_>| {
        assert_eq!((event.layer, event.name), (LayerKind::Propagate, "shop"));
        let What::Answered { answer, elapsed } = event.what else { panic!("{event}") };
        ear.lock().push((event.key.unwrap().to_owned(), answer, elapsed));
    });
    (layer, told)
}

fn request(method: &str, uri: &str) -> Request<Body> {
    Request::builder().method(method).uri(uri).body(Body::default()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_told_with_its_status_its_time_and_its_announced_length() {
    let (layer, told) = telling();
    let mut client = layer.layer(service_fn(|_: Request<Body>| async {
        tokio::time::advance(Duration::from_millis(30)).await;
        let response = Response::builder().status(404).header(header::CONTENT_LENGTH, "17");
        Ok::<_, Infallible>(response.body(Body::default()).unwrap())
    }));
    send(&mut client, request("GET", "https://Shop.test/a?b=secret")).await.unwrap();
    let (host, answer, elapsed) = told.lock().remove(0);
    assert_eq!((host.as_str(), elapsed), ("shop.test", Duration::from_millis(30)));
    let mut expected = Answer::to("GET");
    (expected.port, expected.status, expected.size) = (Some(443), Some(404), Some(17));
    assert_eq!(answer, expected);
}

#[tokio::test(start_paused = true)]
async fn methods_that_are_made_up_have_one_name() {
    let (layer, told) = telling();
    let mut client = layer
        .layer(service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(())) }));
    send(&mut client, request("BREW", "http://pot.test:8080/")).await.unwrap();
    send(&mut client, request("patch", "/relative")).await.unwrap();
    let told = told.lock();
    assert_eq!(told[0].1.method, "_OTHER");
    assert_eq!((told[0].0.as_str(), told[0].1.port), ("pot.test:8080", Some(8080)));
    assert_eq!((told[1].0.as_str(), told[1].1.port, told[1].1.method), ("", None, "_OTHER"));
}

#[tokio::test(start_paused = true)]
async fn an_error_is_told_by_what_failed() {
    let (layer, told) = telling();
    let mut client = layer.layer(service_fn(|_: Request<Body>| async {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        Err::<Response<()>, BoxError>(refused.into())
    }));
    send(&mut client, request("GET", "http://a.test/")).await.unwrap_err();
    let (_, answer, _) = told.lock().remove(0);
    assert_eq!((answer.status, answer.fault), (None, Some(FaultKind::Connect)));
}

#[tokio::test(start_paused = true)]
async fn what_a_limit_ends_is_told_and_what_the_caller_drops_is_not() {
    let (layer, told) = telling();
    let mut client = layer.layer(service_fn(|_: Request<Body>| {
        std::future::pending::<Result<Response<()>, Infallible>>()
    }));
    poll_k(send(&mut client, request("GET", "http://a.test/")), 1).await;
    assert!(told.lock().is_empty());

    let late = Call::new().with_deadline(clock::now() + Duration::from_secs(1));
    let mut waiting = Box::pin(late.in_scope(send(&mut client, request("GET", "http://a.test/"))));
    poll_k(&mut waiting, 1).await;
    tokio::time::advance(Duration::from_secs(2)).await;
    drop(waiting);
    let (_, answer, elapsed) = told.lock().remove(0);
    assert_eq!(answer.fault, Some(FaultKind::Timeout));
    assert_eq!(elapsed, Duration::from_secs(2));

    let mut waiting = Box::pin(send(&mut client, request("GET", "http://a.test/")));
    poll_k(&mut waiting, 1).await;
    call::expire(|| drop(waiting));
    assert_eq!(told.lock().remove(0).1.fault, Some(FaultKind::Timeout));
}

#[tokio::test(start_paused = true)]
async fn grpc_is_told_as_such() {
    let (layer, told) = telling();
    let mut client = layer
        .layer(service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(())) }));
    let mut rpc = request("POST", "http://a.test/shop.Carts/Add");
    rpc.headers_mut().insert(header::CONTENT_TYPE, "application/grpc".parse().unwrap());
    send(&mut client, rpc).await.unwrap();
    assert!(told.lock().remove(0).1.is_grpc);
}
