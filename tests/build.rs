//! Generates the gRPC service that scenarios call, from its description here: no compiler of
//! `.proto` files is needed.

use tonic_build::manual::{Builder, Method, Service};

fn main() {
    let method = |name: &str, route: &str| {
        Method::builder()
            .name(name)
            .route_name(route)
            .input_type("crate::grpc::wire::Ask")
            .output_type("crate::grpc::wire::Answer")
            .codec_path("tonic_prost::ProstCodec")
    };
    let echo = Service::builder()
        .package("test")
        .name("Echo")
        .method(method("say", "Say").build())
        .method(method("collect", "Collect").client_streaming().build())
        .method(method("count", "Count").server_streaming().build())
        .method(method("chat", "Chat").client_streaming().server_streaming().build())
        .build();
    Builder::new().build_transport(false).compile(&[echo]);
}
