//! Settings and their ranges.

use std::time::Duration;

use portcullis_core::{Backoff, Jitter};
use portcullis_poll::{Policy, PollConfig};

use crate::fakes::{SECOND, builder, to_the_end};

const DAY: Duration = Duration::from_secs(86_400);

fn refused(change: impl FnOnce(&mut PollConfig)) -> &'static str {
    let mut config = PollConfig::default();
    change(&mut config);
    assert!(Policy::new(&config).is_err());
    builder(to_the_end()).config(config).build().unwrap_err().field()
}

#[test]
fn what_is_out_of_its_range_is_named() {
    assert_eq!(refused(|c| c.max_polls = 0), "max_polls");
    assert_eq!(refused(|c| c.limit = Duration::ZERO), "limit");
    assert_eq!(refused(|c| c.limit = DAY * 30 + SECOND), "limit");
    assert_eq!(refused(|c| c.backoff = Backoff::fixed(DAY + SECOND)), "backoff.delay");
    assert_eq!(refused(|c| c.jitter = Jitter::Fraction(1.5)), "jitter.fraction");
    let custom = builder(to_the_end()).backoff_fn(DAY * 2, |_| SECOND).build();
    assert_eq!(custom.unwrap_err().field(), "backoff.max");
    let config = PollConfig::default();
    assert!(config.validate().is_ok());
    assert_eq!(Policy::new(&config).unwrap().max_polls(), config.max_polls);
    assert_eq!(builder(to_the_end()).limit(DAY * 30).build().unwrap().name(), "render");
}

#[cfg(feature = "serde")]
#[test]
fn a_file_may_set_all_of_them_and_unknown_ones_are_errors() {
    let text = r#"{ "backoff": { "fixed": { "delay": "2s" } }, "jitter": "none", "max_polls": 7, "limit": "1h" }"#;
    let config: PollConfig = serde_json::from_str(text).unwrap();
    assert_eq!(config.backoff, Backoff::fixed(SECOND * 2));
    assert_eq!((config.max_polls, config.limit), (7, SECOND * 3600));
    let again: PollConfig = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
    assert_eq!(again, config);
    let none: PollConfig = serde_json::from_str("{}").unwrap();
    assert_eq!(none, PollConfig::default());
    let error = serde_json::from_str::<PollConfig>(r#"{ "pols": 1 }"#).unwrap_err().to_string();
    assert!(error.contains("unknown field `pols`"), "{error}");
}
