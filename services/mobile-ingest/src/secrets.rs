//! The access token, and the sessions opened with it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac as _};
use sha2::Sha256;
use sovereign_disk::{PrivateFileError, Readers, read_private, write_whole};
use sovereign_model::{Digest, Timestamp};

const TOKEN_BYTES: usize = 32;
/// Shortest token taken from a file of the operator, bytes; a shorter one is refused.
const MIN_TOKEN: usize = 16;
/// Longest token, bytes; a longer one is refused.
const MAX_TOKEN: usize = 512;

#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    #[error(transparent)]
    Read(#[from] PrivateFileError),
    #[error("write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error(
        "{} does not hold a token: one line of {MIN_TOKEN} to {MAX_TOKEN} visible ASCII characters",
        path.display()
    )]
    NotToken { path: PathBuf },
}

/// Domain of the codes of sessions: nothing else is authenticated with the token.
const SESSION: &[u8] = b"sovereign console session\0";

/// The operator's token, kept as a digest: comparing digests leaks nothing about the token by time.
pub(crate) struct AccessToken {
    token: Digest,
    sessions: Hmac<Sha256>,
}

impl AccessToken {
    fn new(token: &str) -> Self {
        let mut sessions = <Hmac<Sha256> as KeyInit>::new_from_slice(token.as_bytes())
            .expect("a key may have any length");
        sessions.update(SESSION);
        Self {
            token: Digest::of(token.as_bytes()),
            sessions,
        }
    }

    pub(crate) fn is_token(&self, given: &str) -> bool {
        same(&Digest::of(given.as_bytes()), &self.token)
    }

    /// Whether `given` is the value of a session cookie made here that has not ended by `now`.
    pub(crate) fn is_session(&self, given: &str, now: Timestamp) -> bool {
        let Some((ends, code)) = given.split_once('.') else {
            return false;
        };
        let (Ok(ends_secs), Ok(code)) = (ends.parse::<i64>(), URL_SAFE_NO_PAD.decode(code)) else {
            return false;
        };
        let made_here = self.sessions.clone().chain_update(ends);
        made_here.verify_slice(&code).is_ok() && unix_secs(now) < ends_secs
    }

    /// Value of a session cookie that ends `lasts` after `now`: `<end, Unix seconds>.<its code>`. It shows
    /// that its holder had the token, and is not the token.
    pub(crate) fn session(&self, now: Timestamp, lasts: Duration) -> String {
        let ends = unix_secs(now).saturating_add_unsigned(lasts.as_secs());
        let ends = ends.to_string();
        let code = self.sessions.clone().chain_update(&ends).finalize();
        let code = URL_SAFE_NO_PAD.encode(code.into_bytes());
        format!("{ends}.{code}")
    }
}

fn unix_secs(time: Timestamp) -> i64 {
    time.as_unix_nanos().div_euclid(1_000_000_000)
}

fn same(a: &Digest, b: &Digest) -> bool {
    let difference = a
        .as_bytes()
        .iter()
        .zip(b.as_bytes())
        .fold(0, |sum, (a, b)| sum | (a ^ b));
    std::hint::black_box(difference) == 0
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Found,
    Made,
}

/// The token in a file; `None` when there is no file.
pub(crate) fn read_token(path: &Path) -> Result<Option<AccessToken>, SecretError> {
    let Some(bytes) = read_private(path)? else {
        return Ok(None);
    };
    let token = bytes.trim_ascii_end();
    let usable =
        (MIN_TOKEN..=MAX_TOKEN).contains(&token.len()) && token.iter().all(u8::is_ascii_graphic);
    match std::str::from_utf8(token) {
        Ok(token) if usable => Ok(Some(AccessToken::new(token))),
        Ok(_) | Err(_) => Err(SecretError::NotToken {
            path: path.to_owned(),
        }),
    }
}

pub(crate) fn open_token(path: &Path) -> Result<(AccessToken, Origin), SecretError> {
    if let Some(token) = read_token(path)? {
        return Ok((token, Origin::Found));
    }
    let random: [u8; TOKEN_BYTES] = rand::random();
    let token = Digest::of(&random).to_hex();
    write_whole(path, format!("{token}\n").as_bytes(), Readers::Owner).map_err(|cause| {
        SecretError::Write {
            path: path.to_owned(),
            cause,
        }
    })?;
    Ok((AccessToken::new(&token), Origin::Made))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_unix_nanos(secs * 1_000_000_000)
    }

    #[test]
    fn a_token_is_made_once_and_only_its_owner_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let (made, origin) = open_token(&path).unwrap();
        assert_eq!(origin, Origin::Made);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.trim_end().len(), 64);
        let (found, origin) = open_token(&path).unwrap();
        assert_eq!(origin, Origin::Found);
        for token in [made, found] {
            assert!(token.is_token(text.trim_end()));
            assert!(!token.is_token(&text));
            assert!(!token.is_token(""));
            assert!(!token.is_token(&token.session(at(0), HOUR)));
            assert!(!token.is_session(text.trim_end(), at(0)));
        }
    }

    #[test]
    fn two_nodes_do_not_share_a_token() {
        let folder = tempfile::tempdir().unwrap();
        let (a, _) = open_token(&folder.path().join("a")).unwrap();
        let (b, _) = open_token(&folder.path().join("b")).unwrap();
        assert!(a.is_session(&a.session(at(0), HOUR), at(0)));
        assert!(!b.is_session(&a.session(at(0), HOUR), at(0)));
    }

    #[test]
    fn a_session_ends_when_it_says_and_cannot_be_forged() {
        let token = AccessToken::new("0123456789abcdef");
        let session = token.session(at(1_000), HOUR);
        let (ends, code) = session.split_once('.').unwrap();
        assert_eq!(ends, "4600");
        assert!(token.is_session(&session, at(1_000)));
        assert!(token.is_session(&session, at(4_599)));
        assert!(!token.is_session(&session, at(4_600)));
        let other = token.session(at(1_001), HOUR);
        let (_, code_of_another) = other.split_once('.').unwrap();
        for forged in [
            format!("9999.{code}"),
            format!("+4600.{code}"),
            format!("4600.{code_of_another}"),
            format!(
                "4600.{}",
                URL_SAFE_NO_PAD.encode(Digest::of(b"4600").as_bytes())
            ),
            format!("4600.{}", &code[..code.len() - 2]),
            format!("4600{code}"),
            "4600.".to_owned(),
            String::new(),
        ] {
            assert!(!token.is_session(&forged, at(1_000)), "{forged}");
        }
    }

    #[test]
    fn a_token_file_that_cannot_be_trusted_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        write_whole(&path, b"0123456789abcdef\n", Readers::All).unwrap();
        let error = open_token(&path).err().unwrap();
        assert!(matches!(
            error,
            SecretError::Read(PrivateFileError::Exposed { mode: 0o644, .. })
        ));
        for text in ["", "short", "has a space in it ......", &"x".repeat(513)] {
            write_whole(&path, text.as_bytes(), Readers::Owner).unwrap();
            let error = open_token(&path).err().unwrap();
            assert!(matches!(error, SecretError::NotToken { .. }), "{text:?}");
        }
    }
}
