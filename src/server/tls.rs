//! TLS towards clients: from PEM to what the acceptor needs, and which certificate is shown.
//!
//! A certificate that does not belong to its key is the classic slip of a renewal. It is found
//! here, when the file is read, so that a reload keeps the old pairs instead of serving handshakes
//! that fail.
//!
//! rustls can choose by name, too, but only by whole names, and fails a handshake for any other;
//! here a wildcard counts, and whoever asks for an unknown name or none is shown the first pair,
//! as by other proxies: what the certificate is worth is the client's to judge.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore, ServerConfig};

use crate::config::model::{CertificatePair, ClientCertificates, ServerTls};

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
    /// Clients' certificates cannot be verified with these roots.
    #[error("the roots of client certificates cannot be used: {0}")]
    ClientRoots(String),
    /// The TLS library refuses.
    #[error("TLS cannot be set up: {0}")]
    Refused(String),
}

/// What an acceptor needs to speak TLS 1.2 and 1.3 with `settings`, offering HTTP/2 and HTTP/1.1.
///
/// # Errors
/// [`InvalidServerTls`] where a certificate and its key cannot be read or do not belong together,
/// or clients could not be verified.
pub fn server_config(settings: &ServerTls) -> Result<Arc<ServerConfig>, InvalidServerTls> {
    // The provider is named, because a process-wide default is whichever crate comes first.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let certificates = Certificates::new(&settings.pairs, &provider)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| InvalidServerTls::Refused(error.to_string()))?;
    let builder = match &settings.client_certificates {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let roots = Arc::new(client_roots(clients)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            let verifier = if clients.required {
                verifier
            } else {
                verifier.allow_unauthenticated()
            };
            let verifier = verifier
                .build()
                .map_err(|error| InvalidServerTls::ClientRoots(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(certificates));
    // Old scripts ask for 1.0 and nothing else.
    config.alpn_protocols = [&b"h2"[..], b"http/1.1", b"http/1.0"].map(Vec::from).into();
    Ok(Arc::new(config))
}

fn client_roots(settings: &ClientCertificates) -> Result<RootCertStore, InvalidServerTls> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(&settings.roots_pem) {
        let root = root.map_err(|error| InvalidServerTls::ClientRoots(error.to_string()))?;
        roots
            .add(root)
            .map_err(|error| InvalidServerTls::ClientRoots(error.to_string()))?;
    }
    Ok(roots)
}

/// The pairs of a listener by the names that they are for.
#[derive(Debug)]
struct Certificates {
    /// In the file's order.
    all: Vec<Arc<CertifiedKey>>,
    /// Indices of pairs by whole name.
    names: HashMap<String, Vec<usize>>,
    /// Indices of pairs by what follows `*.`.
    wildcards: HashMap<String, Vec<usize>>,
}

impl Certificates {
    fn new(pairs: &[CertificatePair], provider: &CryptoProvider) -> Result<Self, InvalidServerTls> {
        let mut certificates = Self {
            all: Vec::new(),
            names: HashMap::new(),
            wildcards: HashMap::new(),
        };
        for (index, pair) in pairs.iter().enumerate() {
            certificates
                .all
                .push(Arc::new(certified_key(pair, provider)?));
            for name in &pair.names {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut certificates.wildcards, parent),
                    None => (&mut certificates.names, name.as_str()),
                };
                map.entry(name.to_owned()).or_default().push(index);
            }
        }
        Ok(certificates)
    }

    /// The pairs for a name; a wildcard stands for one label, and a whole name comes before it.
    fn named(&self, name: &str) -> &[usize] {
        let name = name.to_ascii_lowercase();
        let by_wildcard = || {
            let (_, parent) = name.split_once('.')?;
            self.wildcards.get(parent)
        };
        let found = self.names.get(&name).or_else(by_wildcard);
        found.map_or(&[], Vec::as_slice)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = client
            .server_name()
            .map_or(&[][..], |name| self.named(name));
        let schemes = client.signature_schemes();
        // Two pairs may bear one name with keys of different kinds, for clients old and new.
        let fits = |index: &&usize| self.all[**index].key.choose_scheme(schemes).is_some();
        let chosen = named.iter().find(fits).or_else(|| named.first());
        self.all.get(chosen.copied().unwrap_or(0)).cloned()
    }
}

fn certified_key(
    pair: &CertificatePair,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, InvalidServerTls> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pair.certificate_pem).collect();
    let chain =
        chain.map_err(|error| InvalidServerTls::UnreadableCertificate(error.to_string()))?;
    if chain.is_empty() {
        return Err(InvalidServerTls::NoCertificate);
    }
    let key = PrivateKeyDer::from_pem_slice(&pair.key_pem).map_err(|error| match error {
        PemError::NoItemsFound => InvalidServerTls::NoKey,
        // The parser's message may quote a line of the file.
        _ => InvalidServerTls::UnreadableKey,
    })?;
    if provider
        .key_provider
        .load_private_key(key.clone_key())
        .is_err()
    {
        return Err(InvalidServerTls::UnreadableKey);
    }
    CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            InvalidServerTls::Mismatch
        }
        rustls::Error::InvalidCertificate(cause) => {
            InvalidServerTls::UnreadableCertificate(format!("{cause:?}"))
        }
        error => InvalidServerTls::Refused(error.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use crate::policy::time::Timestamp;

    use super::*;

    fn pair_for(names: &[&str]) -> CertificatePair {
        let names = names.iter().map(|&name| name.to_owned());
        let names: Vec<String> = names.collect();
        let pair = rcgen::generate_simple_self_signed(names.clone()).unwrap();
        CertificatePair {
            file: "certificate.pem".to_owned(),
            certificate_pem: pair.cert.pem().into_bytes(),
            key_pem: pair.signing_key.serialize_pem().into_bytes(),
            names,
            not_after: Timestamp::from_milliseconds(0),
        }
    }

    fn pair() -> CertificatePair {
        pair_for(&["localhost"])
    }

    fn with(pair: CertificatePair) -> ServerTls {
        ServerTls {
            pairs: vec![pair],
            client_certificates: None,
        }
    }

    fn refusal(pair: &CertificatePair) -> InvalidServerTls {
        server_config(&with(pair.clone())).unwrap_err()
    }

    #[test]
    fn a_certificate_and_its_key_offer_http_2_before_http_1() {
        let config = server_config(&with(pair())).unwrap();
        assert_eq!(
            config.alpn_protocols,
            [&b"h2"[..], b"http/1.1", b"http/1.0"]
        );
    }

    #[test]
    fn a_name_is_found_whole_before_its_wildcard_and_a_wildcard_stands_for_one_label() {
        let pairs = [
            pair_for(&["first.example"]),
            pair_for(&["*.api.example", "api.example"]),
            pair_for(&["new.api.example"]),
            pair_for(&["new.api.example"]),
        ];
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let certificates = Certificates::new(&pairs, &provider).unwrap();
        for (name, expected) in [
            ("first.example", &[0][..]),
            ("api.example", &[1]),
            ("old.api.example", &[1]),
            ("OLD.Api.Example", &[1]),
            ("new.api.example", &[2, 3]),
            ("very.old.api.example", &[]),
            ("example", &[]),
            ("other.example", &[]),
        ] {
            assert_eq!(certificates.named(name), expected, "{name}");
        }
    }

    #[test]
    fn roots_of_clients_must_be_there_and_readable() {
        for roots in [
            &b""[..],
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            let settings = ServerTls {
                client_certificates: Some(ClientCertificates {
                    roots_pem: roots.to_vec(),
                    required: true,
                }),
                ..with(pair())
            };
            let refusal = server_config(&settings).unwrap_err();
            assert!(matches!(refusal, InvalidServerTls::ClientRoots(_)));
        }
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let mixed = CertificatePair {
            key_pem: pair().key_pem,
            ..pair()
        };
        assert_eq!(refusal(&mixed), InvalidServerTls::Mismatch);
    }

    #[test]
    fn swapped_and_empty_files_are_told_apart() {
        let whole = pair();
        let swapped = CertificatePair {
            certificate_pem: whole.key_pem.clone(),
            key_pem: whole.certificate_pem.clone(),
            ..whole.clone()
        };
        assert_eq!(refusal(&swapped), InvalidServerTls::NoCertificate);
        let keyless = CertificatePair {
            key_pem: Vec::new(),
            ..whole
        };
        assert_eq!(refusal(&keyless), InvalidServerTls::NoKey);
    }

    #[test]
    fn a_broken_key_is_not_quoted() {
        let broken = CertificatePair {
            key_pem: b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n".to_vec(),
            ..pair()
        };
        assert_eq!(refusal(&broken), InvalidServerTls::UnreadableKey);
        assert!(!refusal(&broken).to_string().contains("c2VjcmV0"));
    }

    #[test]
    fn a_certificate_that_is_none_is_refused() {
        let broken = CertificatePair {
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
