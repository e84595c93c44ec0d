//! `grpc-retry-pushback-ms`.

use std::time::Duration;

use portcullis_core::Hint;
use portcullis_http::{
    GRPC_RETRY_PUSHBACK_MS,
    hint::{self, LONGEST},
};

use crate::text;

/// The bytes are the header.
pub fn pushback(data: &[u8]) {
    let headers = text::headers(data, &[GRPC_RETRY_PUSHBACK_MS]);
    let expected = match headers.get(GRPC_RETRY_PUSHBACK_MS) {
        None => Hint::None,
        // gRFC A6: what is negative or no number of 32 bits asks never to come back.
        Some(value) => match text::whole(value).and_then(text::number).filter(|n| *n < 1 << 31) {
            Some(millis) => Hint::Exactly(Duration::from_millis(millis).min(LONGEST)),
            None => Hint::Never,
        },
    };
    assert_eq!(hint::grpc_pushback(&headers), expected);
}
