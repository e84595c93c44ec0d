//! What is counted of one target: instruments bound to its attributes.

use std::{hash::Hash, sync::OnceLock, time::Duration};

use opentelemetry::{
    KeyValue,
    metrics::{BoundCounter, BoundHistogram, BoundUpDownCounter},
};
use portcullis_core::{
    Answer, Course, FaultKind, LayerKind, OnceMap, Outcome, Phase, ProcessStage, Reason,
    RejectionKind, State,
    sync::atomic::{AtomicBool, Ordering},
};

use crate::{
    instruments::Instruments,
    names::{OTHER, attribute},
    processes::Processes,
    words,
};

/// The series of one target, each bound when it is first needed.
pub(crate) struct Target {
    attributes: Vec<KeyValue>,
    /// The host and the port it is written with, where the target is one host.
    server: Option<(String, Option<u16>)>,
    /// Whether it was seen to speak gRPC.
    is_grpc: AtomicBool,
    started: OnceLock<BoundCounter<u64>>,
    active: OnceLock<BoundUpDownCounter<i64>>,
    duration: Series<&'static str, BoundHistogram<f64>>,
    rpc_duration: Series<Option<FaultKind>, BoundHistogram<f64>>,
    errors: Series<FaultKind, BoundCounter<u64>>,
    slow: OnceLock<BoundCounter<u64>>,
    timeouts: Series<Phase, BoundCounter<u64>>,
    rejections: Series<(LayerKind, RejectionKind), BoundCounter<u64>>,
    attempts: OnceLock<BoundCounter<u64>>,
    retries: Series<FaultKind, BoundCounter<u64>>,
    resent: Series<FaultKind, BoundCounter<u64>>,
    gave_up: Series<&'static str, BoundCounter<u64>>,
    retry_delay: OnceLock<BoundHistogram<f64>>,
    transitions: Series<(State, State), BoundCounter<u64>>,
    would_reject: OnceLock<BoundCounter<u64>>,
    polls: Series<&'static str, BoundCounter<u64>>,
    poll_duration: Series<&'static str, BoundHistogram<f64>>,
    processes: OnceLock<Processes>,
    limit_wait: OnceLock<BoundHistogram<f64>>,
    limit_cost: OnceLock<BoundCounter<u64>>,
    held_back: OnceLock<BoundCounter<u64>>,
    overflowed: Series<LayerKind, BoundCounter<u64>>,
    http_duration: Series<Asked, BoundHistogram<f64>>,
    http_size: Series<Asked, BoundHistogram<u64>>,
}

/// Instruments of one kind by what tells them apart, and one for what there is no room for: however
/// many statuses a server makes up, the series are few.
pub(crate) struct Series<K, I> {
    known: OnceMap<K, I>,
    rest: OnceLock<I>,
}

/// What tells requests of HTTP apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Asked {
    method: &'static str,
    port: Option<u16>,
    status: Option<u16>,
    fault: Option<FaultKind>,
}

/// How many series there may be of one instrument and one target.
pub(crate) const FEW: usize = 36;
pub(crate) const MANY: usize = 64;

// ===== impl Target =====

impl Target {
    /// The target of this name; with a key, only what has to do with that.
    pub(crate) fn new(name: &str, key: Option<&str>) -> Self {
        let mut attributes = vec![KeyValue::new(attribute::TARGET, name.to_owned())];
        let server = key.filter(|key| *key != OTHER).map(|key| {
            let (host, port) = words::host_and_port(key);
            (host.to_owned(), port)
        });
        attributes.extend(key.map(|key| KeyValue::new(attribute::KEY, key.to_owned())));
        Self {
            attributes,
            server,
            is_grpc: AtomicBool::new(false),
            started: OnceLock::new(),
            active: OnceLock::new(),
            duration: Series::new(FEW),
            rpc_duration: Series::new(FEW),
            errors: Series::new(FEW),
            slow: OnceLock::new(),
            timeouts: Series::new(FEW),
            rejections: Series::new(FEW),
            attempts: OnceLock::new(),
            retries: Series::new(FEW),
            resent: Series::new(FEW),
            gave_up: Series::new(FEW),
            retry_delay: OnceLock::new(),
            transitions: Series::new(FEW),
            would_reject: OnceLock::new(),
            polls: Series::new(FEW),
            poll_duration: Series::new(FEW),
            processes: OnceLock::new(),
            limit_wait: OnceLock::new(),
            limit_cost: OnceLock::new(),
            held_back: OnceLock::new(),
            overflowed: Series::new(FEW),
            http_duration: Series::new(MANY),
            http_size: Series::new(MANY),
        }
    }

    pub(crate) fn started(&self, of: &Instruments) {
        self.started.get_or_init(|| of.started.bind(&self.attributes)).add(1);
        self.active(of).add(1);
    }

    pub(crate) fn settled(&self, of: &Instruments, outcome: &Outcome, elapsed: Duration) {
        self.active(of).add(-1);
        let seconds = elapsed.as_secs_f64();
        let duration = self.duration.get(words::outcome(outcome), |word| {
            of.duration.bind(&self.with(&[(attribute::OUTCOME, word.unwrap_or(OTHER).into())]))
        });
        duration.record(seconds);
        let fault = outcome.kind();
        if let Some(fault) = fault {
            let bind = |fault: Option<_>| of.errors.bind(&self.failing(fault));
            self.errors.get(fault, bind).add(1);
        }
        if self.is_grpc.load(Ordering::Relaxed) && *outcome != Outcome::Cancelled {
            let bind = |fault: Option<_>| of.rpc_duration.bind(&self.rpc(fault.flatten()));
            self.rpc_duration.get(fault, bind).record(seconds);
        }
    }

    pub(crate) fn answered(&self, of: &Instruments, answer: &Answer, elapsed: Duration) {
        if answer.is_grpc {
            return;
        }
        let &Answer { method, status, fault, .. } = answer;
        // A port alone names nothing.
        let port = self.server.as_ref().and_then(|(_, port)| port.or(answer.port));
        let asked = Asked { method, port, status, fault };
        let duration =
            self.http_duration.get(asked, |asked| of.http_duration.bind(&self.http(asked)));
        duration.record(elapsed.as_secs_f64());
        if let Some(size) = answer.size {
            let bind = |asked: Option<_>| of.http_size.bind(&self.http(asked));
            self.http_size.get(asked, bind).record(size);
        }
    }

    /// Notes that calls to this target are by gRPC.
    pub(crate) fn speaks_grpc(&self) {
        // Read first: a line that all calls write to would be fought for. It guards nothing else.
        if !self.is_grpc.load(Ordering::Relaxed) {
            self.is_grpc.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn slow(&self, of: &Instruments) {
        self.slow.get_or_init(|| of.slow.bind(&self.attributes)).add(1);
    }

    pub(crate) fn timed_out(&self, of: &Instruments, phase: Phase) {
        let bind = |phase: Option<Phase>| {
            let word = phase.as_ref().map_or(OTHER, Phase::as_str);
            of.timeouts.bind(&self.with(&[(attribute::PHASE, word.into())]))
        };
        self.timeouts.get(phase, bind).add(1);
    }

    pub(crate) fn rejected(&self, of: &Instruments, by: LayerKind, kind: RejectionKind) {
        let bind = |which: Option<(LayerKind, RejectionKind)>| {
            let words = which.as_ref().map(|(by, kind)| (by.as_str(), kind.as_str()));
            let (layer, reason) = words.unwrap_or((OTHER, OTHER));
            let own = [(attribute::LAYER, layer.into()), (attribute::REASON, reason.into())];
            of.rejections.bind(&self.with(&own))
        };
        self.rejections.get((by, kind), bind).add(1);
    }

    pub(crate) fn attempting(&self, of: &Instruments) {
        self.attempts.get_or_init(|| of.attempts.bind(&self.attributes)).add(1);
    }

    pub(crate) fn retrying(&self, of: &Instruments, outcome: &Outcome, delay: Duration) {
        let fault = outcome.kind().unwrap_or(FaultKind::Other);
        self.retries.get(fault, |fault| of.retries.bind(&self.failing(fault))).add(1);
        let waits = self.retry_delay.get_or_init(|| of.retry_delay.bind(&self.attributes));
        waits.record(delay.as_secs_f64());
    }

    pub(crate) fn resending(&self, of: &Instruments, outcome: &Outcome) {
        let fault = outcome.kind().unwrap_or(FaultKind::Other);
        self.resent.get(fault, |fault| of.resent.bind(&self.failing(fault))).add(1);
    }

    pub(crate) fn gave_up(&self, of: &Instruments, reason: &Reason) {
        let bind = |word: Option<&str>| {
            let word = word.unwrap_or(OTHER).to_owned();
            of.gave_up.bind(&self.with(&[(attribute::REASON, word.into())]))
        };
        self.gave_up.get(words::gave_up(reason), bind).add(1);
    }

    pub(crate) fn state_changed(&self, of: &Instruments, from: State, to: State) {
        let bind = |change: Option<(State, State)>| {
            let words = change.as_ref().map(|(from, to)| (from.as_str(), to.as_str()));
            let (from, to) = words.unwrap_or((OTHER, OTHER));
            let own = [(attribute::FROM, from.into()), (attribute::TO, to.into())];
            of.transitions.bind(&self.with(&own))
        };
        self.transitions.get((from, to), bind).add(1);
    }

    pub(crate) fn would_reject(&self, of: &Instruments) {
        self.would_reject.get_or_init(|| of.would_reject.bind(&self.attributes)).add(1);
    }

    pub(crate) fn polled(&self, of: &Instruments, polls: u32, elapsed: Duration, course: Course) {
        let (poll, end) = words::course(&course);
        let outcome = |word: Option<&'static str>| {
            self.with(&[(attribute::OUTCOME, word.unwrap_or(OTHER).into())])
        };
        // The answer to the request that began it is no poll's.
        if let Some(word) = poll.filter(|_| polls > 0) {
            self.polls.get(word, |word| of.polls.bind(&outcome(word))).add(1);
        }
        if let Some(word) = end {
            let durations = &self.poll_duration;
            let duration = durations.get(word, |word| of.poll_duration.bind(&outcome(word)));
            duration.record(elapsed.as_secs_f64());
        }
    }

    pub(crate) fn process(
        &self,
        of: &Instruments,
        stage: ProcessStage,
        elapsed: Duration,
        put_out: [u64; 2],
    ) {
        let processes = self.processes.get_or_init(Processes::new);
        processes.tell(of, self, stage, elapsed, put_out);
    }

    pub(crate) fn waited(&self, of: &Instruments, waited: Duration) {
        let waits = self.limit_wait.get_or_init(|| of.limit_wait.bind(&self.attributes));
        waits.record(waited.as_secs_f64());
    }

    pub(crate) fn acquired(&self, of: &Instruments, cost: u32) {
        let taken = self.limit_cost.get_or_init(|| of.limit_cost.bind(&self.attributes));
        taken.add(u64::from(cost));
    }

    pub(crate) fn held_back(&self, of: &Instruments) {
        self.held_back.get_or_init(|| of.held_back.bind(&self.attributes)).add(1);
    }

    pub(crate) fn overflowed(&self, of: &Instruments, by: LayerKind) {
        let bind = |by: Option<LayerKind>| {
            let layer = by.as_ref().map_or(OTHER, LayerKind::as_str);
            of.overflowed.bind(&self.with(&[(attribute::LAYER, layer.into())]))
        };
        self.overflowed.get(by, bind).add(1);
    }

    fn active(&self, of: &Instruments) -> &BoundUpDownCounter<i64> {
        self.active.get_or_init(|| of.active.bind(&self.attributes))
    }

    /// The target's own attributes.
    pub(crate) fn attributes(&self) -> &[KeyValue] {
        &self.attributes
    }

    /// The target's own attributes and some more.
    pub(crate) fn with(&self, more: &[(&'static str, opentelemetry::Value)]) -> Vec<KeyValue> {
        let more = more.iter().map(|(key, value)| KeyValue::new(*key, value.clone()));
        self.attributes.iter().cloned().chain(more).collect()
    }

    fn failing(&self, fault: Option<FaultKind>) -> Vec<KeyValue> {
        let word = fault.map_or(OTHER.into(), words::error_type);
        self.with(&[(attribute::ERROR_TYPE, word.into())])
    }

    fn rpc(&self, fault: Option<FaultKind>) -> Vec<KeyValue> {
        let mut attributes = self.with(&[(attribute::RPC_SYSTEM, "grpc".into())]);
        if let Some(FaultKind::Grpc(code)) = fault {
            let status = words::grpc_status(code);
            attributes.push(KeyValue::new(attribute::RPC_STATUS, status));
        }
        let error = fault.map(words::error_type);
        attributes.extend(error.map(|word| KeyValue::new(attribute::ERROR_TYPE, word)));
        attributes
    }

    /// The attributes that the conventions want of a request; `None` for those there is no room for.
    fn http(&self, asked: Option<Asked>) -> Vec<KeyValue> {
        let method = asked.map_or(OTHER, |asked| asked.method);
        let mut attributes =
            vec![self.attributes[0].clone(), KeyValue::new(attribute::HTTP_REQUEST_METHOD, method)];
        match &self.server {
            Some((host, _)) => {
                attributes.push(KeyValue::new(attribute::SERVER_ADDRESS, host.clone()));
                let port = asked.and_then(|asked| asked.port).map(i64::from);
                attributes.extend(port.map(|port| KeyValue::new(attribute::SERVER_PORT, port)));
            }
            None if self.attributes.len() > 1 => {
                attributes.push(KeyValue::new(attribute::SERVER_ADDRESS, OTHER));
            }
            None => {}
        }
        let Some(asked) = asked else {
            attributes.push(KeyValue::new(attribute::ERROR_TYPE, OTHER));
            return attributes;
        };
        if let Some(status) = asked.status {
            let code = i64::from(status);
            attributes.push(KeyValue::new(attribute::HTTP_RESPONSE_STATUS_CODE, code));
        }
        // To a client, what it did wrong itself is an error as well.
        let failed = asked.status.filter(|status| *status >= 400).map(FaultKind::Status);
        let error = asked.fault.or(failed).map(words::error_type);
        attributes.extend(error.map(|word| KeyValue::new(attribute::ERROR_TYPE, word)));
        attributes
    }
}

// ===== impl Series =====

impl<K: Copy + Eq + Hash, I> Series<K, I> {
    pub(crate) fn new(most: usize) -> Self {
        Self { known: OnceMap::new(most), rest: OnceLock::new() }
    }

    /// The instrument for `key`, which `bind` makes if it is the first time; it makes the one for all
    /// that there is no room for when it is asked for nothing.
    #[inline]
    pub(crate) fn get(&self, key: K, bind: impl Fn(Option<K>) -> I) -> &I {
        let known =
            self.known.get_or_insert_with(&key, |known| *known == key, || (key, bind(Some(key))));
        known.unwrap_or_else(|| self.rest.get_or_init(|| bind(None)))
    }
}
