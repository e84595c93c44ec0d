//! Bodies that are kept while they are sent: whatever is polled, replayed or dropped when, the server
//! gets the whole body or learns that it did not.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body::Body as _;
use portcullis_core::{Keep, Kept};
use portcullis_http::{BufferBody, ReplayBody};
use portcullis_testkit::WakeCounter;

use crate::script::{Length, Polled, Script, Step};

#[derive(Arbitrary, Debug)]
struct Input {
    cap: u16,
    body: Script,
    moves: Vec<Move>,
}

#[derive(Arbitrary, Debug)]
enum Move {
    /// The latest copy is polled.
    Poll,
    /// The request is sent again.
    Again,
    /// An earlier copy is polled.
    PollEarlier(u8),
    /// The latest copy is dropped.
    Drop,
}

/// What is known of a body by its script alone.
struct Model {
    script: Script,
    cap: usize,
    /// What came out of the body.
    sent: Vec<u8>,
    trailers: Option<HeaderMap>,
    /// How much of the cap is used up.
    kept: usize,
    replayable: bool,
    /// Whether the body has shown that it is over.
    ended: bool,
    /// The copies before the latest.
    earlier: usize,
    /// How much had come out of the body before the latest copy began.
    prefix: usize,
    /// How much of that the latest copy has repeated, and in how many frames.
    repeated: usize,
    frames: usize,
    trailers_sent: bool,
    /// Whether the latest copy waits for a frame.
    waits: bool,
}

/// A cap, a body, and what is done with its copies.
pub fn buffer_body(data: &[u8]) {
    let Ok(input) = Input::arbitrary(&mut Unstructured::new(data)) else { return };
    let cap = usize::from(input.cap % 1_024);
    let keep = BufferBody::new(|body: ReplayBody<Script>| body).with_cap(cap);
    let request = Request::put("/").header("a", "b").body(input.body.clone());
    let (first, kept) = keep.keep(request.expect("it is a request"));
    let mut model = Model::new(input.body, cap);
    let wakes = WakeCounter::new();
    let mut woken = 0;
    let mut earlier = Vec::new();
    let mut latest = Some(first.into_body());

    for step in input.moves {
        match step {
            Move::Poll => {
                if let Some(body) = &mut latest {
                    let polled = poll(body, &wakes);
                    model.polled(polled);
                }
            }
            Move::Again => {
                let again = kept.again(2);
                assert_eq!(again.is_some(), model.replayable, "sent again");
                if let Some(again) = again {
                    assert_eq!(
                        (again.method().as_str(), &again.headers()["a"]),
                        ("PUT", &"b".parse().expect("plain"))
                    );
                    woken += usize::from(model.waits);
                    earlier.extend(latest.replace(again.into_body()));
                    model.again();
                }
            }
            Move::PollEarlier(which) if !earlier.is_empty() => {
                let which = usize::from(which) % earlier.len();
                let body = &mut earlier[which];
                assert!(matches!(poll(body, &wakes), Poll::Ready(Some(Err(_)))), "superseded");
                assert!(!body.is_end_stream(), "it did not come to its end");
                let _ = body.size_hint();
            }
            Move::PollEarlier(_) => {}
            Move::Drop => latest = None,
        }
        assert_eq!(wakes.count(), woken, "who waits is woken when it need not wait");
        if let Some(body) = &latest {
            model.agrees(body);
        }
    }
    // In the end the latest copy is read out.
    while let Some(body) = &mut latest {
        let polled = poll(body, &wakes);
        let over = matches!(polled, Poll::Ready(None | Some(Err(_))));
        model.polled(polled);
        model.agrees(body);
        if over {
            break;
        }
    }
}

fn poll(body: &mut ReplayBody<Script>, wakes: &WakeCounter) -> Polled<Bytes> {
    Pin::new(body).poll_frame(&mut Context::from_waker(&wakes.waker()))
}

// ===== impl Model =====

impl Model {
    fn new(script: Script, cap: usize) -> Self {
        Self {
            script,
            cap,
            sent: Vec::new(),
            trailers: None,
            kept: 0,
            replayable: true,
            earlier: 0,
            prefix: 0,
            repeated: 0,
            frames: 0,
            ended: false,
            trailers_sent: false,
            waits: false,
        }
    }

    fn again(&mut self) {
        self.earlier += 1;
        self.prefix = self.sent.len();
        self.repeated = 0;
        self.frames = 0;
        self.trailers_sent = false;
        self.waits = false;
    }

    /// Holds what the latest copy gave to what it had to give.
    fn polled(&mut self, polled: Polled<Bytes>) {
        self.waits = false;
        if self.repeated < self.prefix {
            let Poll::Ready(Some(Ok(frame))) = polled else { panic!("{polled:?} for a prefix") };
            let data = frame.into_data().expect("the data comes before the trailers");
            assert!(!data.is_empty());
            assert!(self.sent[self.repeated..self.prefix].starts_with(&data));
            self.repeated += data.len();
            self.frames += 1;
            assert!(self.frames <= self.earlier, "a piece for each attempt at the most");
            return;
        }
        match self.script.steps.pop_front() {
            Some(Step::Pending) => {
                assert!(polled.is_pending());
                self.waits = true;
            }
            Some(Step::Data(expected)) => {
                let Poll::Ready(Some(Ok(frame))) = polled else { panic!("{polled:?} for data") };
                assert_eq!(frame.into_data().ok(), Some(expected.clone()));
                self.sent.extend_from_slice(&expected);
                self.charge(expected.len());
            }
            Some(Step::Trailers(expected)) => {
                let Poll::Ready(Some(Ok(frame))) = polled else {
                    panic!("{polled:?} for trailers")
                };
                assert_eq!(frame.into_trailers().ok(), Some(expected.clone()));
                self.charge(
                    expected.iter().map(|(name, value)| name.as_str().len() + value.len()).sum(),
                );
                self.trailers = Some(expected);
                self.trailers_sent = true;
                self.ended = true;
            }
            Some(Step::Broken | Step::Elapsed(_)) => {
                assert!(matches!(polled, Poll::Ready(Some(Err(_)))), "{polled:?} for an error");
                self.replayable = false;
                self.ended = true;
            }
            None => {
                self.ended = true;
                if let Some(expected) = self.trailers.clone().filter(|_| !self.trailers_sent) {
                    let Poll::Ready(Some(Ok(frame))) = polled else { panic!("{polled:?}") };
                    assert_eq!(frame.into_trailers().ok(), Some(expected));
                    self.trailers_sent = true;
                } else {
                    assert!(matches!(polled, Poll::Ready(None)), "{polled:?} after the end");
                }
            }
        }
    }

    fn charge(&mut self, bytes: usize) {
        self.kept += bytes;
        self.replayable &= self.kept <= self.cap;
    }

    /// Holds what the latest copy says of itself to what is to come.
    fn agrees(&self, body: &ReplayBody<Script>) {
        let repeated = self.repeated == self.prefix;
        let trailers = self.trailers_sent || self.trailers.is_none();
        let ended = self.ended || self.script.is_end_stream();
        assert_eq!(body.is_end_stream(), repeated && trailers && ended, "whether it is over");

        let to_come = (self.prefix - self.repeated) as u64 + self.script.left();
        let hint = body.size_hint();
        match self.script.length {
            Length::Exact => assert_eq!(hint.exact(), Some(to_come)),
            Length::Unknown => {
                assert!(
                    hint.lower() <= to_come && hint.upper().is_none_or(|upper| to_come <= upper)
                );
            }
            Length::Absurd => {}
        }
    }
}
