//! TLS towards clients: from PEM to what the acceptor needs.
//!
//! A certificate that does not belong to its key is the classic slip of a renewal. It is found
//! here, when the file is read, so that a reload keeps the old pair instead of serving handshakes
//! that fail.

use std::sync::Arc;

use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{InconsistentKeys, ServerConfig};

use crate::config::model::ServerTls;

/// Certificate and key of a listener cannot be used. No message quotes key material.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidServerTls {
    /// No certificate in the file.
    #[error("the certificate file holds no PEM certificate")]
    NoCertificate,
    /// Not PEM, or no certificate inside.
    #[error("the certificate file cannot be read: {0}")]
    UnreadableCertificate(String),
    /// No private key in the file.
    #[error("the key file holds no PEM private key (PKCS#8, PKCS#1 or SEC1, unencrypted)")]
    NoKey,
    /// Not PEM, or of a kind that is not supported.
    #[error("the private key cannot be read")]
    UnreadableKey,
    /// They do not belong together.
    #[error("the private key does not belong to the certificate; the leaf must come first")]
    Mismatch,
    /// The TLS library refuses.
    #[error("TLS cannot be set up: {0}")]
    Refused(String),
}

/// What an acceptor needs to speak TLS 1.2 and 1.3 with `settings`, offering HTTP/2 and HTTP/1.1.
///
/// # Errors
/// [`InvalidServerTls`] where certificate and key cannot be read or do not belong together.
pub fn server_config(settings: &ServerTls) -> Result<Arc<ServerConfig>, InvalidServerTls> {
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(&settings.certificate_pem).collect();
    let chain =
        chain.map_err(|error| InvalidServerTls::UnreadableCertificate(error.to_string()))?;
    if chain.is_empty() {
        return Err(InvalidServerTls::NoCertificate);
    }
    let key = PrivateKeyDer::from_pem_slice(&settings.key_pem).map_err(|error| match error {
        PemError::NoItemsFound => InvalidServerTls::NoKey,
        // The parser's message may quote a line of the file.
        _ => InvalidServerTls::UnreadableKey,
    })?;
    // The provider is named, because a process-wide default is whichever crate comes first.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    if provider
        .key_provider
        .load_private_key(key.clone_key())
        .is_err()
    {
        return Err(InvalidServerTls::UnreadableKey);
    }
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| InvalidServerTls::Refused(error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                InvalidServerTls::Mismatch
            }
            rustls::Error::InvalidCertificate(cause) => {
                InvalidServerTls::UnreadableCertificate(format!("{cause:?}"))
            }
            error => InvalidServerTls::Refused(error.to_string()),
        })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> ServerTls {
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        ServerTls {
            certificate_pem: pair.cert.pem().into_bytes(),
            key_pem: pair.signing_key.serialize_pem().into_bytes(),
        }
    }

    fn refusal(settings: &ServerTls) -> InvalidServerTls {
        server_config(settings).unwrap_err()
    }

    #[test]
    fn a_certificate_and_its_key_offer_http_2_before_http_1() {
        let config = server_config(&pair()).unwrap();
        assert_eq!(config.alpn_protocols, [&b"h2"[..], b"http/1.1"]);
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let mixed = ServerTls {
            key_pem: pair().key_pem,
            ..pair()
        };
        assert_eq!(refusal(&mixed), InvalidServerTls::Mismatch);
    }

    #[test]
    fn swapped_and_empty_files_are_told_apart() {
        let ServerTls {
            certificate_pem,
            key_pem,
        } = pair();
        let swapped = ServerTls {
            certificate_pem: key_pem.clone(),
            key_pem: certificate_pem.clone(),
        };
        assert_eq!(refusal(&swapped), InvalidServerTls::NoCertificate);
        let keyless = ServerTls {
            key_pem: Vec::new(),
            certificate_pem,
        };
        assert_eq!(refusal(&keyless), InvalidServerTls::NoKey);
    }

    #[test]
    fn a_broken_key_is_not_quoted() {
        let broken = ServerTls {
            key_pem: b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n".to_vec(),
            ..pair()
        };
        assert_eq!(refusal(&broken), InvalidServerTls::UnreadableKey);
        assert!(!refusal(&broken).to_string().contains("c2VjcmV0"));
    }

    #[test]
    fn a_certificate_that_is_none_is_refused() {
        let broken = ServerTls {
            certificate_pem: b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
                .to_vec(),
            ..pair()
        };
        assert!(matches!(
            refusal(&broken),
            InvalidServerTls::UnreadableCertificate(_)
        ));
    }
}
