//! Certificates that nobody signed but the test.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A certificate for `localhost` and 127.0.0.1 that is its own root.
pub(crate) struct Certificate {
    /// The certificate, PEM.
    pub(crate) certificate_pem: String,
    /// Its private key, PEM.
    pub(crate) key_pem: String,
}

impl Certificate {
    /// A new one.
    pub(crate) fn new() -> Self {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let pair = rcgen::generate_simple_self_signed(names).expect("the names are valid");
        Self {
            certificate_pem: pair.cert.pem(),
            key_pem: pair.signing_key.serialize_pem(),
        }
    }

    /// What a server needs to present it.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).expect("it is a key");
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider supports them")
            .with_no_client_auth()
            .with_single_cert(vec![self.der()], key)
            .expect("they belong together");
        TlsAcceptor::from(Arc::new(config))
    }

    /// What a client needs to trust it and to offer `protocols`.
    pub(crate) fn connector(&self, protocols: &[&str]) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.der()).expect("it is a certificate");
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider supports them")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols
            .iter()
            .map(|protocol| protocol.as_bytes().to_vec())
            .collect();
        TlsConnector::from(Arc::new(config))
    }

    /// The name to verify.
    pub(crate) fn name() -> ServerName<'static> {
        ServerName::try_from("localhost").expect("it is a name")
    }

    fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate_pem.as_bytes()).expect("it is PEM")
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
