//! `grpc-timeout`, read.

use std::time::Duration;

use portcullis_http::{GRPC_TIMEOUT, parse_grpc_timeout};

use crate::text;

/// The bytes are the header.
pub fn grpc_timeout(data: &[u8]) {
    let headers = text::headers(data, &[GRPC_TIMEOUT]);
    let Some(value) = headers.get(GRPC_TIMEOUT) else { return };
    assert_eq!(parse_grpc_timeout(value), text::whole(value).and_then(read), "{value:?}");
}

fn read(text: &str) -> Option<Duration> {
    let nanos_each: u128 = match text.chars().last()? {
        'H' => 3_600_000_000_000,
        'M' => 60_000_000_000,
        'S' => 1_000_000_000,
        'm' => 1_000_000,
        'u' => 1_000,
        'n' => 1,
        _ => return None,
    };
    let digits = &text[..text.len() - 1];
    let number = u128::from(text::number(digits).filter(|_| digits.len() <= 8)?);
    let nanos = number * nanos_each;
    let seconds = u64::try_from(nanos / 1_000_000_000).expect("8 digits of hours are few seconds");
    Some(Duration::new(seconds, (nanos % 1_000_000_000) as u32))
}
