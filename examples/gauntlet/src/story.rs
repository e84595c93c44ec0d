//! The call that there is most to learn from, and why it was chosen.

use std::{cmp::Reverse, collections::BTreeSet, sync::Arc};

use portcullis::trace::{
    Status, Trace,
    record::{Attempt, Call, Event},
};
use portcullis_core::FaultKind;
use serde::{Serialize, Serializer};

use crate::{
    load::Course,
    tally::SideLog,
    traces::{Traces, request},
    weather::Weather,
};

/// The call to end with. It serializes as the object that `--json` prints.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Story {
    /// The request's id in the logs.
    pub(crate) request: u32,
    /// The weather that it was made in, and what came before it was over.
    pub(crate) weather: Vec<Weather>,
    /// What happened to it, in the order of [`Turn`].
    pub(crate) turns: Vec<Turn>,
    /// How many it was chosen of: calls that came through trouble, or all, if none did.
    pub(crate) chosen_of: usize,
    /// Its trace.
    #[serde(serialize_with = "record")]
    pub(crate) record: Arc<Trace>,
}

/// Something that happened to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Turn {
    /// It waited for the limit.
    Waited,
    /// The limit refused it.
    Limited,
    /// The breaker refused it.
    Refused,
    /// It was one of the calls that showed the breaker how the upstream is.
    Probed,
    /// It moved the breaker from one state to another.
    Moved,
    /// No connection could be made.
    Unconnected,
    /// It was answered 429.
    Throttled,
    /// It was answered another bad status.
    Failed,
    /// A body of its broke off.
    Cut,
    /// A time limit ran out.
    TimedOut,
    /// It was tried again after a backoff.
    BackedOff,
    /// It was tried again when it had been asked to come back.
    Heeded,
    /// For all that, it succeeded.
    Saved,
}

// ===== impl Traces =====

impl Traces {
    /// Of the calls that came through trouble (of all, if none did) the one that the most different
    /// things happened to; of several, the one that is told in the fewest words.
    pub(crate) fn story(&self, side: &SideLog, course: &Course) -> Option<Story> {
        let rank = |(trace, turns): &(&Arc<Trace>, Vec<Turn>)| {
            let told: usize = trace.calls.iter().map(|call| call.events.len()).sum();
            let id = request(trace);
            (turns.contains(&Turn::Saved), turns.len(), Reverse(told), Reverse(id))
        };
        let all: Vec<_> = self.kept.iter().map(|trace| (trace, turns(trace))).collect();
        let saved = all.iter().filter(|(_, turns)| turns.contains(&Turn::Saved)).count();
        let (record, turns) = all.into_iter().max_by_key(rank)?;
        let request = request(record)?;
        let call = side.calls.iter().find(|call| call.id == request)?;
        let (from, until) = (course.since_start(call.started), course.since_start(call.ended));
        let phases = course.script.phases().iter();
        let weather = phases.filter(|phase| phase.from <= until && from < phase.until);
        let weather = weather.map(|phase| phase.weather).collect();
        let chosen_of = if saved > 0 { saved } else { self.kept.len() };
        Some(Story { request, weather, turns, chosen_of, record: record.clone() })
    }
}

// ===== impl Story =====

impl Story {
    /// Who it is about.
    pub(crate) fn title(&self) -> String {
        let weather: Vec<_> = self.weather.iter().map(|weather| weather.name()).collect();
        format!("one call: request {} · weather: {}", self.request, weather.join(", then "))
    }

    /// Why it was chosen, in a sentence.
    pub(crate) fn reason(&self) -> String {
        let mut turns: Vec<_> = self.turns.iter().map(|turn| turn.as_str()).collect();
        let last = turns.pop().unwrap_or("met nothing");
        let turns = match &turns[..] {
            [] => last.to_owned(),
            others => format!("{} and {last}", others.join(", ")),
        };
        let all = match self.turns.contains(&Turn::Saved) {
            true => "calls that came through trouble",
            false => "traces",
        };
        format!(
            "chosen of {} {all}, for the most different things happened to it: it {turns}",
            self.chosen_of
        )
    }
}

// ===== impl Turn =====

impl Turn {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Waited => "waited for the limit",
            Self::Limited => "was refused by the limit",
            Self::Refused => "was refused by the breaker",
            Self::Probed => "served as a probe",
            Self::Moved => "moved the breaker",
            Self::Unconnected => "found no connection",
            Self::Throttled => "was answered 429",
            Self::Failed => "was answered a bad status",
            Self::Cut => "lost a body half-way",
            Self::TimedOut => "ran out of time",
            Self::BackedOff => "was retried after a backoff",
            Self::Heeded => "was retried when it had been asked to come back",
            Self::Saved => "succeeded in the end",
        }
    }

    fn of_attempt(attempt: &Attempt) -> Option<Self> {
        Some(match attempt.outcome.kind()? {
            FaultKind::Connect => Self::Unconnected,
            FaultKind::Status(429) => Self::Throttled,
            FaultKind::Status(_) => Self::Failed,
            FaultKind::Body => Self::Cut,
            FaultKind::Timeout => Self::TimedOut,
            _ => return None,
        })
    }

    fn of_event(event: &Event) -> Option<Self> {
        Some(match (&*event.layer, &*event.what) {
            ("ratelimit", "waited") => Self::Waited,
            ("ratelimit", "rejected") => Self::Limited,
            ("breaker", "rejected") => Self::Refused,
            ("breaker", "admitted") if event.why.starts_with("admitted while half-open") => {
                Self::Probed
            }
            ("breaker", "state_changed") => Self::Moved,
            ("retry", "retrying") if event.why.contains(": backoff") => Self::BackedOff,
            ("retry", "retrying") => Self::Heeded,
            _ => return None,
        })
    }
}

fn record<S: Serializer>(record: &Arc<Trace>, to: S) -> Result<S::Ok, S::Error> {
    record.serialize(to)
}

/// Everything that happened to the calls of a trace, each once.
fn turns(trace: &Trace) -> Vec<Turn> {
    let of_call = |call: &Call| {
        let attempts = call.attempts.iter().filter_map(Turn::of_attempt);
        let events = call.events.iter().filter_map(Turn::of_event);
        attempts.chain(events).collect::<Vec<_>>()
    };
    let mut turns: BTreeSet<_> = trace.calls.iter().flat_map(of_call).collect();
    if trace.status == Status::Success && !turns.is_empty() {
        turns.insert(Turn::Saved);
    }
    turns.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use bytes::Bytes;
    use http::{Request, Response, StatusCode};
    use http_body_util::{BodyExt, Full};
    use portcullis::{
        Stack,
        retry::Backoff,
        trace::{Recorder, TraceScope},
    };
    use portcullis_core::{BoxError, clock};
    use tower::{Layer, ServiceExt, service_fn};

    use super::*;
    use crate::{
        load::{Called, REQUEST},
        weather::Script,
    };

    fn course() -> Course {
        Course { script: Arc::new(Script::new(20, 1)), start: clock::now() }
    }

    fn called(id: u32, at: Instant) -> Called {
        Called { id, weather: Weather::Flaky, started: at, ended: at, result: Ok(()) }
    }

    /// Three calls through a stack: answered well, answered 503 at first, and well again.
    async fn three() -> Result<(Traces, SideLog), BoxError> {
        let since = clock::wall();
        let recorder = Recorder::builder().sample_rate(1.0).build()?;
        let soon = Duration::from_millis(1);
        let stack = Stack::production("upstream")
            .recorder(&recorder)
            .retry(|retry| retry.backoff(Backoff::exponential(soon, soon)))
            .build()?;
        let answers = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let service = stack.layer(service_fn(move |_: Request<Full<Bytes>>| {
            let place = answers.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let mut response = Response::new(Full::<Bytes>::default());
            if place == 1 {
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            }
            std::future::ready(Ok::<_, BoxError>(response))
        }));
        let mut side = SideLog::default();
        for id in 7..10 {
            let request = Request::get("http://localhost/").body(Full::default())?;
            let response = service.clone().oneshot(request);
            let read = async { response.await?.into_body().collect().await };
            TraceScope::start("GET /").attribute(REQUEST, id).run(read).await?;
            side.calls.push(called(id, clock::now()));
        }
        Ok((Traces::of(&recorder, since..clock::wall()).await?, side))
    }

    #[tokio::test]
    async fn the_call_that_most_happened_to_is_told() {
        let (traces, side) = three().await.unwrap();
        let story = traces.story(&side, &course()).unwrap();
        assert_eq!(story.title(), "one call: request 8 · weather: healthy");
        assert_eq!(story.request, 8);
        assert_eq!(story.turns, [Turn::Failed, Turn::BackedOff, Turn::Saved]);
        assert_eq!(
            story.reason(),
            "chosen of 1 calls that came through trouble, for the most different things \
             happened to it: it was answered a bad status, was retried after a backoff and succeeded in \
             the end"
        );
        let json = serde_json::to_value(&story).unwrap();
        assert_eq!(json["turns"][1], "backed_off");
        assert_eq!(json["record"]["calls"][0]["attempts"].as_array().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn a_trace_says_which_attempts_left_the_stack() {
        let log = three().await.unwrap().0.log();
        assert_eq!((log.seen, log.lost), (3, 0));
        let sent = |id| {
            let mut traced = log.traced.iter().filter(|traced| traced.id == Some(id));
            traced.next().unwrap().sent.iter().map(|sent| sent.outcome.kind()).collect::<Vec<_>>()
        };
        assert_eq!(sent(7), [None]);
        assert_eq!(sent(8), [Some(FaultKind::Status(503)), None]);
    }

    #[test]
    fn nothing_is_told_of_no_traces() {
        assert!(Traces::default().story(&SideLog::default(), &course()).is_none());
    }
}
