//! Certificates that nobody signed but the test.

use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
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
        Self::of(&["localhost", "127.0.0.1"], |_| {})
    }

    /// One for other names, with whatever else `change` makes of it.
    pub(crate) fn of(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Self {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("the names are valid");
        change(&mut params);
        let key = KeyPair::generate().expect("the system has randomness");
        let certificate = params.self_signed(&key).expect("a key signs");
        Self {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        }
    }

    /// What a server needs to present it.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.acceptor_choosing(&[])
    }

    /// What a server needs to present it and to choose among `protocols`.
    pub(crate) fn acceptor_choosing(&self, protocols: &[&str]) -> TlsAcceptor {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider supports them")
            .with_no_client_auth()
            .with_single_cert(vec![self.der()], self.key())
            .expect("they belong together");
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        TlsAcceptor::from(Arc::new(config))
    }

    /// What a client needs to trust it and to offer `protocols`.
    pub(crate) fn connector(&self, protocols: &[&str]) -> TlsConnector {
        self.connector_as(None, protocols)
    }

    /// The same for a client with a certificate of its own, if one is given.
    pub(crate) fn connector_as(
        &self,
        client: Option<&Certificate>,
        protocols: &[&str],
    ) -> TlsConnector {
        Self::connector_of(&[self], client, protocols)
    }

    /// What a client needs to trust any of these.
    pub(crate) fn connector_of(
        trusted: &[&Certificate],
        client: Option<&Certificate>,
        protocols: &[&str],
    ) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        for certificate in trusted {
            roots.add(certificate.der()).expect("it is a certificate");
        }
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider supports them")
            .with_root_certificates(roots);
        let mut config = match client {
            None => builder.with_no_client_auth(),
            Some(client) => builder
                .with_client_auth_cert(vec![client.der()], client.key())
                .expect("they belong together"),
        };
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

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).expect("it is a key")
    }

    fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate_pem.as_bytes()).expect("it is PEM")
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
