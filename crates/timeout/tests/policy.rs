//! What the engine says of its settings.

use std::time::Duration;

use portcullis_core::{Call, call, clock};
use portcullis_timeout::{Limits, TimeoutConfig, engine::Policy};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_operations_with_limits_of_their_own_are_named() {
    let mut config = TimeoutConfig::default();
    config.limits = Limits::new().with_total(9 * SECOND);
    assert_eq!(Policy::new(&config).unwrap().operations().count(), 0);

    config.operations.insert("report".to_owned(), Limits::new().with_total(3 * SECOND));
    config.operations.insert("export".to_owned(), Limits::new().with_total(5 * SECOND));
    let policy = Policy::new(&config).unwrap();
    let totals = policy.operations().map(|(name, it)| (name, policy.limits(it).total));
    let expected = [("export", Some(5 * SECOND)), ("report", Some(3 * SECOND))];
    assert_eq!(totals.collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn what_need_not_be_watched_is_known_beforehand() {
    let mut config = TimeoutConfig::default();
    config.limits = Limits::new().with_total(9 * SECOND);
    config.operations.insert("chat".to_owned(), Limits::new().with_head(SECOND));
    config.operations.insert("report".to_owned(), Limits::new().with_body(SECOND));
    let policy = Policy::new(&config).unwrap();
    for (name, head, body) in
        [("search", false, false), ("chat", true, false), ("report", false, true)]
    {
        let current = async { policy.plan(&Call::current(), None, clock::now()) };
        let plan = call::with().name(name).run(current).await;
        assert_eq!(
            (policy.limits_heads(&plan), policy.counts_from_head(&plan)),
            (head, body),
            "{name}"
        );
    }
}
