//! Files that a configuration names: read now, so that a reload is refused and not half done.

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::config::certificate::Facts;
use crate::config::model::CertificatePair;
use crate::policy::time::Timestamp;

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

    /// A certificate and its key from their files.
    pub(super) fn certificate_pair(
        &mut self,
        path: &str,
        certificate: Option<String>,
        key: Option<String>,
    ) -> CertificatePair {
        let file = certificate.clone().unwrap_or_default();
        let read = |compiler: &mut Self, name: &str, file: Option<String>| {
            file.and_then(|file| compiler.read_file(&format!("{path}.{name}"), &file))
        };
        let certificate = read(self, "certificate", certificate);
        let key = read(self, "key", key);
        let facts = match (&certificate, &key) {
            (Some(certificate), Some(key)) => self.judge_key_pair(path, certificate, key),
            _ => None,
        };
        // Without facts there is a problem, and the pair is never used.
        let facts = facts.unwrap_or_else(|| Facts {
            names: Vec::new(),
            not_after: Timestamp::from_milliseconds(0),
        });
        CertificatePair {
            file,
            certificate_pem: certificate.unwrap_or_default(),
            key_pem: key.unwrap_or_default(),
            names: facts.names,
            not_after: facts.not_after,
        }
    }

    /// Reports a certificate or key that no TLS handshake could use, and a pair that does not
    /// belong together: rustls would say so only to the first client.
    fn judge_key_pair(&mut self, path: &str, certificate: &[u8], key: &[u8]) -> Option<Facts> {
        let chain = self.certificates(&format!("{path}.certificate"), certificate);
        let key_path = format!("{path}.key");
        let Ok(key) = PrivateKeyDer::from_pem_slice(key) else {
            let remedy = "give a PEM file with `-----BEGIN PRIVATE KEY-----`, without a password";
            self.problem(&key_path, "the file holds no private key in PEM", remedy);
            return None;
        };
        let chain = chain?;
        let facts = chain.first().and_then(Facts::of);
        if let Err(error) = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()) {
            let message = format!("the key does not serve the certificate: {error}");
            let remedy = "give the private key that the certificate was made for";
            self.problem(&key_path, message, remedy);
        } else if facts.is_none() {
            let remedy = "have it issued anew; `openssl x509 -text` shows what is in it";
            let message = "the certificate has no beginning and end that a client could read";
            self.problem(&format!("{path}.certificate"), message, remedy);
        }
        facts
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
