//! Requests that can be sent more than once.

/// Takes a request apart, once and up front, into what is sent first and what is kept to send it
/// again.
///
/// This asks no `Clone` of the request: an HTTP body can be kept as it is being sent.
pub trait Keep<Req> {
    /// What the inner service is called with.
    type Sent;
    /// What is kept of the request.
    type Kept: Kept<Sent = Self::Sent>;

    /// Makes the first request to send, and keeps what is needed for others.
    fn keep(&self, req: Req) -> (Self::Sent, Self::Kept);
}

/// What is kept of a request in order to send it again.
pub trait Kept {
    /// What the inner service is called with.
    type Sent;

    /// Whether sending the request twice does no more than sending it once.
    fn idempotent(&self) -> bool;

    /// The request once more, for attempt `attempt`: 2, 3, …, or the same number again for an attempt that
    /// no application saw. `None` if it cannot be had, because its body was too long to be kept or is
    /// still being sent.
    fn again(&self, attempt: u32) -> Option<Self::Sent>;
}

/// Keeps a request by cloning it.
///
/// Nothing in a request of any type says whether it is idempotent, so whoever makes this says it.
/// For HTTP requests, whose method says so, use the one of `portcullis-http`.
#[derive(Clone, Copy, Debug)]
pub struct ByClone {
    idempotent: bool,
}

/// A request that [`ByClone`] keeps.
#[derive(Clone, Debug)]
pub struct Cloned<Req> {
    req: Req,
    idempotent: bool,
}

// ===== impl ByClone =====

impl ByClone {
    /// For requests that may be sent twice without harm.
    #[must_use]
    pub const fn idempotent() -> Self {
        Self { idempotent: true }
    }

    /// For requests that are sent again only if the peer cannot have acted on them, or if the caller
    /// says so for a call.
    #[must_use]
    pub const fn not_idempotent() -> Self {
        Self { idempotent: false }
    }
}

impl<Req: Clone> Keep<Req> for ByClone {
    type Sent = Req;
    type Kept = Cloned<Req>;

    fn keep(&self, req: Req) -> (Req, Cloned<Req>) {
        (req.clone(), Cloned { req, idempotent: self.idempotent })
    }
}

// ===== impl Cloned =====

impl<Req: Clone> Kept for Cloned<Req> {
    type Sent = Req;

    fn idempotent(&self) -> bool {
        self.idempotent
    }

    fn again(&self, _attempt: u32) -> Option<Req> {
        Some(self.req.clone())
    }
}
