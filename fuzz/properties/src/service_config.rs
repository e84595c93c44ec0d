//! gRPC service configs.

use std::time::Duration;

use portcullis::{ServiceConfig, http::CloneBody, retry::RetryLayer, timeout::TimeoutLayer};

/// The bytes are the config. What is accepted can be built, and what is refused is named.
pub fn service_config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match ServiceConfig::parse(text) {
        Ok(config) => {
            let retries = config.retries(RetryLayer::builder("fuzzed", CloneBody)).build();
            let retries = retries.expect("whatever is accepted can be built");
            let attempts = retries.policy().max_attempts(&portcullis::Call::new());
            assert!((1..=5).contains(&attempts));
            // The waits of as many attempts as there can be are finite, whatever the multiplier.
            assert!(retries.policy().waits().take(5).all(|wait| wait.longest >= wait.shortest));
            let stacks = TimeoutLayer::builder("fuzzed").total(Duration::from_secs(30));
            config.timeouts(stacks).build().expect("whatever is accepted can be built");
            let _ = config.classifier();
        }
        Err(refused) => assert!(!refused.field().is_empty() && !refused.allowed().is_empty()),
    }
}
