//! Files that a configuration names: read now, so that a reload is refused and not half done.

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::Compiler;

impl Compiler<'_, '_> {
    /// The contents of a file, or a problem at `key`.
    pub(super) fn read_file(&mut self, key: &str, file: &str) -> Option<Vec<u8>> {
        match self.source.read(file) {
            Ok(bytes) => Some(bytes),
            Err(message) => {
                let remedy = "give a readable file; a relative path starts at the directory of \
                              the configuration file";
                self.problem(key, message, remedy);
                None
            }
        }
    }

    /// Reports a certificate or key that no TLS handshake could use, and a pair that does not
    /// belong together: rustls would say so only to the first client.
    pub(super) fn judge_key_pair(&mut self, path: &str, certificate: &[u8], key: &[u8]) {
        let chain = self.certificates(&format!("{path}.certificate"), certificate);
        let key_path = format!("{path}.key");
        let Ok(key) = PrivateKeyDer::from_pem_slice(key) else {
            let remedy = "give a PEM file with `-----BEGIN PRIVATE KEY-----`, without a password";
            self.problem(&key_path, "the file holds no private key in PEM", remedy);
            return;
        };
        let Some(chain) = chain else {
            return;
        };
        if let Err(error) = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()) {
            let message = format!("the key does not serve the certificate: {error}");
            let remedy = "give the private key that the certificate was made for";
            self.problem(&key_path, message, remedy);
        }
    }

    /// The certificates of a PEM file, at least one, or a problem at `key`.
    pub(super) fn certificates(
        &mut self,
        key: &str,
        pem: &[u8],
    ) -> Option<Vec<CertificateDer<'static>>> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        match chain {
            Ok(chain) if !chain.is_empty() => Some(chain),
            _ => {
                let remedy = "give a PEM file with `-----BEGIN CERTIFICATE-----`";
                self.problem(key, "the file holds no certificate in PEM", remedy);
                None
            }
        }
    }
}
