//! What a process puts out, within bounds.

use std::{borrow::Cow, fmt, io};

use bytes::Bytes;
use portcullis_core::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncRead, AsyncReadExt};

/// How much is read at a time.
const CHUNK: usize = 16 * 1024;

/// What a process wrote to one of its streams: its beginning, as far as it is kept, and how much it was
/// in all.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Captured {
    kept: Bytes,
    written: u64,
}

/// What is being read of a stream.
#[derive(Debug)]
pub(crate) struct Capture<'a> {
    kept: Vec<u8>,
    /// Seen by whoever tells of it, at any moment.
    written: &'a AtomicU64,
    limit: usize,
}

// ===== impl Captured =====

impl Captured {
    /// What is kept.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.kept
    }

    /// The same as text; what is not UTF-8 is shown by replacement characters.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.kept)
    }

    /// How many bytes were written, kept or not.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Whether more was written than is kept.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.written > self.kept.len() as u64
    }
}

impl fmt::Debug for Captured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Captured")
            .field("kept", &self.kept.len())
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

// ===== impl Capture =====

impl<'a> Capture<'a> {
    pub(crate) fn new(limit: usize, written: &'a AtomicU64) -> Self {
        Self { kept: Vec::new(), written, limit }
    }

    /// Reads a stream to its end; `false` if it was left at the limit, because `beyond` it nothing is
    /// to be read.
    pub(crate) async fn read(
        &mut self,
        stream: Option<impl AsyncRead + Unpin>,
        beyond: bool,
    ) -> io::Result<bool> {
        let Some(mut stream) = stream else {
            return Ok(true);
        };
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = stream.read(&mut chunk).await?;
            if read == 0 {
                return Ok(true);
            }
            // Relaxed: one task writes and reads it.
            self.written.fetch_add(read as u64, Ordering::Relaxed);
            let room = self.limit - self.kept.len();
            self.kept.extend_from_slice(&chunk[..read.min(room)]);
            if read > room && !beyond {
                return Ok(false);
            }
        }
    }

    pub(crate) fn finish(self) -> Captured {
        Captured { kept: self.kept.into(), written: self.written.load(Ordering::Relaxed) }
    }
}
