//! gRPC's status codes, and which of them may be sent again.

use std::{fmt, ops::BitOr};

use portcullis_core::{FaultKind, Hint, Replay};

/// A set of gRPC's status codes.
///
/// ```
/// use portcullis_http::GrpcCodes;
///
/// let codes = GrpcCodes::UNAVAILABLE | GrpcCodes::ABORTED;
/// assert!(codes.contains(14) && !codes.contains(13));
/// assert_eq!(GrpcCodes::from_name("unavailable"), Some(GrpcCodes::UNAVAILABLE));
/// assert_eq!(codes.to_string(), "ABORTED, UNAVAILABLE");
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct GrpcCodes(u32);

/// Which status codes another attempt may mend. By default:
///
/// - UNAVAILABLE, also for RPCs that are not idempotent (gRFC A6's custom);
/// - RESOURCE_EXHAUSTED, where the server said when to come back;
/// - DEADLINE_EXCEEDED, if the RPC is idempotent.
///
/// ```
/// use portcullis_http::{GrpcCodes, GrpcRetryable};
///
/// // The server may have acted before it was gone.
/// let charge = GrpcRetryable::of(GrpcCodes::RESOURCE_EXHAUSTED)
///     .if_idempotent(GrpcCodes::UNAVAILABLE);
/// # let _ = charge;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrpcRetryable {
    always: GrpcCodes,
    if_idempotent: GrpcCodes,
    on_pushback: GrpcCodes,
}

// ===== impl GrpcCodes =====

impl GrpcCodes {
    /// No code.
    pub const NONE: Self = Self(0);
    /// 1
    pub const CANCELLED: Self = Self::of(1);
    /// 2
    pub const UNKNOWN: Self = Self::of(2);
    /// 3
    pub const INVALID_ARGUMENT: Self = Self::of(3);
    /// 4
    pub const DEADLINE_EXCEEDED: Self = Self::of(4);
    /// 5
    pub const NOT_FOUND: Self = Self::of(5);
    /// 6
    pub const ALREADY_EXISTS: Self = Self::of(6);
    /// 7
    pub const PERMISSION_DENIED: Self = Self::of(7);
    /// 8
    pub const RESOURCE_EXHAUSTED: Self = Self::of(8);
    /// 9
    pub const FAILED_PRECONDITION: Self = Self::of(9);
    /// 10
    pub const ABORTED: Self = Self::of(10);
    /// 11
    pub const OUT_OF_RANGE: Self = Self::of(11);
    /// 12
    pub const UNIMPLEMENTED: Self = Self::of(12);
    /// 13
    pub const INTERNAL: Self = Self::of(13);
    /// 14
    pub const UNAVAILABLE: Self = Self::of(14);
    /// 15
    pub const DATA_LOSS: Self = Self::of(15);
    /// 16
    pub const UNAUTHENTICATED: Self = Self::of(16);

    const fn of(code: u8) -> Self {
        Self(1 << code)
    }

    /// The set of this one code; `None` if gRPC has no such code.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        (usize::from(code) < FaultKind::GRPC_NAMES.len()).then(|| Self::of(code))
    }

    /// The set of the code of this name, in capitals or not: `UNAVAILABLE`. `None` if gRPC has no such
    /// code.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let code =
            FaultKind::GRPC_NAMES.iter().position(|known| known.eq_ignore_ascii_case(name))?;
        u8::try_from(code).ok().map(Self::of)
    }

    /// Whether the set has this code.
    #[must_use]
    pub const fn contains(self, code: u8) -> bool {
        code < 32 && self.0 & (1 << code) != 0
    }

    /// Whether the set has no code.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The codes of either set.
    #[must_use]
    pub const fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    const fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }
}

impl BitOr for GrpcCodes {
    type Output = Self;

    fn bitor(self, others: Self) -> Self {
        self.and(others)
    }
}

impl fmt::Display for GrpcCodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names =
            FaultKind::GRPC_NAMES.iter().zip(0..).filter(|(_, code)| self.contains(*code));
        if let Some((first, _)) = names.next() {
            f.write_str(first)?;
        }
        names.try_for_each(|(name, _)| write!(f, ", {name}"))
    }
}

impl fmt::Debug for GrpcCodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

// ===== impl GrpcRetryable =====

impl GrpcRetryable {
    /// The default.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            always: GrpcCodes::UNAVAILABLE,
            if_idempotent: GrpcCodes::DEADLINE_EXCEEDED,
            on_pushback: GrpcCodes::RESOURCE_EXHAUSTED,
        }
    }

    /// These codes and no others, whether or not the RPC is idempotent, as a service config's
    /// `retryableStatusCodes` has it.
    #[must_use]
    pub const fn of(codes: GrpcCodes) -> Self {
        Self { always: codes, if_idempotent: GrpcCodes::NONE, on_pushback: GrpcCodes::NONE }
    }

    /// The same, and these codes only if the RPC is idempotent.
    #[must_use]
    pub const fn if_idempotent(self, codes: GrpcCodes) -> Self {
        Self {
            always: self.always.without(codes),
            if_idempotent: self.if_idempotent.and(codes),
            on_pushback: self.on_pushback.without(codes),
        }
    }

    /// The same, and these codes only where the server said when to come back.
    #[must_use]
    pub const fn on_pushback(self, codes: GrpcCodes) -> Self {
        Self {
            always: self.always.without(codes),
            if_idempotent: self.if_idempotent.without(codes),
            on_pushback: self.on_pushback.and(codes),
        }
    }

    /// Whether an RPC that ended in `code` may be sent again.
    pub(super) fn replay(self, code: u8, hint: Hint) -> Replay {
        if self.always.contains(code) || (self.on_pushback.contains(code) && hint != Hint::None) {
            Replay::Safe
        } else if self.if_idempotent.contains(code) {
            Replay::IfIdempotent
        } else {
            Replay::Forbidden
        }
    }
}

impl Default for GrpcRetryable {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_code_is_known_by_its_number_and_by_its_name() {
        for (name, code) in FaultKind::GRPC_NAMES.iter().zip(0..) {
            let set = GrpcCodes::from_code(code).unwrap();
            assert_eq!(GrpcCodes::from_name(name), Some(set));
            assert_eq!(GrpcCodes::from_name(&name.to_lowercase()), Some(set));
            assert_eq!(set.to_string(), *name);
            for other in 0..=u8::MAX {
                assert_eq!(set.contains(other), other == code);
            }
        }
        assert_eq!(GrpcCodes::from_code(17), None);
        assert_eq!(GrpcCodes::from_name("TEAPOT"), None);
        assert!(GrpcCodes::NONE.is_empty());
    }

    #[test]
    fn the_last_word_on_a_code_is_the_one_that_counts() {
        let after = Hint::Exactly(Duration::ZERO);
        let retryable = GrpcRetryable::new()
            .if_idempotent(GrpcCodes::UNAVAILABLE)
            .on_pushback(GrpcCodes::DEADLINE_EXCEEDED);
        for (code, alone, on_pushback) in [
            (14, Replay::IfIdempotent, Replay::IfIdempotent),
            (8, Replay::Forbidden, Replay::Safe),
            (4, Replay::Forbidden, Replay::Safe),
            (13, Replay::Forbidden, Replay::Forbidden),
        ] {
            assert_eq!(retryable.replay(code, Hint::None), alone, "{code}");
            assert_eq!(retryable.replay(code, after), on_pushback, "{code}");
        }
    }
}
