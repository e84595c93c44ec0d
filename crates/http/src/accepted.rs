//! Operations that a server accepts and goes on with: followed by `202 Accepted`.

use std::future::{Ready, ready};

use http::{
    HeaderMap, HeaderName, Method, Request, Response, StatusCode, Uri, Version, header,
    uri::{PathAndQuery, Scheme},
};
use portcullis_core::{Follow, Look, Next, Progress};

use crate::hint;

/// Where to ask about an operation, in an answer that also says where its result will be (Microsoft REST
/// API Guidelines, "Long running operations").
const OPERATION_LOCATION: HeaderName = HeaderName::from_static("operation-location");

/// Follows operations that a server answers with `202 Accepted` (RFC 9110, section 15.3.3) and the place
/// to ask about them: `Operation-Location`, else `Location`; a malformed one is as if absent.
///
/// While the answer is a 202, that place is asked by GET: when `Retry-After` says, if the server says so.
/// An answer may name another place, or none and mean the same. Any other status is the end, and its
/// response the operation's, errors included. So is a 202 that names no place, or one that is malformed;
/// then there is nothing to follow. Servers that answer 200 while an operation goes on say it in the body:
/// [`follow_async`](portcullis_core::follow_async) can read that.
///
/// Polls carry the headers of the request that began the operation, but for those about its content and
/// its conditions. They go to the same origin only, unless [told otherwise](Self::any_origin). Their body
/// is the default one of the request's type, which must be an empty one. Extensions are not carried over.
///
/// ```
/// use portcullis_http::FollowAccepted;
///
/// # #[cfg(feature = "hyper-util")] {
/// # use portcullis_poll::PollLayer;
/// let poll = PollLayer::builder("render", FollowAccepted::new()).build();
/// # poll.unwrap(); }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct FollowAccepted {
    any_origin: bool,
}

/// What [`FollowAccepted`] knows of an operation.
#[derive(Clone, Debug)]
pub struct AcceptedOperation {
    /// Where the last request went.
    at: Uri,
    headers: HeaderMap,
    version: Version,
    /// Whether that was a poll.
    is_followed: bool,
}

// ===== impl FollowAccepted =====

impl FollowAccepted {
    /// Follows operations within the origin of the request that begins them.
    #[must_use]
    pub const fn new() -> Self {
        Self { any_origin: false }
    }

    /// Follows them to any host that the server names. What goes to another origin carries none of the
    /// request's headers but `Accept`, `Accept-Language` and `User-Agent`: no credentials.
    #[must_use]
    pub const fn any_origin(mut self) -> Self {
        self.any_origin = true;
        self
    }

    /// Where to ask next, if the answer says so, and with what headers.
    fn place(self, operation: &AcceptedOperation, answer: &HeaderMap) -> Option<(Uri, HeaderMap)> {
        let told = [OPERATION_LOCATION, header::LOCATION];
        let mut told = told.iter().filter_map(|name| hint::text(answer, name));
        let place = told.find_map(|told| resolve(&operation.at, told));
        match place {
            Some(place) if is_same_origin(&operation.at, &place) => {
                Some((place, operation.headers.clone()))
            }
            Some(place) if self.any_origin => Some((place, harmless(&operation.headers))),
            _ if operation.is_followed => Some((operation.at.clone(), operation.headers.clone())),
            _ => None,
        }
    }
}

impl<B: Default, R> Follow<Request<B>, Response<R>> for FollowAccepted {
    type Operation = AcceptedOperation;
    type Response = Response<R>;
    type Look = Ready<Look<Request<B>, Response<R>, AcceptedOperation>>;

    fn begin(&self, request: &Request<B>) -> AcceptedOperation {
        AcceptedOperation {
            at: request.uri().clone(),
            headers: of_any_request(request.headers()),
            version: request.version(),
            is_followed: false,
        }
    }

    fn look(&self, operation: AcceptedOperation, response: Response<R>) -> Self::Look {
        if response.status() != StatusCode::ACCEPTED {
            return ready(Ok(Progress::Done(response)));
        }
        let Some((place, headers)) = self.place(&operation, response.headers()) else {
            return ready(Ok(Progress::Done(response)));
        };
        let mut request = Request::new(B::default());
        *request.method_mut() = Method::GET;
        *request.version_mut() = operation.version;
        *request.uri_mut() = place.clone();
        *request.headers_mut() = headers.clone();
        let next = Next::new(request)
            .with_operation(AcceptedOperation {
                at: place,
                headers,
                is_followed: true,
                ..operation
            })
            .hint(hint::retry_after(response.headers()))
            .seen("202 Accepted");
        ready(Ok(Progress::Pending(next)))
    }
}

/// The headers of a request that are not about its content, its conditions or its connection.
fn of_any_request(headers: &HeaderMap) -> HeaderMap {
    let is_its_own = |name: &HeaderName| {
        const OWN: [HeaderName; 12] = [
            header::CONNECTION,
            header::EXPECT,
            header::IF_MATCH,
            header::IF_MODIFIED_SINCE,
            header::IF_NONE_MATCH,
            header::IF_RANGE,
            header::IF_UNMODIFIED_SINCE,
            header::RANGE,
            header::TE,
            header::TRAILER,
            header::TRANSFER_ENCODING,
            header::UPGRADE,
        ];
        let name_of_content = name.as_str().starts_with("content-");
        name_of_content || name.as_str() == "idempotency-key" || OWN.contains(name)
    };
    let pairs = headers.iter().filter(|(name, _)| !is_its_own(name));
    pairs.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Those that anybody may see.
fn harmless(headers: &HeaderMap) -> HeaderMap {
    const HARMLESS: [HeaderName; 3] = [header::ACCEPT, header::ACCEPT_LANGUAGE, header::USER_AGENT];
    let pairs = headers.iter().filter(|(name, _)| HARMLESS.contains(name));
    pairs.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn is_same_origin(one: &Uri, other: &Uri) -> bool {
    let port = |uri: &Uri| {
        uri.port_u16().or(match uri.scheme_str() {
            Some("http") => Some(80),
            Some("https") => Some(443),
            _ => None,
        })
    };
    let host = |uri: &Uri| uri.host().map(str::to_ascii_lowercase);
    one.scheme() == other.scheme() && host(one) == host(other) && port(one) == port(other)
}

/// What a reference means that comes with an answer to a request for `base` (RFC 3986, section 5.2);
/// `None` if it is malformed or no place that HTTP can ask.
fn resolve(base: &Uri, reference: &str) -> Option<Uri> {
    let reference = reference.split('#').next().filter(|reference| !reference.is_empty())?;
    if has_scheme(reference) {
        return reference.parse().ok().filter(is_askable);
    }
    if reference.starts_with("//") {
        let whole = format!("{}:{reference}", base.scheme_str()?);
        return whole.parse().ok().filter(is_askable);
    }
    let (path, query) = match reference.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (reference, None),
    };
    let path = if path.is_empty() {
        base.path().to_owned()
    } else if path.starts_with('/') {
        without_dots(path)
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        without_dots(&format!("{folder}/{path}"))
    };
    let whole = query.map_or(path.clone(), |query| format!("{path}?{query}"));
    let mut parts = base.clone().into_parts();
    parts.path_and_query = Some(whole.parse::<PathAndQuery>().ok()?);
    Uri::from_parts(parts).ok()
}

/// Whether HTTP can ask at a place that a server names in full. One that lacks the scheme is what reads
/// like an authority and is none, such as `job:7`; credentials in it are not the server's to give.
fn is_askable(place: &Uri) -> bool {
    let is_http = place.scheme().is_some_and(|it| *it == Scheme::HTTP || *it == Scheme::HTTPS);
    is_http
        && place.authority().is_some_and(|it| {
            // A port that is none is not the default one.
            let is_bare = it.as_str().trim_end_matches(':') == it.host();
            (is_bare || it.port_u16().is_some()) && !it.as_str().contains('@')
        })
}

fn has_scheme(reference: &str) -> bool {
    let scheme = reference.split_once(':').map_or("", |(scheme, _)| scheme);
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.chars().all(|it| it.is_ascii_alphanumeric() || "+-.".contains(it))
}

/// A path without the segments `.` and `..` (RFC 3986, section 5.2.4).
fn without_dots(path: &str) -> String {
    let mut kept = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." => kept.extend(is_last.then_some("")),
            ".." => {
                kept.pop();
                kept.extend(is_last.then_some(""));
            }
            segment => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use std::{future::Future, task::Poll, time::Duration};

    use http::HeaderValue;
    use portcullis_core::Hint;
    use proptest::prelude::*;

    use super::*;

    type Seen = Progress<Request<()>, Response<()>, AcceptedOperation>;

    fn accepted(headers: &[(&'static str, &str)]) -> Response<()> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::ACCEPTED;
        for (name, value) in headers {
            response.headers_mut().insert(*name, HeaderValue::from_str(value).unwrap());
        }
        response
    }

    fn look(follow: FollowAccepted, operation: AcceptedOperation, answer: Response<()>) -> Seen {
        let mut look =
            <FollowAccepted as Follow<Request<()>, Response<()>>>::look(&follow, operation, answer);
        match std::pin::Pin::new(&mut look)
            .poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
        {
            Poll::Ready(seen) => seen.unwrap(),
            Poll::Pending => panic!("it waits for nothing"),
        }
    }

    fn begun(follow: FollowAccepted) -> AcceptedOperation {
        let request = Request::post("https://jobs.test/v1/render?x=1")
            .header("authorization", "Bearer secret")
            .header("accept", "application/json")
            .header("content-type", "application/json")
            .header("idempotency-key", "17")
            .header("if-match", "\"a\"");
        Follow::<Request<()>, Response<()>>::begin(&follow, &request.body(()).unwrap())
    }

    fn next(seen: Seen) -> Next<Request<()>, AcceptedOperation> {
        match seen {
            Progress::Pending(next) => next,
            Progress::Done(response) => panic!("{response:?}"),
        }
    }

    #[test]
    fn references_mean_what_the_rfc_says() {
        let base = "http://a/b/c/d;p?q".parse().unwrap();
        for (reference, meant) in [
            ("g", "http://a/b/c/g"),
            ("./g", "http://a/b/c/g"),
            ("g/", "http://a/b/c/g/"),
            ("/g", "http://a/g"),
            ("//g", "http://g/"),
            ("?y", "http://a/b/c/d;p?y"),
            ("g?y", "http://a/b/c/g?y"),
            ("g#s", "http://a/b/c/g"),
            (";x", "http://a/b/c/;x"),
            (".", "http://a/b/c/"),
            ("..", "http://a/b/"),
            ("../g", "http://a/b/g"),
            ("../..", "http://a/"),
            ("../../../../g", "http://a/g"),
            ("/./g", "http://a/g"),
            ("/../g", "http://a/g"),
            ("g/./h", "http://a/b/c/g/h"),
            ("g/../h", "http://a/b/c/h"),
            ("https://b.test:8443/x?y=z", "https://b.test:8443/x?y=z"),
            ("http://[::1]/x", "http://[::1]/x"),
            ("http://[::1]:81/x", "http://[::1]:81/x"),
        ] {
            let resolved = resolve(&base, reference);
            assert_eq!(resolved, Some(meant.parse().unwrap()), "{reference}");
        }
        for malformed in [
            "",
            "#s",
            "mailto:a@b",
            "http://",
            "ftp://a/b",
            "http://me:secret@a/",
            "//me:secret@a/",
            "a b",
            "//",
            // No authorities, though they read like them.
            "job:7",
            "localhost:8080",
            "urn:job",
            "http://a:70000/b",
        ] {
            assert_eq!(resolve(&base, malformed), None, "{malformed}");
        }
        let too_long = format!("{}?x", "x".repeat(70_000));
        assert_eq!(resolve(&base, &too_long), None);
        // The caller's own credentials are no reason to look away.
        let own = "http://me:secret@a/b".parse().unwrap();
        assert_eq!(resolve(&own, "c"), Some("http://me:secret@a/c".parse().unwrap()));
        let path_only = "/v1/jobs".parse().unwrap();
        assert_eq!(resolve(&path_only, "jobs/7"), Some("/v1/jobs/7".parse().unwrap()));
        assert_eq!(resolve(&path_only, "//g"), None);
    }

    #[test]
    fn the_place_that_is_named_is_asked_as_the_first_request_was_but_for_its_content() {
        let follow = FollowAccepted::new();
        let answer = accepted(&[
            ("location", "/result/7"),
            ("operation-location", "jobs/7"),
            ("retry-after", "3"),
        ]);
        let first = next(look(follow, begun(follow), answer));
        assert_eq!(first.hint, Hint::After(Duration::from_secs(3)));
        assert_eq!(first.seen.as_deref(), Some("202 Accepted"));
        assert_eq!(first.request.method(), Method::GET);
        assert_eq!(first.request.uri(), "https://jobs.test/v1/jobs/7");
        let mut names: Vec<_> = first.request.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["accept", "authorization"]);

        let same = next(look(follow, first.operation, accepted(&[])));
        assert_eq!((same.request.uri(), same.hint), (first.request.uri(), Hint::None));
        let moved = accepted(&[("location", "../jobs/8")]);
        let moved = next(look(follow, same.operation, moved));
        assert_eq!(moved.request.uri(), "https://jobs.test/v1/jobs/8");

        let mut failed = Response::new(());
        *failed.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        let end = look(follow, moved.operation, failed);
        assert!(matches!(end, Progress::Done(response) if response.status() == 500));
    }

    #[test]
    fn another_origin_is_asked_only_if_it_may_be_and_sees_no_credentials() {
        let elsewhere = || accepted(&[("location", "https://other.test/jobs/7")]);
        let downgraded = accepted(&[("location", "http://jobs.test/jobs/7")]);
        let strict = FollowAccepted::new();
        for answer in [elsewhere(), downgraded] {
            let end = look(strict, begun(strict), answer);
            assert!(matches!(end, Progress::Done(response) if response.status() == 202));
        }
        let any = FollowAccepted::new().any_origin();
        let there = next(look(any, begun(any), elsewhere()));
        assert_eq!(there.request.uri(), "https://other.test/jobs/7");
        assert_eq!(there.request.headers().len(), 1);
        assert!(there.request.headers().contains_key("accept"));
        // Once there, a place at home is as foreign, and has nothing to see either.
        let home = accepted(&[("location", "https://jobs.test/jobs/7")]);
        let home = next(look(any, there.operation, home));
        assert!(!home.request.headers().contains_key("authorization"));
        let spelled = accepted(&[("location", "HTTPS://JOBS.test:443/jobs/7")]);
        let spelled = next(look(strict, begun(strict), spelled));
        assert!(spelled.request.headers().contains_key("authorization"));
    }

    #[test]
    fn a_malformed_place_is_as_if_absent_and_the_other_header_says_it() {
        let follow = FollowAccepted::new();
        for malformed in ["", "ht tp://", "urn:job:7"] {
            let answer = accepted(&[("operation-location", malformed), ("location", "/jobs/7")]);
            let next = next(look(follow, begun(follow), answer));
            assert_eq!(next.request.uri(), "https://jobs.test/jobs/7", "{malformed}");
        }
        // One that is not to be asked is not malformed: what the other names is no status.
        let foreign = [("operation-location", "https://other.test/7"), ("location", "/result/7")];
        let end = look(follow, begun(follow), accepted(&foreign));
        assert!(matches!(end, Progress::Done(_)));
    }

    #[test]
    fn an_answer_with_nothing_to_follow_is_the_end() {
        let follow = FollowAccepted::new();
        for headers in [&[][..], &[("location", "")], &[("location", "ht tp://")]] {
            let end = look(follow, begun(follow), accepted(headers));
            assert!(matches!(end, Progress::Done(response) if response.status() == 202));
        }
        let end = look(follow, begun(follow), Response::new(()));
        assert!(matches!(end, Progress::Done(_)));
    }

    proptest! {
        #[test]
        fn no_place_makes_it_panic(place in ".*", base in "/[a-z/.]{0,12}") {
            let base = format!("http://a.test{base}").parse().unwrap();
            if let Some(uri) = resolve(&base, &place) {
                prop_assert!(uri.path().starts_with('/'));
            }
        }
    }
}
