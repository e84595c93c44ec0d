//! Requests, counted by the host they go to.

use std::{borrow::Cow, sync::Arc};

use http::{HeaderValue, Request, Uri, header, uri::Scheme};
use portcullis_core::Key;

/// The host and port that a request goes to: of its URI, else of its `Host` header.
///
/// One server has one key: letters are in lower case, and what changes nothing is left out, which is a
/// port that the URI's scheme has anyway, a dot at the name's end, and credentials. A request that names
/// no host has the key `""`.
///
/// ```
/// use http::Request;
/// use portcullis_core::Key;
/// use portcullis_http::ByHost;
///
/// let key = |uri: &str| ByHost.key(&Request::get(uri).body(()).unwrap()).into_owned();
/// assert_eq!(key("http://Payments.internal:8080/42"), "payments.internal:8080");
/// assert_eq!(key("https://user:secret@payments.internal.:443/"), "payments.internal");
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct ByHost;

/// As [`ByHost`], but with a key of one's choice for requests that name no host.
///
/// Such are those of a client that is for one target from the start and adds the host by itself, like
/// tonic's channel: what goes through it has one key then, and that may well be the target's name.
///
/// ```
/// use http::Request;
/// use portcullis_core::Key;
/// use portcullis_http::ByHostOr;
///
/// let request = |uri: &str| Request::get(uri).body(()).unwrap();
/// let key = ByHostOr::new("payments");
/// assert_eq!(key.key(&request("/shop.Orders/Place")), "payments");
/// assert_eq!(key.key(&request("http://other.internal/")), "other.internal");
/// ```
#[derive(Clone, Debug)]
pub struct ByHostOr {
    otherwise: Arc<str>,
}

// ===== impl ByHost =====

impl<B> Key<Request<B>> for ByHost {
    fn key<'r>(&'r self, req: &'r Request<B>) -> Cow<'r, str> {
        of(req.uri(), || req.headers().get(header::HOST))
    }
}

/// The key of a request to this URI, with this `Host` header.
pub(crate) fn of<'r>(uri: &'r Uri, host: impl FnOnce() -> Option<&'r HeaderValue>) -> Cow<'r, str> {
    let named = match uri.authority() {
        Some(authority) => authority.as_str(),
        None => host().and_then(|host| host.to_str().ok()).unwrap_or_default().trim(),
    };
    // One look at each letter: a call by key has little else to do, and most names are plain.
    let odd = named.bytes().fold(0, |odd, byte| odd | ODD[usize::from(byte)]);
    let host = match uri.authority() {
        Some(_) if odd & (AT | COLON) != 0 => {
            without_port_of(uri.scheme(), without_credentials(named))
        }
        _ => named,
    };
    let host = match odd & COLON != 0 {
        true => without_dot(host),
        false => {
            Cow::Borrowed(host.strip_suffix('.').filter(|name| !name.is_empty()).unwrap_or(host))
        }
    };
    match odd & CAPITAL != 0 {
        true => Cow::Owned(host.to_ascii_lowercase()),
        false => host,
    }
}

// ===== impl ByHostOr =====

impl ByHostOr {
    /// The key of a request that names no host.
    pub fn new(otherwise: impl Into<Arc<str>>) -> Self {
        Self { otherwise: otherwise.into() }
    }
}

impl<B> Key<Request<B>> for ByHostOr {
    fn key<'r>(&'r self, req: &'r Request<B>) -> Cow<'r, str> {
        match ByHost.key(req) {
            host if host.is_empty() => Cow::Borrowed(&*self.otherwise),
            host => host,
        }
    }
}

/// What there is to be seen to in a host's name, by the letters in it.
const CAPITAL: u8 = 1;
const AT: u8 = 2;
const COLON: u8 = 4;
const ODD: [u8; 256] = {
    let mut odd = [0; 256];
    let mut capital = b'A';
    while capital <= b'Z' {
        odd[capital as usize] = CAPITAL;
        capital += 1;
    }
    odd[b'@' as usize] = AT;
    odd[b':' as usize] = COLON;
    odd
};

/// What is before the last `@` is somebody's name and password.
///
/// Hosts are short: a search made for long texts would cost as much as all else that a layer does by
/// key.
fn without_credentials(authority: &str) -> &str {
    let at = authority.bytes().rposition(|byte| byte == b'@');
    at.map_or(authority, |at| &authority[at + 1..])
}

fn without_port_of<'a>(scheme: Option<&Scheme>, host: &'a str) -> &'a str {
    let usual = match scheme {
        Some(scheme) if *scheme == Scheme::HTTP => ":80",
        Some(scheme) if *scheme == Scheme::HTTPS => ":443",
        _ => return host,
    };
    host.strip_suffix(usual).unwrap_or(host)
}

/// Without the dot that says that a name is complete; the root's is all there is of it.
fn without_dot(host: &str) -> Cow<'_, str> {
    let end = host.bytes().rposition(|byte| byte == b':').unwrap_or(host.len());
    match host[..end].strip_suffix('.').filter(|name| !name.is_empty()) {
        None => Cow::Borrowed(host),
        Some(name) if end == host.len() => Cow::Borrowed(name),
        Some(name) => Cow::Owned([name, &host[end..]].concat()),
    }
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
        assert_eq!(key("http://user:secret@a.test:8080/", None), "a.test:8080");
    }

    #[test]
    fn a_server_has_one_key_however_it_is_written() {
        for uri in ["http://a.test", "http://A.test:80/", "http://a.test.:80", "http://a.test./x"] {
            assert_eq!(key(uri, None), "a.test", "{uri}");
        }
        assert_eq!(key("https://a.test:443/", None), "a.test");
        assert_eq!(key("https://a.test.:8443/", None), "a.test:8443");
        // Other ports are other servers, and so is each port that the scheme does not imply.
        assert_eq!(key("https://a.test:80/", None), "a.test:80");
        assert_eq!(key("http://a.test:8080/", None), "a.test:8080");
        // Nothing tells which scheme a request goes by whose URI is a path.
        assert_eq!(key("/x", Some("a.test:80")), "a.test:80");
        assert_eq!(key("http://[::1]:80/", None), "[::1]");
        assert_eq!(key("http://[::1]/", None), "[::1]");
        // The root of all names has none but this.
        assert_eq!(key("http://./", None), ".");
    }

    #[test]
    fn nothing_is_copied_for_a_host_in_lower_case() {
        let request = Request::get("http://a.test/").body(()).unwrap();
        assert!(matches!(ByHost.key(&request), Cow::Borrowed("a.test")));
    }
}
