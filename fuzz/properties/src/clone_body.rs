//! Bodies that are cloned: every copy is the whole body, whatever became of the others.

use std::task::Poll;

use arbitrary::{Arbitrary, Unstructured};
use bytes::Buf;
use http::Request;
use http_body::Body as _;
use portcullis_core::{Keep, Kept};
use portcullis_http::CloneBody;

use crate::script::{Polled, Script, Step, next};

#[derive(Arbitrary, Debug)]
struct Input {
    body: Script,
    /// Which copy is polled; the one that is not there yet is made.
    polls: Vec<u8>,
}

/// A body, and which of its copies are polled when.
pub fn clone_body(data: &[u8]) {
    let Ok(input) = Input::arbitrary(&mut Unstructured::new(data)) else { return };
    let request = Request::put("/").body(input.body.clone()).expect("it is a request");
    let (first, kept) = CloneBody.keep(request);
    let mut copies = vec![(first.into_body(), input.body.clone())];
    for which in input.polls {
        let which = usize::from(which) % (copies.len() + 1);
        if which == copies.len() {
            let again = kept.again(2).expect("a clone is always to be had");
            copies.push((again.into_body(), input.body.clone()));
        }
        let (copy, script) = &mut copies[which];
        assert_eq!(copy.is_end_stream(), script.is_end_stream());
        assert_eq!(copy.size_hint().exact(), script.size_hint().exact());
        same(next(copy), script.steps.pop_front());
    }
}

fn same<B: Buf>(polled: Polled<B>, expected: Option<Step>) {
    match (polled, expected) {
        (Poll::Pending, Some(Step::Pending)) | (Poll::Ready(None), None) => {}
        (Poll::Ready(Some(Err(_))), Some(Step::Broken | Step::Elapsed(_))) => {}
        (Poll::Ready(Some(Ok(frame))), Some(Step::Data(expected))) => {
            let mut data = frame.into_data().ok().expect("data");
            assert_eq!(data.copy_to_bytes(data.remaining()), expected);
        }
        (Poll::Ready(Some(Ok(frame))), Some(Step::Trailers(expected))) => {
            assert_eq!(frame.into_trailers().ok(), Some(expected));
        }
        (_, expected) => panic!("not {expected:?}"),
    }
}
