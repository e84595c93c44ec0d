//! What the errors of HTTP clients mean: whether the server can have seen the request.

use std::{any::Any, error::Error as StdError, io};

use portcullis_core::{BoxError, Error, FaultKind, Outcome, Replay, find_error};

/// The verdict on a client's error.
///
/// What an error says of itself goes before what is known of clients. What broke off on this side is no
/// verdict on the server, whatever it broke off for. Failures to connect, and requests that the client or
/// the server's transport gave back, are safe to repeat; after that the server may have acted.
pub(crate) fn outcome(error: &Error) -> Outcome {
    if let Some(outcome) = error.own_outcome()
        && !is_said_of_request_body(error)
    {
        outcome
    } else if is_of_this_side(error) {
        Outcome::Ignored
    } else if never_connected(error) {
        Outcome::failure(FaultKind::Connect, Replay::Safe)
    } else if never_sent(error) {
        Outcome::failure(FaultKind::Other, Replay::Unsent)
    } else if never_processed(error) {
        Outcome::failure(FaultKind::Other, Replay::Unprocessed)
    } else {
        error.outcome()
    }
}

/// What failed, by an error of whatever type.
pub(crate) fn fault(error: &dyn Any) -> FaultKind {
    if let Some(error) = error.downcast_ref::<Error>() {
        return outcome(error).kind().unwrap_or(FaultKind::Other);
    }
    let known = error.downcast_ref::<BoxError>().map(|error| &**error as &(dyn StdError + 'static));
    let known = known.or_else(|| Some(error.downcast_ref::<io::Error>()? as _));
    #[cfg(feature = "hyper-util")]
    let known =
        known.or_else(|| Some(error.downcast_ref::<hyper_util::client::legacy::Error>()? as _));
    match known {
        Some(error) if never_connected(error) => FaultKind::Connect,
        _ => FaultKind::Other,
    }
}

fn never_connected(error: &(dyn StdError + 'static)) -> bool {
    #[cfg(feature = "hyper-util")]
    {
        if let Some(error) = find_error::<hyper_util::client::legacy::Error>(error) {
            return error.is_connect();
        }
        // Clients that bring their own pool, as tonic's channel, connect by hyper-util's connector.
        if find_error::<ConnectorError>(error).is_some() {
            return true;
        }
    }
    // tonic's channel says it of whatever its connector failed with.
    #[cfg(feature = "tonic")]
    if find_error::<tonic::ConnectError>(error).is_some() {
        return true;
    }
    // Whatever the client is, only connecting is ever refused.
    find_error::<io::Error>(error)
        .is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// The connector's own error, whatever failed: the name's resolution, the connection, its time limit.
#[cfg(feature = "hyper-util")]
type ConnectorError = <hyper_util::client::legacy::connect::HttpConnector as tower_service::Service<
    http::Uri,
>>::Error;

fn never_sent(error: &Error) -> bool {
    // hyper cancels only what it has not begun to write.
    #[cfg(feature = "hyper-util")]
    if error.find::<hyper::Error>().is_some_and(hyper::Error::is_canceled) {
        return true;
    }
    let _ = error;
    false
}

fn never_processed(error: &Error) -> bool {
    // RFC 9113, section 8.7: a refused stream was not processed, nor was one above the last stream
    // that a graceful GOAWAY names; h2 gives the latter's error to no other stream.
    #[cfg(feature = "h2")]
    if let Some(error) = error.find::<h2::Error>() {
        let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        let leaving = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
        return error.is_remote() && (refused || leaving);
    }
    let _ = error;
    false
}

/// Whether the verdict that an error brings along is one on the request's own body, which may be what
/// another call answered: it speaks of that call's server.
fn is_said_of_request_body(error: &Error) -> bool {
    #[cfg(feature = "hyper-util")]
    if let Some(client) = error.find::<hyper::Error>().filter(|client| client.is_user()) {
        return find_error::<Error>(client).is_some_and(|body| body.own_outcome().is_some());
    }
    let _ = error;
    false
}

/// Whether the fault is the caller's, above all a request's body that broke off: it says nothing of the
/// server, and the body cannot be sent again.
fn is_of_this_side(error: &Error) -> bool {
    #[cfg(feature = "hyper-util")]
    if error.find::<hyper::Error>().is_some_and(hyper::Error::is_user) {
        return true;
    }
    // hyper resets the stream of such a request, and has the reset for its error.
    #[cfg(feature = "h2")]
    if let Some(error) = error.find::<h2::Error>() {
        return error.is_reset() && !error.is_remote() && !error.is_library();
    }
    let _ = error;
    false
}

#[cfg(test)]
mod tests {
    use portcullis_core::Judged;

    use super::*;

    #[test]
    fn a_refused_connection_is_safe_to_repeat_and_a_broken_one_is_not() {
        let refused = Error::inner(io::Error::from(io::ErrorKind::ConnectionRefused));
        assert_eq!(outcome(&refused), Outcome::failure(FaultKind::Connect, Replay::Safe));

        let reset = Error::inner(io::Error::from(io::ErrorKind::ConnectionReset));
        assert_eq!(outcome(&reset), Outcome::failure(FaultKind::Other, Replay::IfIdempotent));
    }

    #[test]
    fn a_refused_connection_is_known_by_whatever_type_it_comes_as() {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(fault(&refused()), FaultKind::Connect);
        assert_eq!(fault(&BoxError::from(refused())), FaultKind::Connect);
        assert_eq!(fault(&Error::inner(refused())), FaultKind::Connect);
        assert_eq!(fault(&BoxError::from("else")), FaultKind::Other);
        assert_eq!(fault(&"no error at all"), FaultKind::Other);
    }

    #[test]
    fn a_client_of_its_own_mind_is_believed() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let judged = Error::inner(Judged::new(refused, Outcome::Ignored));
        assert_eq!(outcome(&judged), Outcome::Ignored);
    }

    /// The verdict on a call whose request's body ends with an error.
    #[cfg(feature = "hyper-util")]
    async fn of_request_body(error: impl Into<BoxError>) -> Outcome {
        let (here, _there) = tokio::io::duplex(1024);
        let io = hyper_util::rt::TokioIo::new(here);
        let (mut client, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        let broken = Err::<http_body::Frame<bytes::Bytes>, BoxError>(error.into());
        let body = http_body_util::StreamBody::new(futures_util::stream::iter([broken]));
        let call = client.send_request(http::Request::put("/").body(body).unwrap());
        let (answer, _) = tokio::join!(call, connection);
        let error = Error::inner(answer.unwrap_err());
        let http = crate::HttpClassifier::new();
        let head: Result<&http::Response<String>, _> = Err(&error);
        let outcome = portcullis_core::Classify::at_head(&http, head).outcome();
        assert_eq!(outcome, super::outcome(&error));
        outcome
    }

    #[cfg(feature = "hyper-util")]
    #[tokio::test]
    async fn what_ended_a_requests_body_is_no_verdict_on_the_server_it_goes_to() {
        use portcullis_core::{Elapsed, Phase};

        let elapsed = Elapsed::new("source", Phase::Body, std::time::Duration::from_secs(1));
        let elsewhere = Outcome::failure(FaultKind::Connect, Replay::Safe);
        for error in [
            Error::rejected(elapsed),
            Error::inner(Judged::new("the source is down", elsewhere)),
            Error::inner(io::Error::from(io::ErrorKind::ConnectionRefused)),
        ] {
            let says = error.to_string();
            assert_eq!(of_request_body(error).await, Outcome::Ignored, "{says}");
        }
    }

    #[cfg(feature = "h2")]
    #[test]
    fn a_stream_reset_here_is_not_the_servers_refusal() {
        let local = Error::inner(h2::Error::from(h2::Reason::REFUSED_STREAM));
        assert_eq!(outcome(&local), Outcome::failure(FaultKind::Other, Replay::IfIdempotent));
    }
}
