//! Connections that are refused, reset or left, and streams that are refused.

use std::{
    future::ready,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use h2::Reason;
use http::{HeaderValue, Uri};
use hyper_util::{
    client::legacy::connect::{HttpConnector, dns::Name},
    rt::TokioIo,
};
use portcullis::{call, http::GRPC_PREVIOUS_RPC_ATTEMPTS};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
};
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};
use tower::{Layer, service_fn};

use super::{
    kit::{Ear, Heard, client, guarded, stack},
    raw::{Play, Raw, Reply, leaving},
    wire::{EchoClient, ask},
};

/// Calls what is there, as idempotent if it is; the answer or the status's code, and what was heard.
async fn call_at(addr: SocketAddr, idempotent: bool) -> (Result<String, Code>, Heard) {
    let ear = Ear::default();
    let stack = stack().observe(ear.clone()).build().unwrap();
    let mut client = client(&stack, addr);
    let say = client.say(ask("hello"));
    let answer = guarded(async {
        match idempotent {
            true => call::with().idempotent().run(say).await,
            false => say.await,
        }
    })
    .await;
    assert_eq!(stack.retry().budget().unwrap().waiting(), 0);
    let answer = answer.map(|answer| answer.into_inner().text).map_err(|status| status.code());
    (answer, ear.heard())
}

/// Hears what becomes of a call over a channel, which is not idempotent.
async fn call_over(channel: Channel) -> (Result<String, Code>, Heard) {
    let ear = Ear::default();
    let stack = stack().observe(ear.clone()).build().unwrap();
    let mut client = EchoClient::new(stack.layer(channel));
    let answer = guarded(client.say(ask("hello"))).await;
    let answer = answer.map(|answer| answer.into_inner().text).map_err(|status| status.code());
    (answer, ear.heard())
}

fn good() -> Play {
    Play::Reply(Reply::trailers(&[("grpc-status", "0")]).message("fine"))
}

#[tokio::test]
async fn a_refused_connection_is_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let (answer, heard) = call_at(addr, false).await;
    assert_eq!(answer, Err(Code::Unavailable));
    assert_eq!(heard.attempts, ["failure (connect)"; 3]);
    assert_eq!(heard.calls, ["failure (connect)"]);
}

#[tokio::test]
async fn a_name_that_is_not_found_is_tried_again() {
    let server = Raw::playing(vec![good()]).await;
    let addr = server.addr();
    let asked = Arc::new(AtomicUsize::new(0));
    let resolver = service_fn(move |_: Name| {
        let found = asked.fetch_add(1, Ordering::Relaxed) > 0;
        ready(if found { Ok([addr].into_iter()) } else { Err(io::Error::other("not found")) })
    });
    let endpoint = Endpoint::from_static("http://echo.test");
    let mut connector = HttpConnector::new_with_resolver(resolver);
    connector.enforce_http(false);
    let channel = endpoint.connect_with_connector_lazy(connector);
    let (answer, heard) = call_over(channel).await;
    assert_eq!(answer.as_deref(), Ok("fine"), "{heard:?}");
    assert_eq!(heard.attempts, ["failure (connect)", "success"]);
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn whatever_keeps_a_channel_from_connecting_is_tried_again() {
    let server = Raw::playing(vec![good()]).await;
    let nobodys = Ipv4Addr::new(192, 0, 2, 1);
    let endpoint = Endpoint::from_shared(format!("http://{}", server.addr())).unwrap();
    let channel = endpoint.local_address(Some(nobodys.into())).connect_lazy();
    let (answer, heard) = call_over(channel).await;
    assert_eq!(answer, Err(Code::Unavailable));
    assert_eq!(heard.attempts, ["failure (connect)"; 3]);
    assert_eq!(heard.calls, ["failure (connect)"]);
}

#[tokio::test]
async fn a_connector_of_ones_own_that_fails_in_its_own_way_is_tried_again() {
    let server = Raw::playing(vec![good()]).await;
    let addr = server.addr();
    let asked = Arc::new(AtomicUsize::new(0));
    let connector = service_fn(move |_: Uri| {
        let shakes_hands = asked.fetch_add(1, Ordering::Relaxed) > 0;
        async move {
            match shakes_hands {
                true => Ok(TokioIo::new(TcpStream::connect(addr).await?)),
                false => Err(io::Error::new(io::ErrorKind::InvalidData, "certificate expired")),
            }
        }
    });
    let endpoint = Endpoint::from_static("http://echo.test");
    let (answer, heard) = call_over(endpoint.connect_with_connector_lazy(connector)).await;
    assert_eq!(answer.as_deref(), Ok("fine"), "{heard:?}");
    assert_eq!(heard.attempts, ["failure (connect)", "success"]);
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_connection_that_breaks_is_tried_again_only_where_that_does_no_harm() {
    for play in [
        Play::Close,
        Play::GoAway(Reason::INTERNAL_ERROR),
        // It names our stream as one that it may have processed.
        Play::GoAway(Reason::NO_ERROR),
        Play::Reset(Reason::INTERNAL_ERROR),
        Play::Reset(Reason::ENHANCE_YOUR_CALM),
    ] {
        let server = Raw::playing(vec![play.clone(), good()]).await;
        let (answer, heard) = call_at(server.addr(), false).await;
        assert!(answer.is_err(), "{play:?}");
        assert_eq!((heard.attempts, server.requests()), (vec!["failure (other)".into()], 1));

        let server = Raw::playing(vec![play.clone(), good()]).await;
        let (answer, heard) = call_at(server.addr(), true).await;
        assert_eq!(answer.as_deref(), Ok("fine"), "{play:?}: {heard:?}");
        assert_eq!(heard.attempts, ["failure (other)", "success"], "{play:?}");
        assert_eq!(server.requests(), 2);
    }
}

#[tokio::test]
async fn what_a_leaving_server_did_not_process_is_sent_again() {
    let server = Raw::playing(vec![good()]).await;
    let (addr, _tasks) = leaving(2, server.addr()).await;
    let (answer, heard) = call_at(addr, false).await;
    assert_eq!(answer.as_deref(), Ok("fine"), "{heard:?}");
    assert_eq!(heard.attempts, ["failure (other)", "failure (other)", "success"]);
    assert_eq!(heard.calls, ["success"]);
}

#[tokio::test]
async fn streams_on_a_connection_that_leaves_come_to_their_end_while_others_go_to_the_next() {
    let end = Arc::new(Notify::new());
    let long = Reply::trailers(&[("grpc-status", "0")]).message("one").message("two");
    let server = Raw::playing(vec![Play::LeaveThen(long, end.clone()), good()]).await;
    let ear = Ear::default();
    let stack = stack().observe(ear.clone()).build().unwrap();
    let mut client = client(&stack, server.addr());
    guarded(async {
        let mut answers = client.count(ask("2")).await.unwrap().into_inner();
        for _ in 0..20 {
            assert_eq!(client.say(ask("hello")).await.unwrap().into_inner().text, "fine");
        }
        assert_eq!((ear.heard().calls.len(), server.connections()), (20, 2));
        end.notify_one();
        for text in ["one", "two"] {
            assert_eq!(answers.message().await.unwrap().unwrap().text, text);
        }
        assert_eq!(answers.message().await.unwrap(), None);
    })
    .await;
    assert_eq!(ear.heard().calls, ["success"; 21]);
    assert_eq!(
        server.requests(),
        21,
        "one that came to the connection too late is sent to the next"
    );
}

#[tokio::test]
async fn a_refused_stream_is_sent_again_once_as_the_same_attempt_and_then_as_another() {
    let refused = || Play::Reset(Reason::REFUSED_STREAM);
    let server = Raw::playing(vec![refused(), refused(), good()]).await;
    let (answer, heard) = call_at(server.addr(), false).await;
    assert_eq!(answer.as_deref(), Ok("fine"));
    assert_eq!(heard.attempts, ["failure (other)", "failure (other)", "success"]);
    let before = |nth| server.head(nth).headers.get(GRPC_PREVIOUS_RPC_ATTEMPTS).cloned();
    assert_eq!([0, 1, 2].map(before), [None, None, Some(HeaderValue::from(1))]);

    // Three attempts, and the one that cost none.
    let server = Raw::playing(vec![refused()]).await;
    let (answer, heard) = call_at(server.addr(), false).await;
    assert_eq!((answer, server.requests()), (Err(Code::Unavailable), 4));
    assert_eq!(heard.attempts, ["failure (other)"; 4]);
    assert_eq!(heard.calls, ["failure (other)"]);
}
