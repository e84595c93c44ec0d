//! What becomes of the calls.

use tonic::{Code, transport::Endpoint};

use crate::{Met, party, world::World};

/// What the project's page shows.
mod readme {
    use crate::hello::{GreeterClient, HelloRequest};

    include!(concat!(env!("OUT_DIR"), "/readme.rs"));

    pub(super) async fn run(endpoint: tonic::transport::Endpoint) -> anyhow::Result<String> {
        greet(endpoint).await
    }
}

#[tokio::test]
async fn the_client_of_the_projects_page_greets() {
    let world = World::begin().await.unwrap();
    let endpoint = Endpoint::from_shared(format!("http://{}", world.addr)).unwrap();
    assert_eq!(readme::run(endpoint).await.unwrap(), "Hello, Ada!");
    assert_eq!(world.requests(), 1);
}

#[tokio::test]
async fn every_guest_is_met_as_the_server_and_the_stack_have_it() {
    let (met, story) = party().await.unwrap();
    let seen: Vec<_> = met
        .iter()
        .map(|Met { guest, answer, requests }| {
            (*guest, answer.as_deref().map_err(tonic::Status::code), *requests)
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("Ada", Ok("Hello, Ada!"), 1),
            ("a late riser", Ok("Hello, a late riser!"), 3),
            ("nobody", Err(Code::NotFound), 1),
            ("a wall", Err(Code::DeadlineExceeded), 1),
            ("a fool", Err(Code::Internal), 1),
            // The breaker has opened, and nothing is sent.
            ("Grace", Err(Code::Unavailable), 0),
        ]
    );
    let refused = met[5].answer.as_ref().unwrap_err();
    assert!(refused.message().contains("2 failures in a row"), "{refused:?}");
    assert!(refused.metadata().contains_key("grpc-retry-pushback-ms"));

    let [call] = &story.calls[..] else { panic!("{story}") };
    assert_eq!(call.operation.as_deref(), Some("hello.Greeter/SayHello"));
    let ends: Vec<_> = call.attempts.iter().map(|attempt| attempt.outcome.to_string()).collect();
    assert_eq!(ends, ["failure (grpc status 14)", "throttled (grpc status 8)", "success"]);
    // The server asked for 150 ms, and had them.
    let waited = call.attempts[2].started - call.attempts[1].started;
    assert!(waited.as_millis() >= 150, "{waited:?}");
}
