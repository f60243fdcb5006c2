//! The certificate: the operator's, or a self-signed one made at first start.
//!
//! The file of one made here begins with a line of text, which readers of PEM skip: when it is valid and
//! for which names. It is made again when that line is not there, or does not fit any more.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sovereign_disk::{PrivateFileError, Readers, read_private, write_whole};

const CERT_FILE: &str = "tls-cert.pem";
/// Its private key, within the data folder; mode 0600.
const KEY_FILE: &str = "tls-key.pem";

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Some systems trust no server certificate that is valid for longer.
const VALIDITY_DAYS: u32 = 825;
/// A certificate made here is made again when it is valid for less than this.
pub(crate) const RENEW: Duration = Duration::from_secs(30 * 24 * 3600);
/// How the line begins that says what a certificate made here is.
const NOTE: &str = "# self-signed; Unix seconds and names:";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Certificate {
    SelfSigned,
    Files { cert: PathBuf, key: PathBuf },
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("read the certificate {}", path.display())]
    ReadCertificate {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error("read the key of the certificate")]
    ReadKey(#[source] PrivateFileError),
    #[error("there is no key {}", path.display())]
    NoKey { path: PathBuf },
    #[error("keep the certificate and its key")]
    Keep(#[source] io::Error),
    #[error("make a self-signed certificate")]
    Make(#[source] rcgen::Error),
    #[error("parse {} as PEM", path.display())]
    Parse {
        path: PathBuf,
        #[source]
        cause: rustls::pki_types::pem::Error,
    },
    #[error("{} holds no certificate", path.display())]
    NoCertificate { path: PathBuf },
    #[error("decode the certificate {}", path.display())]
    Decode {
        path: PathBuf,
        #[source]
        cause: x509_parser::nom::Err<x509_parser::error::X509Error>,
    },
    #[error("use the certificate {} with its key", path.display())]
    Use {
        path: PathBuf,
        #[source]
        cause: rustls::Error,
    },
}

/// A certificate and its key, ready to be served.
#[derive(Debug)]
pub(crate) struct Pair {
    /// The TLS configuration of the listener, for HTTP/2 and HTTP/1.1.
    pub(crate) config: ServerConfig,
    /// The certificate that names this node.
    pub(crate) leaf: CertificateDer<'static>,
    pub(crate) expires: SystemTime,
}

/// The files of a certificate and its key.
pub(crate) fn paths(certificate: &Certificate, data_dir: &Path) -> (PathBuf, PathBuf) {
    match certificate {
        Certificate::Files { cert, key } => (cert.clone(), key.clone()),
        Certificate::SelfSigned => (data_dir.join(CERT_FILE), data_dir.join(KEY_FILE)),
    }
}

/// Reads a certificate and its key; one that is ours to make is made when there is none that can be used by `now`.
pub(crate) fn open(
    certificate: &Certificate,
    data_dir: &Path,
    listen: IpAddr,
    now: SystemTime,
) -> Result<Pair, TlsError> {
    let (cert_path, key_path) = paths(certificate, data_dir);
    if *certificate == Certificate::SelfSigned {
        let names = names(listen);
        if !is_current(&cert_path, &names, now) || !key_path.exists() {
            make(&cert_path, &key_path, names, now)?;
        }
    }
    let chain = read_chain(&cert_path)?;
    let key = read_key(&key_path)?;
    let leaf = chain[0].clone();
    let (_, parsed) =
        x509_parser::parse_x509_certificate(&leaf).map_err(|cause| TlsError::Decode {
            path: cert_path.clone(),
            cause,
        })?;
    let expires = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or_default();
    Ok(Pair {
        config: config_from_pair(chain, key, &cert_path)?,
        expires: UNIX_EPOCH + Duration::from_secs(expires),
        leaf,
    })
}

/// Checks that files of the operator can be used as they are now.
pub(crate) fn check_files(cert: &Path, key: &Path) -> Result<(), (&'static str, TlsError)> {
    let chain = read_chain(cert).map_err(|error| ("tls_cert", error))?;
    let private = read_key(key).map_err(|error| ("tls_key", error))?;
    config_from_pair(chain, private, cert)
        .map(drop)
        .map_err(|error| ("tls_cert", error))
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = fs::read(path).map_err(|cause| TlsError::ReadCertificate {
        path: path.to_owned(),
        cause,
    })?;
    let chain = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|cause| TlsError::Parse {
            path: path.to_owned(),
            cause,
        })?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate {
            path: path.to_owned(),
        });
    }
    Ok(chain)
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = read_private(path)
        .map_err(TlsError::ReadKey)?
        .ok_or_else(|| TlsError::NoKey {
            path: path.to_owned(),
        })?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|cause| TlsError::Parse {
        path: path.to_owned(),
        cause,
    })
}

fn config_from_pair(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    cert_path: &Path,
) -> Result<ServerConfig, TlsError> {
    let unusable = |cause| TlsError::Use {
        path: cert_path.to_owned(),
        cause,
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Whether a certificate made here is there, is for exactly `names`, is valid already, and has a month left.
fn is_current(cert: &Path, names: &[String], now: SystemTime) -> bool {
    let Ok(text) = fs::read_to_string(cert) else {
        return false;
    };
    note_from_text(&text).is_some_and(|note| {
        let now = unix_secs(now);
        let left = Duration::from_secs(note.until.saturating_sub(now));
        note.from <= now && left >= RENEW && note.names.split(',').eq(names)
    })
}

struct Note<'a> {
    from: u64,
    until: u64,
    names: &'a str,
}

fn note_from_text(text: &str) -> Option<Note<'_>> {
    let mut words = text
        .lines()
        .next()?
        .strip_prefix(NOTE)?
        .split_ascii_whitespace();
    Some(Note {
        from: words.next()?.parse().ok()?,
        until: words.next()?.parse().ok()?,
        names: words.next()?,
    })
}

fn unix_secs(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

fn names(listen: IpAddr) -> Vec<String> {
    let mut names = vec![
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
    ];
    if !listen.is_unspecified() && !listen.is_loopback() {
        names.push(listen.to_string());
    }
    if let Some(name) = host_name().filter(|name| !names.contains(name)) {
        names.push(name);
    }
    names
}

fn make(cert: &Path, key: &Path, names: Vec<String>, now: SystemTime) -> Result<(), TlsError> {
    let from = unix_secs(now).saturating_sub(DAY.as_secs());
    let until = from + (DAY * VALIDITY_DAYS).as_secs();
    let note = format!("{NOTE} {from} {until} {}\n", names.join(","));
    let key_pair = KeyPair::generate().map_err(TlsError::Make)?;
    let mut params = CertificateParams::new(names).map_err(TlsError::Make)?;
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(from);
    params.not_after = epoch + Duration::from_secs(until);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "Sovereign Map node");
    let made = params.self_signed(&key_pair).map_err(TlsError::Make)?;
    // The key first: a certificate whose key is missing is made again.
    write_whole(key, key_pair.serialize_pem().as_bytes(), Readers::Owner)
        .and_then(|()| write_whole(cert, (note + &made.pem()).as_bytes(), Readers::All))
        .map_err(TlsError::Keep)?;
    tracing::info!(certificate = %cert.display(), "made a self-signed certificate");
    Ok(())
}

fn host_name() -> Option<String> {
    host_name_from_text(&fs::read_to_string("/proc/sys/kernel/hostname").ok()?)
}

fn host_name_from_text(text: &str) -> Option<String> {
    let name = text.trim();
    let usable = (1..=253).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.');
    // A container without a name of its own is called by its id, which nobody connects by, and which would
    // be another one with each container that takes over the data folder.
    let is_container_id = name.len() == 12
        && name
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (usable && !is_container_id).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn config(folder: &Path, now: SystemTime) -> Result<Pair, TlsError> {
        let listen = "127.0.0.1".parse().unwrap();
        open(&Certificate::SelfSigned, folder, listen, now)
    }

    #[test]
    fn a_certificate_is_made_once_kept_and_renewed_before_it_expires() {
        let folder = tempfile::tempdir().unwrap();
        let cert = folder.path().join(CERT_FILE);
        let now = SystemTime::now();
        config(folder.path(), now).unwrap();
        let first = fs::read(&cert).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder.path().join(KEY_FILE)), 0o600);
        let end = now + DAY * VALIDITY_DAYS;
        let said = config(folder.path(), now).unwrap().expires;
        let apart = said
            .duration_since(end)
            .unwrap_or_else(|early| early.duration());
        assert!(apart < DAY * 2, "{said:?} {end:?}");
        config(folder.path(), now + DAY * 700).unwrap();
        assert_eq!(fs::read(&cert).unwrap(), first);
        config(folder.path(), now + DAY * 800).unwrap();
        assert_ne!(fs::read(&cert).unwrap(), first);
    }

    #[test]
    fn a_certificate_says_when_it_ends_whatever_became_of_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let cert = folder.path().join(CERT_FILE);
        let now = SystemTime::now();
        // Its file is as young as one that was copied today.
        config(folder.path(), now - DAY * 800).unwrap();
        let old = fs::read(&cert).unwrap();
        config(folder.path(), now).unwrap();
        let new = fs::read(&cert).unwrap();
        assert_ne!(new, old);
        config(folder.path(), now - DAY * 2).unwrap();
        assert_ne!(fs::read(&cert).unwrap(), new, "not valid yet");
    }

    #[test]
    fn a_certificate_is_made_again_for_other_names() {
        let folder = tempfile::tempdir().unwrap();
        let cert = folder.path().join(CERT_FILE);
        let now = SystemTime::now();
        let listen = |address: &str| {
            let listen = address.parse().unwrap();
            open(&Certificate::SelfSigned, folder.path(), listen, now).unwrap();
            fs::read_to_string(&cert).unwrap()
        };
        let local = listen("127.0.0.1");
        assert_eq!(listen("0.0.0.0"), local, "no other name");
        let abroad = listen("192.0.2.7");
        assert!(
            note_from_text(&abroad)
                .unwrap()
                .names
                .contains(",192.0.2.7")
        );
        assert_eq!(listen("192.0.2.7"), abroad);
        assert_ne!(listen("127.0.0.1"), abroad);
        // One whose file does not say what it is.
        let (_, pem) = local.split_once('\n').unwrap();
        fs::write(&cert, pem).unwrap();
        assert_ne!(listen("127.0.0.1"), pem);
    }

    #[test]
    fn a_machine_is_named_by_what_people_call_it() {
        for name in ["field-laptop", "map.example", "decade", "0123456789abc"] {
            assert_eq!(host_name_from_text(&format!("{name}\n")).unwrap(), name);
        }
        for none in ["", "(none)", "a_b", "3f2a9c0d1e4b", &"x".repeat(254)] {
            assert_eq!(host_name_from_text(none), None, "{none}");
        }
    }

    #[test]
    fn a_key_that_everybody_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        config(folder.path(), now).unwrap();
        let key = folder.path().join(KEY_FILE);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        let error = config(folder.path(), now).unwrap_err();
        assert!(matches!(
            error,
            TlsError::ReadKey(PrivateFileError::Exposed { mode: 0o644, .. })
        ));
    }

    #[test]
    fn files_of_the_operator_are_used_or_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        config(folder.path(), SystemTime::now()).unwrap();
        let own = |cert: &str, key: &str| {
            open(
                &Certificate::Files {
                    cert: folder.path().join(cert),
                    key: folder.path().join(key),
                },
                folder.path(),
                "127.0.0.1".parse().unwrap(),
                SystemTime::now(),
            )
        };
        own(CERT_FILE, KEY_FILE).unwrap();
        assert!(
            own("none.pem", KEY_FILE)
                .unwrap_err()
                .to_string()
                .contains("none.pem")
        );
        assert!(
            own(KEY_FILE, KEY_FILE)
                .unwrap_err()
                .to_string()
                .contains("no certificate")
        );
        assert!(own(CERT_FILE, "none.pem").is_err());
        assert!(own(CERT_FILE, CERT_FILE).is_err());
    }
}
