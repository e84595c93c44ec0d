//! What a request is counted by.

use std::borrow::Cow;

/// Finds the key of a request: what layers that hold state by key count it by.
///
/// A closure from the request to a `Cow<str>` is one; a type of its own can work for requests of
/// several types, as the one by host of `portcullis-http` does. A caller's
/// [`key`](crate::call::With::key) goes before it.
pub trait Key<Req> {
    /// The key of `req`: a text of the request, of what finds keys, or a new one.
    fn key<'r>(&'r self, req: &'r Req) -> Cow<'r, str>;
}

// ===== impl Key =====

impl<Req, F> Key<Req> for F
where
    F: for<'r> Fn(&'r Req) -> Cow<'r, str>,
{
    #[inline]
    fn key<'r>(&'r self, req: &'r Req) -> Cow<'r, str> {
        self(req)
    }
}
