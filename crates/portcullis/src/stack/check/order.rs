//! What the order of layers means where it is not the usual one.

use super::{Finding, Part, Severity};

/// Explains, for a stack built by hand, what each pair of parts means that stands another way round
/// than in the ready-made [`Stack`](crate::Stack). `parts` are given from the outside to the inside.
///
/// What is beneath a poll layer makes one request of an operation each time: it is a stack of its own, and
/// held against nothing above but that layer.
///
/// Every order is correct, so these are hints at what one may not have meant; nothing is found about
/// layers that are not ours.
///
/// ```
/// use portcullis::{Part, check_order};
///
/// let findings = check_order(&[Part::Total, Part::Breaker, Part::Retry, Part::Attempt]);
/// assert_eq!(findings[0].code, "breaker-outside-retry");
/// println!("{}", findings[0]);
/// ```
#[must_use]
pub fn check_order(parts: &[Part]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    let mut found = |finding: Finding| {
        if !findings.iter().any(|known| known.code == finding.code) {
            findings.push(finding);
        }
    };
    for (at, &outer) in parts.iter().enumerate() {
        for &inner in &parts[at + 1..] {
            if let Some(pair) = pair(outer, inner) {
                found(pair.finding(outer, inner));
            }
            if inner == Part::Poll {
                break;
            }
        }
        // Above all, or below all, a buffer parts nothing.
        if outer == Part::Buffer && at > 0 && at + 1 < parts.len() {
            found(BUFFER.finding(outer, parts[at + 1]));
        }
    }
    findings
}

/// What is to be said of two parts, the outer one first.
struct Pair {
    severity: Severity,
    code: &'static str,
    means: &'static str,
    advice: &'static str,
}

// ===== impl Pair =====

impl Pair {
    fn finding(&self, outer: Part, inner: Part) -> Finding {
        let what = match outer == inner {
            true => format!("There are two parts of the kind {outer}, one in the other."),
            false => format!("The {outer} stands outside the {inner}."),
        };
        Finding {
            severity: self.severity,
            code: self.code,
            part: outer,
            what,
            why: self.means.to_owned(),
            advice: self.advice.to_owned(),
        }
    }
}

const fn warning(code: &'static str, means: &'static str, advice: &'static str) -> Pair {
    Pair { severity: Severity::Warning, code, means, advice }
}

const fn note(code: &'static str, means: &'static str, advice: &'static str) -> Pair {
    Pair { severity: Severity::Note, code, means, advice }
}

const BUFFER: Pair = warning(
    "buffer-between-layers",
    "What is below is called in another task, which the call's scope does not reach: its deadline, \
     attempt number, key and trace are not seen there.",
    "Put the buffer above all of the layers, or below them.",
);

fn pair(outer: Part, inner: Part) -> Option<Pair> {
    use Part::{
        Attempt, Breaker, GrpcCall, Limit, Poll, Propagate, Rejections, Retry, Total, Trace,
    };
    Some(match (outer, inner) {
        (Retry, Retry) => warning(
            "retry-in-retry",
            "Their attempts multiply: 3 in 3 are up to 9 requests for one call.",
            "Leave one of them out; the outer one knows more of the call.",
        ),
        (Retry, Poll) => warning(
            "retry-outside-poll",
            "A poll that fails begins the whole operation anew, beside the one that goes on.",
            "Put retry inside poll, so that the poll alone is made again.",
        ),
        (Attempt, Poll) => warning(
            "attempt-outside-poll",
            "It bounds the whole operation, the waits between polls included.",
            "Put the attempt timeout inside poll.",
        ),
        (Limit, Poll) => warning(
            "limit-outside-poll",
            "An operation pays once, however often it is asked about.",
            "Put the rate limit inside poll, so that each request pays.",
        ),
        (Breaker, Poll) => note(
            "breaker-outside-poll",
            "An operation is one call to the breaker, and a probe lasts as long as it.",
            "Put the breaker inside poll, so that it sees each request.",
        ),
        (Trace, Trace) => note(
            "trace-in-trace",
            "Each makes a record of its own: a call and a call in it.",
            "Leave the inner one out.",
        ),
        (Limit, Retry) => warning(
            "limit-outside-retry",
            "A call pays once, whatever it sends: the server may get more than the limit.",
            "Put the rate limit inside retry, so that each attempt pays.",
        ),
        (Limit, Total) => warning(
            "limit-outside-total",
            "Waiting for a turn is not part of the whole call: it comes on top of the total limit.",
            "Put the rate limit inside the total timeout.",
        ),
        (Breaker, Retry) => warning(
            "breaker-outside-retry",
            "The breaker sees one verdict for all attempts: it opens later, and a retry does not \
             learn that it has opened.",
            "Put the breaker inside retry.",
        ),
        (Breaker, Limit) => warning(
            "breaker-outside-limit",
            "Calls wait for their turn though the breaker would refuse them, and a probe's time \
             runs while it waits.",
            "Put the breaker inside the rate limit.",
        ),
        (Breaker, Total) => note(
            "breaker-outside-total",
            "A call that ran out of time counts once, and not once for each attempt.",
            "Put the breaker inside retry, and the total timeout outside.",
        ),
        (Retry, Total) => warning(
            "retry-outside-total",
            "Each attempt has the whole limit: a call may take attempts × limit, and the waits \
             between them.",
            "Put the total timeout outside retry; bound each attempt by an attempt timeout.",
        ),
        (Attempt, Retry) => warning(
            "attempt-outside-retry",
            "It bounds all attempts together: one that hangs leaves no time for another.",
            "Put the attempt timeout inside retry.",
        ),
        (Attempt, Limit) => note(
            "attempt-outside-limit",
            "Waiting for a turn is charged to the attempt.",
            "Put the attempt timeout inside the rate limit.",
        ),
        (Attempt, Breaker) => note(
            "attempt-outside-breaker",
            "The same limits and the same counts; but time in which the breaker is not ready is \
             charged to the attempt.",
            "Put the attempt timeout inside the breaker.",
        ),
        (Propagate, Retry) => warning(
            "propagate-outside-retry",
            "The server is told the first attempt's time and number on every attempt.",
            "Put propagate next to the client.",
        ),
        (Propagate, Total | Attempt) => note(
            "propagate-outside-timeout",
            "The server is not told of this limit, and works on when it has run out.",
            "Put propagate next to the client.",
        ),
        (Total | Retry | Limit | Breaker | Attempt, Trace) => warning(
            "layer-outside-trace",
            "What that layer decides is in no trace.",
            "Put the trace layer outside of all that decide.",
        ),
        (Trace | Total | Retry | Limit | Breaker | Attempt, GrpcCall) => warning(
            "layer-outside-grpc-call",
            "That layer knows neither the call's method nor the deadline of its grpc-timeout.",
            "Put the gRPC call layer outside of all but rejections.",
        ),
        (Retry | Breaker | Limit, Rejections) => warning(
            "layer-outside-rejections",
            "It takes a refusal of ours for a response of the server's.",
            "Put the rejections layer outside of all others.",
        ),
        _ => return None,
    })
}
