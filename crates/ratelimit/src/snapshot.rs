//! What a person or a page is shown of a limit.

use std::time::{Duration, Instant};

use crate::{Bucket, Quota};

/// A limit at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// What may pass in each period.
    pub limit: u32,
    /// The period.
    pub per: Duration,
    /// What may pass at one moment.
    pub burst: u32,
    /// What could pass right now.
    pub left: u32,
    /// How long a call of cost 1 would have to wait; zero if it could pass. It grows with those that
    /// wait, with debts, and with a peer's hint.
    pub wait: Duration,
    /// Whether a peer's hint lets nothing pass now.
    pub held: bool,
}

// ===== impl Snapshot =====

impl Snapshot {
    pub(crate) fn of(bucket: &Bucket, quota: &Quota, now: Instant) -> Self {
        let ready = bucket.check(quota, 1, now).err().and_then(|refusal| refusal.at());
        Self {
            limit: quota.limit(),
            per: quota.per(),
            burst: quota.burst(),
            left: bucket.left(quota, now),
            wait: ready.map_or(Duration::ZERO, |at| at.saturating_duration_since(now)),
            held: bucket.is_held(quota, now),
        }
    }
}
