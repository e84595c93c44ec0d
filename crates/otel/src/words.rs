//! Bounded words for what failed, and why.

use std::borrow::Cow;

use portcullis_core::{Course, FaultKind, Outcome, ProcessFault, Reason};

use crate::names::OTHER;

/// How a call ended, as a metric's attribute.
pub(crate) fn outcome(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Success | Outcome::Ignored => "success",
        Outcome::Cancelled => "cancelled",
        Outcome::Throttled(_) => "throttled",
        Outcome::Failure(fault) => match fault.kind {
            FaultKind::Timeout => "timeout",
            FaultKind::Rejected => "rejected",
            _ => "error",
        },
    }
}

/// What became of a poll, if one was made, and of the operation, if it has ended.
pub(crate) fn course(course: &Course) -> (Option<&'static str>, Option<&'static str>) {
    match course {
        Course::Pending { .. } => (Some("pending"), None),
        Course::GaveUp { .. } => (Some("pending"), Some("timeout")),
        Course::Ended { outcome: ended } => (Some(outcome(ended)), Some(outcome(ended))),
        Course::Left { outcome: ended } => (None, Some(outcome(ended))),
        _ => (None, None),
    }
}

/// A failure as the value of `error.type`: of HTTP the status, of gRPC its name.
pub(crate) fn error_type(kind: FaultKind) -> Cow<'static, str> {
    match kind {
        FaultKind::Connect => "connect".into(),
        FaultKind::Timeout => "timeout".into(),
        FaultKind::Body => "body".into(),
        FaultKind::Rejected => "rejected".into(),
        FaultKind::Exit(_) => "exit".into(),
        FaultKind::Signal(_) => "signal".into(),
        FaultKind::Process(fault) => process_error(fault).into(),
        FaultKind::Status(code @ 100..=599) => code.to_string().into(),
        FaultKind::Grpc(code) => grpc_status(code).into(),
        _ => OTHER.into(),
    }
}

/// What failed in running a process, told from failures of other kinds.
fn process_error(fault: ProcessFault) -> &'static str {
    match fault {
        ProcessFault::Start => "process_start",
        ProcessFault::Stdin => "process_stdin",
        ProcessFault::Stdout => "process_stdout",
        ProcessFault::Stderr => "process_stderr",
        ProcessFault::Wait => "process_wait",
        ProcessFault::Parse => "process_parse",
        _ => OTHER,
    }
}

/// A failure as the value of `error.type`, from the words that a record has for it.
pub(crate) fn error_type_of(kind: &str) -> Cow<'static, str> {
    let code = |text: &str| text.parse::<u8>().ok();
    if let Some(status) = kind.strip_prefix("status ") {
        return match status.parse() {
            Ok(status) => error_type(FaultKind::Status(status)),
            Err(_) => OTHER.into(),
        };
    }
    if let Some(code) = kind.strip_prefix("grpc status ").and_then(code) {
        return grpc_status(code).into();
    }
    if let Some(fault) = kind.strip_prefix("process ") {
        use ProcessFault::{Parse, Start, Stderr, Stdin, Stdout, Wait};
        let mut known = [Start, Stdin, Stdout, Stderr, Wait, Parse].into_iter();
        return known.find(|known| known.as_str() == fault).map_or(OTHER, process_error).into();
    }
    match kind.split([':', ' ']).next() {
        Some(word @ ("connect" | "timeout" | "body" | "rejected" | "exit" | "signal")) => {
            word.to_owned().into()
        }
        _ => OTHER.into(),
    }
}

/// The name of a gRPC status (gRPC, "Status codes and their use"); what is none is `UNKNOWN`.
pub(crate) fn grpc_status(code: u8) -> &'static str {
    FaultKind::GRPC_NAMES.get(usize::from(code)).copied().unwrap_or("UNKNOWN")
}

/// Why no other attempt follows.
pub(crate) fn gave_up(reason: &Reason) -> &'static str {
    match reason {
        Reason::NotRetryable => "not_retryable",
        Reason::NotIdempotent => "not_idempotent",
        Reason::NotReplayable => "not_replayable",
        Reason::AttemptsUsed { .. } => "attempts_used",
        Reason::RefusedBelow => "refused_below",
        Reason::ReadinessFailed => "readiness_failed",
        Reason::RetryDisabled => "disabled",
        Reason::BudgetSpent { .. } => "budget_spent",
        Reason::DeadlineTooClose { .. } => "deadline",
        Reason::HintNever => "hint_never",
        Reason::HintTooLong { .. } => "hint_too_long",
        _ => OTHER,
    }
}

/// A host and its port, where it is written behind it.
pub(crate) fn host_and_port(host: &str) -> (&str, Option<u16>) {
    let plain = |host: &str| !host.contains(':') || host.starts_with('[') && host.ends_with(']');
    match host.rsplit_once(':') {
        Some((name, port)) if plain(name) => match port.parse() {
            Ok(port) => (name, Some(port)),
            Err(_) => (host, None),
        },
        _ => (host, None),
    }
}

#[cfg(test)]
mod tests {
    use portcullis_core::{Replay, Throttle};

    use super::*;

    #[test]
    fn a_host_is_told_from_its_port() {
        assert_eq!(host_and_port("a.test:81"), ("a.test", Some(81)));
        assert_eq!(host_and_port("a.test"), ("a.test", None));
        assert_eq!(host_and_port("[::1]:81"), ("[::1]", Some(81)));
        assert_eq!(host_and_port("[::1]"), ("[::1]", None));
        assert_eq!(host_and_port("::1"), ("::1", None));
        assert_eq!(host_and_port("a.test:http"), ("a.test:http", None));
        assert_eq!(host_and_port(""), ("", None));
    }

    #[test]
    fn words_for_failures_are_bounded() {
        assert_eq!(error_type(FaultKind::Status(503)), "503");
        assert_eq!(error_type(FaultKind::Status(999)), OTHER);
        assert_eq!(error_type(FaultKind::Grpc(14)), "UNAVAILABLE");
        assert_eq!(error_type(FaultKind::Grpc(99)), "UNKNOWN");
        assert_eq!(error_type(FaultKind::Other), OTHER);
        for (kind, word) in [
            ("status 503", "503"),
            ("grpc status 14", "UNAVAILABLE"),
            ("rejected: open", "rejected"),
            ("timeout", "timeout"),
            ("status 7000", OTHER),
            ("process made up", OTHER),
            ("made up", OTHER),
        ] {
            assert_eq!(error_type_of(kind), word);
        }
        for kind in [
            FaultKind::Exit(3),
            FaultKind::Signal(9),
            FaultKind::Process(ProcessFault::Wait),
            FaultKind::Process(ProcessFault::Parse),
            FaultKind::Connect,
            FaultKind::Body,
        ] {
            let word = error_type(kind);
            assert!(word != OTHER && word == error_type_of(&kind.to_string()), "{kind}");
        }
    }

    #[test]
    fn outcomes_have_the_words_of_traces_and_one_for_throttled() {
        let throttled = Outcome::Throttled(Throttle::new(FaultKind::Status(429)));
        let words = [
            (Outcome::Success, "success"),
            (Outcome::Ignored, "success"),
            (Outcome::Cancelled, "cancelled"),
            (throttled, "throttled"),
            (Outcome::timeout(), "timeout"),
            (Outcome::failure(FaultKind::Rejected, Replay::Safe), "rejected"),
            (Outcome::failure(FaultKind::Body, Replay::Safe), "error"),
        ];
        for (outcome, word) in words {
            assert_eq!(super::outcome(&outcome), word, "{outcome}");
        }
    }
}
