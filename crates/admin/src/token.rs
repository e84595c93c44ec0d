//! Who may change something.

use axum::http::{HeaderMap, StatusCode, header::AUTHORIZATION};
use portcullis_core::Invalid;
use subtle::ConstantTimeEq;

use crate::problem::Problem;

/// What whoever changes something has to show. It has no `Debug` of its content.
pub(crate) struct Token(Box<[u8]>);

/// Longer ones are refused by servers before they come here.
const LONGEST: usize = 4096;

// ===== impl Token =====

impl Token {
    /// # Errors
    ///
    /// If it could not stand in a header.
    pub(crate) fn new(token: &str) -> Result<Self, Invalid> {
        let bytes = token.as_bytes();
        let fits = !bytes.is_empty() && bytes.len() <= LONGEST;
        if !fits || !bytes.iter().all(u8::is_ascii_graphic) {
            let allowed = format!("1 to {LONGEST} visible characters of ASCII, no spaces");
            // Not what it was: errors are logged.
            return Err(Invalid::new("token", format_args!("{} bytes", bytes.len()), allowed));
        }
        Ok(Self(bytes.into()))
    }

    /// # Errors
    ///
    /// 401 if the token is not in the headers.
    fn check(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let mut all = headers.get_all(AUTHORIZATION).iter();
        let (Some(shown), None) = (all.next(), all.next()) else {
            return Err(Problem::unauthorized("This takes a token: Authorization: Bearer …"));
        };
        let shown = shown.as_bytes();
        let shown = match shown.split_at_checked("bearer ".len()) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => token,
            _ => return Err(Problem::unauthorized("This takes a token: Authorization: Bearer …")),
        };
        // In a time that tells nothing of it but its length.
        if bool::from(shown.trim_ascii().ct_eq(&self.0)) {
            Ok(())
        } else {
            Err(Problem::unauthorized("This is not the token."))
        }
    }
}

/// Whether whoever asks may change something.
///
/// # Errors
///
/// 403 if nobody may, 401 if the token is not the one.
pub(crate) fn allow(token: Option<&Token>, headers: &HeaderMap) -> Result<(), Problem> {
    match token {
        Some(token) => token.check(headers),
        None => {
            let detail = "Nothing can be changed here: no token is configured.";
            Err(Problem::new(StatusCode::FORBIDDEN, detail))
        }
    }
}
