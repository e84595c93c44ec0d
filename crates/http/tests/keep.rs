//! Requests whose body is kept while it is being sent.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, StreamBody, channel::Channel};
use portcullis_core::{BoxError, Error, Keep, Kept};
use portcullis_http::{BufferBody, CloneBody, ReplayBody};
use portcullis_testkit::WakeCounter;

fn kept<B>(cap: usize, body: B) -> (ReplayBody<B>, impl Kept<Sent = Request<ReplayBody<B>>>)
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let keep = BufferBody::new(|body: ReplayBody<B>| body).with_cap(cap);
    let (sent, kept) = keep.keep(Request::put("/").body(body).unwrap());
    (sent.into_body(), kept)
}

async fn read<B>(body: ReplayBody<B>) -> (Bytes, Option<HeaderMap>)
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let all = body.collect().await.unwrap();
    let trailers = all.trailers().cloned();
    (all.to_bytes(), trailers)
}

fn poll<B>(
    body: &mut ReplayBody<B>,
    waker: &WakeCounter,
) -> Poll<Option<Result<Frame<Bytes>, Error>>>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    Pin::new(body).poll_frame(&mut Context::from_waker(&waker.waker()))
}

fn two_frames_and_trailers() -> impl Body<Data = Bytes, Error = Infallible> {
    let mut trailers = HeaderMap::new();
    trailers.insert("checksum", "7".parse().unwrap());
    StreamBody::new(futures_util::stream::iter([
        Ok(Frame::data(Bytes::from("ab"))),
        Ok(Frame::data(Bytes::from("cd"))),
        Ok(Frame::trailers(trailers)),
    ]))
}

#[tokio::test]
async fn a_streamed_body_is_sent_again_with_its_trailers() {
    let (first, kept) = kept(64, two_frames_and_trailers());
    let first = read(first).await;
    assert_eq!(first.0, "abcd");
    assert_eq!(first.1.as_ref().unwrap()["checksum"], "7");
    for attempt in 2..4 {
        assert_eq!(read(kept.again(attempt).unwrap().into_body()).await, first);
    }
}

#[tokio::test]
async fn trailers_are_the_last_frame_and_come_once() {
    async fn kinds<B>(mut body: ReplayBody<B>) -> String
    where
        B: Body,
        B::Error: Into<BoxError>,
    {
        let mut kinds = String::new();
        while let Some(frame) = body.frame().await {
            kinds.push(if frame.unwrap().is_trailers() { 't' } else { 'd' });
        }
        kinds
    }
    let (first, kept) = kept(64, two_frames_and_trailers());
    assert_eq!(kinds(first).await, "ddt");
    assert_eq!(kinds(kept.again(2).unwrap().into_body()).await, "dt");
}

#[tokio::test]
async fn a_body_beyond_the_cap_goes_through_once() {
    let (first, kept) = kept(3, two_frames_and_trailers());
    assert_eq!(read(first).await.0, "abcd");
    assert!(kept.again(2).is_none());
}

#[tokio::test]
async fn a_body_of_exactly_the_cap_is_kept() {
    let (first, kept) = kept(4, Full::new(Bytes::from("abcd")));
    read(first).await;
    assert_eq!(read(kept.again(2).unwrap().into_body()).await.0, "abcd");
}

#[tokio::test]
async fn a_request_given_up_half_way_is_sent_from_the_start_and_then_read_on() {
    let (mut sender, channel) = Channel::<Bytes, Infallible>::new(4);
    let (mut first, kept) = kept(64, channel);
    sender.send_data(Bytes::from("ab")).await.unwrap();
    first.frame().await.unwrap().unwrap();

    let second = kept.again(2).unwrap().into_body();
    assert!(first.frame().await.unwrap().is_err(), "the earlier copy learns that it is one");

    sender.send_data(Bytes::from("cd")).await.unwrap();
    drop(sender);
    assert_eq!(read(second).await.0, "abcd");
}

#[tokio::test]
async fn an_earlier_copy_that_waits_is_woken_and_lets_go_of_its_connection() {
    let (mut sender, channel) = Channel::<Bytes, Infallible>::new(4);
    let (mut first, kept) = kept(64, channel);
    let (upload, again) = (WakeCounter::new(), WakeCounter::new());
    assert!(poll(&mut first, &upload).is_pending());

    let mut second = kept.again(2).unwrap().into_body();
    assert!(poll(&mut second, &again).is_pending());
    assert_eq!(upload.count(), 1, "nothing else will ever wake it");
    let Poll::Ready(Some(Err(error))) = poll(&mut first, &upload) else { panic!("not ended") };
    assert!(error.to_string().contains("is being sent again"), "{error}");

    sender.send_data(Bytes::from("ab")).await.unwrap();
    assert_eq!((upload.count(), again.count()), (1, 1), "the later copy reads on");
    assert!(matches!(poll(&mut second, &again), Poll::Ready(Some(Ok(_)))));
}

#[tokio::test]
async fn a_copy_that_has_what_it_needs_is_not_woken() {
    let (mut sender, channel) = Channel::<Bytes, Infallible>::new(4);
    let (mut first, kept) = kept(64, channel);
    let upload = WakeCounter::new();
    assert!(poll(&mut first, &upload).is_pending());
    sender.send_data(Bytes::from("ab")).await.unwrap();
    assert!(poll(&mut first, &upload).is_ready());
    assert_eq!(upload.count(), 1, "by the channel");
    let _again = kept.again(2);
    assert_eq!(upload.count(), 1);
}

/// A body that knows that it is over, as those of real clients do.
struct Known(Vec<Frame<Bytes>>);

impl Body for Known {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop().map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}

/// As hyper writes a body: it asks before every frame whether there is more to come.
async fn write<B>(mut body: ReplayBody<B>) -> (usize, bool)
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let (mut bytes, mut trailers) = (0, false);
    while !body.is_end_stream()
        && let Some(frame) = body.frame().await
    {
        let frame = frame.unwrap();
        bytes += frame.data_ref().map_or(0, Bytes::len);
        trailers |= frame.is_trailers();
    }
    (bytes, trailers)
}

#[tokio::test]
async fn trailers_are_sent_again_to_a_client_that_asks_whether_the_body_is_over() {
    let trailers = || Frame::trailers(HeaderMap::new());
    let with_data = Known(vec![trailers(), Frame::data(Bytes::from("ab"))]);
    for (body, expected) in [(with_data, (2, true)), (Known(vec![trailers()]), (0, true))] {
        let (first, kept) = kept(64, body);
        assert_eq!(write(first).await, expected);
        for attempt in 2..4 {
            assert_eq!(write(kept.again(attempt).unwrap().into_body()).await, expected);
        }
    }
}

#[tokio::test]
async fn empty_frames_are_not_kept() {
    let empty = Known((0..10_000).map(|_| Frame::data(Bytes::new())).collect());
    let (mut first, kept) = kept(16, empty);
    while first.frame().await.is_some() {}
    let mut again = kept.again(2).unwrap().into_body();
    assert!(again.frame().await.is_none());
}

#[tokio::test]
async fn a_slice_does_not_keep_the_buffer_that_it_is_part_of() {
    struct Large {
        bytes: Vec<u8>,
        _held: Arc<()>,
    }

    impl AsRef<[u8]> for Large {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }

    let held = Arc::new(());
    let slice = |_| {
        let large = Large { bytes: vec![7; 1 << 16], _held: held.clone() };
        Frame::data(Bytes::from_owner(large).slice(..1))
    };
    let (first, kept) = kept(16, Known((0..16).map(slice).collect()));
    read(first).await;
    assert_eq!(Arc::strong_count(&held), 1);
    assert_eq!(read(kept.again(2).unwrap().into_body()).await.0, [7; 16].as_slice());
}

#[tokio::test]
async fn small_frames_are_kept_in_one_piece() {
    let (first, kept) = kept(64, Known((0..64).map(|_| Frame::data(Bytes::from("x"))).collect()));
    read(first).await;
    let mut again = kept.again(2).unwrap().into_body();
    let frame = again.frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap().len(), 64);
    assert!(again.is_end_stream());
}

#[tokio::test]
async fn trailers_count_towards_the_cap() {
    let (first, kept) = kept(12, two_frames_and_trailers());
    assert_eq!(read(first).await.0, "abcd");
    assert!(kept.again(2).is_none());
}

#[tokio::test]
async fn the_length_of_a_known_body_stays_known() {
    let (first, kept) = kept(64, Full::new(Bytes::from("abcd")));
    assert_eq!(first.size_hint().exact(), Some(4));
    read(first).await;
    let again = kept.again(2).unwrap().into_body();
    assert_eq!(again.size_hint().exact(), Some(4));
    assert!(!again.is_end_stream());
}

#[tokio::test]
async fn a_request_without_a_body_is_kept_whatever_the_cap() {
    let (first, kept) = kept(0, http_body_util::Empty::<Bytes>::new());
    assert!(first.is_end_stream());
    assert!(kept.again(2).unwrap().into_body().is_end_stream());
}

#[tokio::test]
async fn who_names_no_cap_keeps_64_kib() {
    let keep = BufferBody::new(|body: ReplayBody<Full<Bytes>>| body);
    for (length, is_kept) in [(64 << 10, true), ((64 << 10) + 1, false)] {
        let body = Full::new(Bytes::from(vec![b'x'; length]));
        let (sent, kept) = keep.keep(Request::put("/").body(body).unwrap());
        read(sent.into_body()).await;
        assert_eq!(kept.again(2).is_some(), is_kept, "{length}");
    }
}

#[test]
fn a_request_is_idempotent_by_its_method_or_its_key_whoever_keeps_it() {
    let buffer = BufferBody::new(|body: ReplayBody<Full<Bytes>>| body);
    for (method, key, expected) in [
        (Method::GET, None, true),
        (Method::HEAD, None, true),
        (Method::PUT, None, true),
        (Method::DELETE, None, true),
        (Method::OPTIONS, None, true),
        (Method::TRACE, None, true),
        (Method::POST, None, false),
        (Method::PATCH, None, false),
        (Method::POST, Some("order-7"), true),
    ] {
        let mut request = Request::new(Full::<Bytes>::default());
        *request.method_mut() = method.clone();
        if let Some(key) = key {
            request.headers_mut().insert("idempotency-key", key.parse().unwrap());
        }
        let idempotent =
            (buffer.keep(request.clone()).1.idempotent(), CloneBody.keep(request).1.idempotent());
        assert_eq!(idempotent, (expected, expected), "{method} {key:?}");
    }
}

#[tokio::test]
async fn a_body_that_is_clone_is_sent_again_as_it_was_with_its_head() {
    let request = Request::put("/orders/7").header("x-shop", "north").body("abcd").unwrap();
    let (sent, kept) = CloneBody.keep(request);
    let again = kept.again(2).unwrap();
    for request in [sent, again] {
        assert_eq!((request.method(), request.uri().path()), (&Method::PUT, "/orders/7"));
        assert_eq!(request.headers()["x-shop"], "north");
        assert_eq!(*request.body(), "abcd");
    }
}
