//! What is told by a request's head: where it goes, and whether it may be sent twice.

use http::{HeaderMap, HeaderName, Method, Request, Uri, header};
use portcullis_core::{Keep, Kept, Key};
use portcullis_http::{BufferBody, ByHost, CloneBody, ReplayBody};

use crate::{script::Script, text};

/// Line 1 is the method, line 2 the target, line 3 the `Host`, line 4 the `Idempotency-Key`.
pub fn request(data: &[u8]) {
    let mut lines = data.splitn(3, |byte| *byte == b'\n');
    let method = lines.next().and_then(|line| Method::from_bytes(line).ok());
    let uri = lines.next().and_then(|line| Uri::try_from(line).ok());
    let key = HeaderName::from_static("idempotency-key");
    let headers = text::headers(lines.next().unwrap_or_default(), &[header::HOST, key.clone()]);
    let (Some(method), Some(uri)) = (method, uri) else { return };

    let mut request = Request::new(Script::new([]));
    *request.method_mut() = method.clone();
    *request.uri_mut() = uri.clone();
    *request.headers_mut() = headers.clone();
    assert_eq!(ByHost.key(&request), host(&uri, &headers));

    let twice = ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"].contains(&method.as_str())
        || headers.contains_key(&key);
    let (sent, kept) = CloneBody.keep(request.clone());
    let again = kept.again(2).expect("a clone is always to be had");
    assert_eq!(kept.idempotent(), twice);
    let (first, buffered) = BufferBody::new(|body: ReplayBody<Script>| body).keep(request);
    assert_eq!(buffered.idempotent(), twice);
    let last = buffered.again(2).expect("nothing was sent yet");
    let heads =
        [sent.into_parts().0, again.into_parts().0, first.into_parts().0, last.into_parts().0];
    for head in heads {
        assert_eq!((&head.method, &head.uri, &head.headers), (&method, &uri, &headers));
    }
}

/// The host and port in lower case, without credentials.
fn host(uri: &Uri, headers: &HeaderMap) -> String {
    let host = match uri.authority() {
        Some(authority) => authority.as_str().split('@').next_back().unwrap_or_default(),
        None => text::plain(headers.get(header::HOST)).unwrap_or_default(),
    };
    host.to_ascii_lowercase()
}
