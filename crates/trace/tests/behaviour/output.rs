//! What is captured of outputs, and what is not.

use std::{borrow::Cow, fmt};

use portcullis_testkit::{ScriptedService, Step, TestError, call as send};
use portcullis_trace::{About, Recorder, TraceLayer, TraceScope, output};
use tower_layer::Layer;

use crate::fakes::{config, one, recorder, stored};

type Texts = ScriptedService<&'static str, String>;

fn echo() -> Texts {
    ScriptedService::respond_with(|text: &'static str, _| match text {
        "fail" => Step::Err(TestError("token=s3cret refused")),
        text => Step::Ok(text.to_owned()),
    })
}

#[tokio::test]
async fn nothing_is_captured_unless_asked_for() {
    let recorder = recorder();
    let layer = TraceLayer::builder("c").recorder(&recorder).build().unwrap();
    send(&mut layer.layer(echo()), "hello").await.unwrap();
    assert_eq!(one(&recorder).await.calls[0].output, None);
}

#[tokio::test]
async fn an_output_is_cut_at_500_characters_on_a_characters_boundary() {
    let recorder = recorder();
    let layer = TraceLayer::builder("c")
        .recorder(&recorder)
        .capture_output(|text: &String| Some(Cow::Borrowed(&**text)));
    let mut client = layer.build().unwrap().layer(echo());
    let emoji: &'static str = "🦀".repeat(501).leak();
    // The 500th character and the mark that belongs to it are not torn apart.
    let combining: &'static str = format!("{}e\u{301}tail", "x".repeat(499)).leak();
    for text in ["short", emoji, combining] {
        send(&mut client, text).await.unwrap();
    }

    let traces = stored(&recorder).await;
    let outputs: Vec<_> = traces.iter().map(|t| t.calls[0].output.clone().unwrap()).collect();
    assert_eq!((&*outputs[0].text, outputs[0].omitted), ("short", 0));
    assert_eq!((outputs[1].text.chars().count(), outputs[1].omitted), (500, 1));
    assert_eq!((outputs[2].text.chars().count(), outputs[2].omitted), (499, 6));
    assert!(outputs[2].text.ends_with('x'));
}

#[tokio::test]
async fn redaction_comes_before_the_cut_and_covers_outputs_errors_and_attributes() {
    let mut config = config();
    config.max_text = 10;
    let recorder = Recorder::builder()
        .config(config)
        .redact(|text| text.replace("s3cret", "***").into())
        .build()
        .unwrap();
    let layer = TraceLayer::builder("c")
        .recorder(&recorder)
        .capture_output(|text: &String| Some(Cow::Borrowed(&**text)));
    let mut client = layer.build().unwrap().layer(echo());

    // The scope learns of the recorder, and of its redaction, with its first call.
    TraceScope::start("s")
        .attribute("token", "1234567s3cret")
        .run(async {
            output("12345678s3cret");
            send(&mut client, "1234567 s3cret").await.unwrap();
            send(&mut client, "fail").await.unwrap_err();
        })
        .await;

    let trace = one(&recorder).await;
    assert_eq!(trace.attributes[0].1, "1234567***");
    assert_eq!(trace.output.as_ref().unwrap().text, "12345678**");
    assert_eq!(trace.calls[0].output.as_ref().unwrap().text, "1234567 **");
    assert_eq!(trace.calls[1].error.as_deref(), Some("token=*** …"));
    assert!(!format!("{trace:?}{trace}").contains("s3c"));
}

#[tokio::test]
async fn an_output_may_be_noted_by_hand_and_need_not_be_utf_8() {
    let recorder = recorder();
    let handler = tower::service_fn(|()| async {
        output(b"caf\xe9 \xf0\x9f");
        Ok::<_, TestError>(())
    });
    let layer = TraceLayer::builder("c").recorder(&recorder).build().unwrap();
    send(&mut layer.layer(handler), ()).await.unwrap();
    let trace = one(&recorder).await;
    assert_eq!(trace.calls[0].output.as_ref().unwrap().text, "caf\u{fffd} \u{fffd}");

    // Nowhere in particular.
    output("unheard");
}

/// A refusal to say what went wrong.
#[derive(Debug)]
struct Unspeakable;

impl fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("an error's mistake")
    }
}

impl std::error::Error for Unspeakable {}

#[tokio::test]
async fn a_callback_that_panics_costs_its_text_and_not_the_call() {
    let recorder = Recorder::builder()
        .config(config())
        .redact(|text| if text.contains("s3cret") { panic!("a mistake") } else { text.into() })
        .build()
        .unwrap();
    let layer = TraceLayer::builder("c")
        .recorder(&recorder)
        .describe(|text: &&'static str, about: &mut About<'_>| {
            about.operation("echo").target("half said");
            assert_ne!(*text, "undescribed");
        })
        .capture_output(|text: &String| {
            assert_ne!(text, "uncaptured");
            Some(Cow::Borrowed(&**text))
        });
    let mut client = layer.build().unwrap().layer(echo());
    for text in ["well", "undescribed", "uncaptured", "s3cret"] {
        assert_eq!(send(&mut client, text).await.unwrap(), text);
    }
    // The error tells a secret.
    send(&mut client, "fail").await.unwrap_err();
    let layer = TraceLayer::builder("c").recorder(&recorder).build().unwrap();
    let mut failing = layer.layer(tower::service_fn(|()| async { Err::<(), _>(Unspeakable) }));
    send(&mut failing, ()).await.unwrap_err();

    let traces = stored(&recorder).await;
    let calls: Vec<_> = traces.iter().map(|trace| &trace.calls[0]).collect();
    let output = |n: usize| calls[n].output.as_ref().map(|output| output.text.as_str());
    assert_eq!((calls[0].operation.as_deref(), output(0)), (Some("echo"), Some("well")));
    assert_eq!((&calls[1].operation, &calls[1].target), (&None, &None));
    assert_eq!((output(1), output(2)), (Some("undescribed"), None));
    let not_kept = Some("(not kept: making it readable failed)");
    assert_eq!((output(3), calls[4].error.as_deref()), (not_kept, not_kept));
    assert_eq!(calls[5].error.as_deref(), not_kept);
    assert!(!format!("{traces:?}").contains("s3cret"));
    assert_eq!(recorder.counts().panics, 5);
}
