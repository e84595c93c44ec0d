//! A body that gives what it is told to, and a layer that is told how calls end.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use arbitrary::{Arbitrary, Result, Unstructured};
use bytes::{Buf, Bytes, buf::Chain};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use portcullis_core::{
    Call, Completion, Elapsed, End, Error, How, Outcome, Phase, Settle, Ticket, clock, sync::Mutex,
};
use portcullis_http::{GRPC_RETRY_PUSHBACK_MS, GRPC_STATUS};

/// What a body gives when it is polled.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    Pending,
    Data(Bytes),
    Trailers(HeaderMap),
    /// The connection breaks.
    Broken,
    /// A limit of a layer below runs out.
    Elapsed(Phase),
}

/// A body that takes the steps it is told to, and then ends.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) steps: VecDeque<Step>,
    /// Whether it says so when nothing is left.
    pub(crate) knows_its_end: bool,
    pub(crate) length: Length,
}

/// What a body says of its length.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    Unknown,
    Exact,
    /// More than there can be.
    Absurd,
}

/// Layers that note how the calls end that they were given a completion for.
pub(crate) struct Seen {
    name: Arc<str>,
    ends: Mutex<Vec<(u64, Outcome, How)>>,
}

/// A frame in pieces, as a client's buffers may have it.
type Data = Chain<Bytes, Bytes>;

/// What a poll for a frame gives.
pub(crate) type Polled<D, E = Error> = Poll<Option<std::result::Result<Frame<D>, E>>>;

/// The next frame, if it is there.
pub(crate) fn next<B>(body: &mut B) -> Polled<B::Data, B::Error>
where
    B: Body + Unpin,
{
    Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()))
}

// ===== impl Step =====

impl Step {
    pub(crate) fn data(data: &[u8]) -> Self {
        Self::Data(Bytes::copy_from_slice(data))
    }

    /// How many bytes of data it brings.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::Data(data) => data.len() as u64,
            _ => 0,
        }
    }

    fn is_last(&self) -> bool {
        matches!(self, Self::Trailers(_) | Self::Broken | Self::Elapsed(_))
    }
}

impl<'a> Arbitrary<'a> for Step {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(match u.int_in_range(0..=9)? {
            0..=2 => Self::Pending,
            3..=6 => Self::Data(vec![u.arbitrary()?; usize::from(u.arbitrary::<u8>()?)].into()),
            7 => Self::Trailers(trailers(u)?),
            8 => Self::Broken,
            _ => Self::Elapsed(*u.choose(&[
                Phase::Total,
                Phase::Readiness,
                Phase::Idle,
                Phase::Inherited,
            ])?),
        })
    }
}

fn trailers(u: &mut Unstructured<'_>) -> Result<HeaderMap> {
    let mut trailers = HeaderMap::new();
    for _ in 0..u.int_in_range(0..=2)? {
        let (name, value) = match u.int_in_range(0..=5)? {
            0 => (HeaderName::from_static("checksum"), "7"),
            1 => (GRPC_RETRY_PUSHBACK_MS, "20"),
            2 => (GRPC_STATUS, "0"),
            3 => (GRPC_STATUS, "8"),
            4 => (GRPC_STATUS, "14"),
            _ => (GRPC_STATUS, "4"),
        };
        let mut value = HeaderValue::from_static(value);
        // What a watched body below puts on the status of one that it ended.
        value.set_sensitive(value == "4" && u.arbitrary()?);
        trailers.insert(name, value);
    }
    Ok(trailers)
}

// ===== impl Script =====

impl Script {
    pub(crate) fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        let steps = steps.into_iter().collect();
        Self { steps, knows_its_end: false, length: Length::Unknown }
    }

    /// How many bytes of data are left.
    pub(crate) fn left(&self) -> u64 {
        self.steps.iter().map(Step::bytes).sum()
    }
}

impl<'a> Arbitrary<'a> for Script {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let (knows_its_end, length) = u.arbitrary()?;
        let mut steps = VecDeque::new();
        for _ in 0..u.int_in_range(0..=12)? {
            let step: Step = u.arbitrary()?;
            let is_last = step.is_last();
            steps.push_back(step);
            if is_last {
                break;
            }
        }
        Ok(Self { steps, knows_its_end, length })
    }
}

impl Body for Script {
    type Data = Data;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Polled<Data> {
        Poll::Ready(match self.steps.pop_front() {
            None => None,
            Some(Step::Pending) => return Poll::Pending,
            Some(Step::Data(mut data)) => {
                let half = data.split_to(data.len() / 2);
                Some(Ok(Frame::data(half.chain(data))))
            }
            Some(Step::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Some(Step::Broken) => {
                Some(Err(Error::inner(io::Error::from(io::ErrorKind::ConnectionReset))))
            }
            Some(Step::Elapsed(phase)) => {
                Some(Err(Error::rejected(Elapsed::new("below", phase, Duration::from_secs(1)))))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.knows_its_end && self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        match self.length {
            Length::Unknown => SizeHint::new(),
            Length::Exact => SizeHint::with_exact(self.left()),
            Length::Absurd => SizeHint::with_exact(u64::MAX - 1),
        }
    }
}

// ===== impl Seen =====

impl Seen {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { name: "seen".into(), ends: Mutex::default() })
    }

    /// A completion of layer `layer`.
    pub(crate) fn completion(self: &Arc<Self>, layer: u64, call: Call) -> Completion {
        Completion::new(self.clone(), Ticket(layer, 0), call, clock::now())
    }

    /// What was told so far, and to which layer.
    pub(crate) fn ends(&self) -> Vec<(u64, Outcome, How)> {
        self.ends.lock().clone()
    }

    pub(crate) fn outcomes(&self) -> Vec<Outcome> {
        self.ends.lock().iter().map(|(_, outcome, _)| *outcome).collect()
    }
}

impl Settle for Seen {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn settle(&self, ticket: Ticket, end: &End<'_>) {
        self.ends.lock().push((ticket.0, end.outcome, end.how));
    }
}
