//! What goes into reqwest and what comes out of it, frame by frame.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, Method};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt, Channel, Full, StreamBody};
use portcullis::{Keep, Kept};
use portcullis_reqwest::{KeepBody, body, response};
use tower::ServiceExt;

use crate::support::{BOTH, Protocol, Reply, Upstream, client};

/// A body that is not `Sync`, as many are not.
struct Lonely(std::cell::Cell<Option<Bytes>>);

impl http_body::Body for Lonely {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(6)
    }
}

fn trailers() -> HeaderMap {
    HeaderMap::from_iter([(HeaderName::from_static("x-checksum"), "7".parse().unwrap())])
}

#[tokio::test]
async fn whole_bodies_stay_whole() {
    for whole in [
        body("text".to_owned()),
        body(Full::new(Bytes::from("text"))),
        body(reqwest::Body::from("text")),
    ] {
        assert_eq!(whole.as_bytes(), Some(&b"text"[..]));
    }
    assert_eq!(body(Full::<Bytes>::default()).as_bytes(), Some(&b""[..]));
    assert_eq!(body(http_body_util::Empty::<Bytes>::new()).as_bytes(), Some(&b""[..]));
}

#[tokio::test]
async fn a_stream_says_how_long_it_is_and_when_it_is_over() {
    let mut streamed = body(Lonely(Some(Bytes::from("lonely")).into()));
    assert_eq!(streamed.as_bytes(), None);
    assert_eq!(streamed.size_hint().exact(), Some(6));
    assert!(!streamed.is_end_stream());
    assert_eq!(streamed.frame().await.unwrap().unwrap().into_data().unwrap(), "lonely");
    assert!(streamed.frame().await.is_none());
}

#[tokio::test]
async fn a_body_is_sent_as_it_comes_and_its_trailers_after_it() {
    for protocol in BOTH {
        let upstream = Upstream::new(protocol, |asked| {
            assert_eq!(asked.body, "one two");
            assert_eq!(asked.trailers.as_ref().unwrap()["x-checksum"], "7");
            Reply::Whole(200, "heard")
        })
        .await;
        let (mut sender, channel) = Channel::<Bytes>::new(1);
        let mut request = upstream.request(Method::PUT, "/", channel);
        request.headers_mut().insert("trailer", "x-checksum".parse().unwrap());
        let sending = async {
            sender.send_data(Bytes::from("one ")).await.unwrap();
            sender.send_data(Bytes::from("two")).await.unwrap();
            sender.send_trailers(trailers()).await.unwrap();
            drop(sender);
        };
        let (answer, ()) = tokio::join!(client(protocol).oneshot(request), sending);
        assert_eq!(answer.unwrap().status(), 200, "{protocol:?}");
    }
}

#[tokio::test]
async fn an_answer_is_read_as_it_comes_and_its_trailers_after_it() {
    for protocol in BOTH {
        let upstream = Upstream::always(protocol, Reply::Stream).await;
        let mut request = upstream.get("/");
        request.headers_mut().insert("te", "trailers".parse().unwrap());
        let answer = client(protocol).oneshot(request).await.unwrap();
        let read = answer.into_body().collect().await.unwrap();
        assert_eq!(read.trailers(), Some(&trailers()), "{protocol:?}");
        assert_eq!(read.to_bytes(), "one two three");
    }
}

#[tokio::test]
async fn a_response_becomes_reqwests_own_with_all_that_it_had() {
    let upstream = Upstream::new(Protocol::Http2, |asked| match asked.head.uri.path() {
        "/old" => Reply::header(307, "location", "/new"),
        _ => Reply::Whole(200, "found"),
    })
    .await;
    let request = upstream.request(Method::PUT, "/old", "where?".to_owned());
    let mut answer = client(Protocol::Http2).oneshot(request).await.unwrap();
    answer.extensions_mut().insert("kept");

    let answer = response(answer);
    assert_eq!(answer.url().as_str(), upstream.url("/new"), "after redirects");
    assert_eq!(answer.version(), http::Version::HTTP_2);
    assert_eq!(answer.remote_addr().unwrap().to_string(), upstream.host());
    assert_eq!(answer.extensions().get(), Some(&"kept"));
    assert_eq!(answer.content_length(), Some(5));
    assert_eq!(answer.text().await.unwrap(), "found");
}

#[tokio::test]
async fn what_is_in_memory_is_kept_without_a_copy_and_a_stream_up_to_the_cap() {
    let keep = KeepBody::new().with_cap(4);
    let upstream = Upstream::always(Protocol::Http1, Reply::Hang).await;

    let large = Bytes::from(vec![7; 1 << 20]);
    let request = upstream.request(Method::PUT, "/", Full::new(large.clone()));
    let (sent, kept) = keep.keep(request);
    for sent in [sent, kept.again(2).unwrap(), kept.again(3).unwrap()] {
        assert_eq!(sent.body().as_bytes().unwrap().as_ptr(), large.as_ptr());
    }

    for (text, again) in [("four", Some("four")), ("fiver", None)] {
        let chunks = stream::iter([Ok::<_, std::io::Error>(Frame::data(Bytes::from(text)))]);
        let request = upstream.request(Method::POST, "/", StreamBody::new(chunks));
        let (sent, kept) = keep.keep(request);
        assert!(!kept.idempotent());
        assert_eq!(sent.into_body().collect().await.unwrap().to_bytes(), text);
        let second = match kept.again(2) {
            Some(second) => Some(second.into_body().collect().await.unwrap().to_bytes()),
            None => None,
        };
        assert_eq!(second.as_deref(), again.map(str::as_bytes), "{text}");
    }
}
