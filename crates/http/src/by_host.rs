//! Requests, counted by the host they go to.

use std::borrow::Cow;

use http::{Request, header};
use portcullis_core::Key;

/// The host and port that a request goes to, in lower case: of its URI, else of its `Host` header.
///
/// Credentials in the URI are left out. A request that names no host has the key `""`.
///
/// ```
/// use http::Request;
/// use portcullis_core::Key;
/// use portcullis_http::ByHost;
///
/// let request = Request::get("http://Payments.internal:8080/42").body(()).unwrap();
/// assert_eq!(ByHost.key(&request), "payments.internal:8080");
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct ByHost;

// ===== impl ByHost =====

impl<B> Key<Request<B>> for ByHost {
    fn key<'r>(&self, req: &'r Request<B>) -> Cow<'r, str> {
        let host = match req.uri().authority() {
            Some(authority) => without_credentials(authority.as_str()),
            None => {
                let host = req.headers().get(header::HOST).and_then(|host| host.to_str().ok());
                host.unwrap_or_default().trim()
            }
        };
        match host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => Cow::Owned(host.to_ascii_lowercase()),
            false => Cow::Borrowed(host),
        }
    }
}

/// What is before the last `@` is somebody's name and password.
///
/// Hosts are short: a search made for long texts would cost as much as all else that a layer does by
/// key.
fn without_credentials(authority: &str) -> &str {
    let at = authority.bytes().rposition(|byte| byte == b'@');
    at.map_or(authority, |at| &authority[at + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(uri: &str, host: Option<&str>) -> String {
        let mut request = Request::get(uri);
        if let Some(host) = host {
            request = request.header(header::HOST, host);
        }
        ByHost.key(&request.body(()).unwrap()).into_owned()
    }

    #[test]
    fn the_uri_goes_before_the_header() {
        assert_eq!(key("http://a.test/x", Some("b.test")), "a.test");
        assert_eq!(key("/x", Some("B.test:81")), "b.test:81");
        assert_eq!(key("/x", None), "");
    }

    #[test]
    fn credentials_are_no_part_of_it() {
        assert_eq!(key("http://user:secret@a.test:80/", None), "a.test:80");
    }

    #[test]
    fn nothing_is_copied_for_a_host_in_lower_case() {
        let request = Request::get("http://a.test/").body(()).unwrap();
        assert!(matches!(ByHost.key(&request), Cow::Borrowed("a.test")));
    }
}
