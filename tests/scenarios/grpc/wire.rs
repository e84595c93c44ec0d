//! The service that is called: its messages by hand, its client and server as tonic generates them.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Ask {
    #[prost(string, tag = "1")]
    pub(crate) text: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Answer {
    #[prost(string, tag = "1")]
    pub(crate) text: String,
}

#[allow(missing_docs, unreachable_pub, missing_debug_implementations, clippy::all)]
mod generated {
    tonic::include_proto!("test.Echo");
}

pub(crate) use self::generated::{
    echo_client::EchoClient,
    echo_server::{Echo, EchoServer},
};

pub(crate) fn ask(text: &str) -> Ask {
    Ask { text: text.to_owned() }
}

pub(crate) fn answer(text: &str) -> Answer {
    Answer { text: text.to_owned() }
}

/// A message as it goes over the wire: not compressed, its length, and itself.
pub(crate) fn framed(message: &impl Message) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(message.encoded_len() as u32);
    frame.put_slice(&message.encode_to_vec());
    frame.freeze()
}
