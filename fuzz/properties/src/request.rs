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

/// The host and port in lower case, without credentials, a dot at the name's end, or a port that goes
/// without saying.
fn host(uri: &Uri, headers: &HeaderMap) -> String {
    let (host, usual) = match uri.authority() {
        Some(authority) => {
            let host = authority.as_str().split('@').next_back().unwrap_or_default();
            (
                host,
                [("http", "80"), ("https", "443")]
                    .iter()
                    .find(|(scheme, _)| uri.scheme_str() == Some(scheme)),
            )
        }
        None => (text::plain(headers.get(header::HOST)).unwrap_or_default(), None),
    };
    let host = host.to_ascii_lowercase();
    let mut parts: Vec<&str> = host.split(':').collect();
    if parts.len() > 1 && usual.is_some_and(|(_, port)| parts.last() == Some(port)) {
        parts.pop();
    }
    // The name is all before the port; one that is nothing but a dot is the root's.
    let name = parts.len().saturating_sub(2);
    if parts[name].len() > 1 {
        parts[name] = parts[name].strip_suffix('.').unwrap_or(parts[name]);
    }
    parts.join(":")
}
