//! Keeping a request whose body is `Clone`.

use http::{Request, request::Parts};
use portcullis_core::{Keep, Kept};

use super::is_idempotent;

/// Keeps HTTP requests whose body is `Clone`, such as `Full<Bytes>`: the request reaches the client
/// in the type it has.
///
/// Whether a request is idempotent is told by its method, or by an `Idempotency-Key` header.
#[derive(Clone, Copy, Debug, Default)]
pub struct CloneBody;

/// A request that [`CloneBody`] keeps.
#[derive(Clone, Debug)]
pub struct KeptClone<B> {
    head: Parts,
    body: B,
}

// ===== impl CloneBody =====

impl<B: Clone> Keep<Request<B>> for CloneBody {
    type Sent = Request<B>;
    type Kept = KeptClone<B>;

    fn keep(&self, req: Request<B>) -> (Request<B>, KeptClone<B>) {
        let (head, body) = req.into_parts();
        let kept = KeptClone { head: head.clone(), body: body.clone() };
        (Request::from_parts(head, body), kept)
    }
}

// ===== impl KeptClone =====

impl<B: Clone> Kept for KeptClone<B> {
    type Sent = Request<B>;

    fn idempotent(&self) -> bool {
        is_idempotent(&self.head)
    }

    fn again(&self, _attempt: u32) -> Option<Request<B>> {
        Some(Request::from_parts(self.head.clone(), self.body.clone()))
    }
}
