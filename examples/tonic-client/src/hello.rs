//! What would be generated from a `.proto` file: the messages, the client and the server.

/// Whom to greet.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct HelloRequest {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
}

/// The greeting.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct HelloReply {
    #[prost(string, tag = "1")]
    pub(crate) message: String,
}

#[allow(missing_docs, unreachable_pub, missing_debug_implementations, clippy::all)]
mod generated {
    tonic::include_proto!("hello.Greeter");
}

pub(crate) use self::generated::{
    greeter_client::GreeterClient,
    greeter_server::{Greeter, GreeterServer},
};
