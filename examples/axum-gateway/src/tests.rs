//! The shape of the story.

use std::sync::Arc;

use portcullis::trace::{Status, Trace, record::Kind};

use crate::{PARENT, Told, story};

fn millis(told: &[String]) -> Vec<u64> {
    told.iter().map(|text| text.parse().unwrap()).collect()
}

fn named<'a>(traces: &'a [Arc<Trace>], name: &str) -> Vec<&'a Trace> {
    traces.iter().map(|trace| &**trace).filter(|trace| trace.name == name).collect()
}

#[tokio::test]
async fn each_request_is_one_trace_and_has_one_deadline_all_the_way_through() {
    let (told, traces) = story().await.unwrap();
    let [whole, cut, streamed, odd]: [Told; 4] = told.try_into().unwrap();

    assert_eq!((whole.status.as_u16(), &*whole.text), (200, "12 in stock, at 7.90"));
    assert_eq!(whole.stock.len(), 2, "stock failed once");
    for left in millis(&[whole.stock, whole.prices].concat()) {
        assert!((1_000..=2_000).contains(&left), "{left}");
    }

    // The deadline passed: what was there by then is the answer.
    assert_eq!(cut.status, 200);
    assert!(cut.text.starts_with("12 in stock (no price: "), "{}", cut.text);
    assert!((600..2_000).contains(&cut.millis), "{} ms", cut.millis);
    assert!(millis(&[cut.stock, cut.prices].concat()).iter().all(|left| *left <= 700));

    assert_eq!(streamed.text, "7: 7.90\n8: 8.90\n9: 9.90\n");
    let left = millis(&streamed.prices);
    assert!(left.is_sorted_by(|a, b| a > b), "each has less than the one before: {left:?}");

    assert_eq!((odd.status.as_u16(), &*odd.text), (200, "12 in stock, at 8.90"));
    assert!(millis(&odd.prices).iter().all(|left| *left <= 3_000), "the stack's own limit");

    assert_eq!(traces.len(), 4);
    let items = named(&traces, "GET /items/{id}");
    let of_client = |trace: &&&Trace| PARENT.contains(&trace.id.to_string());
    assert_eq!(items.iter().filter(of_client).count(), 2, "and one in a trace of its own");
    for trace in &items {
        let calls: Vec<_> = trace.calls.iter().map(|call| &*call.name).collect();
        assert_eq!(calls, ["stock", "prices"], "{trace}");
        assert!(trace.calls.iter().all(|call| call.parent == Some(trace.span)));
        assert_eq!(trace.status, Status::Success);
    }
    let timed_out = |trace: &&&Trace| trace.calls[1].status == Status::Timeout;
    let cut: Vec<_> = items.iter().filter(timed_out).collect();
    assert_eq!(cut.len(), 1);
    assert!(cut[0].to_string().contains("inherited limit of"), "{}", cut[0]);

    let streamed = named(&traces, "GET /prices/{id}");
    assert_eq!(streamed[0].calls.len(), 3, "made while the body was sent");
    assert!(streamed[0].calls.iter().all(|call| call.kind == Kind::Call));
}
