//! What a certificate says of itself: for whom it is, and until when.
//!
//! rustls shows whatever it is given, so a certificate that has ended is found by the first client.
//! Here it is read with the library that clients verify it with, so that both read the same. The
//! library tells the end of a certificate only when it refuses one that has ended; so it is asked
//! whether it would verify this one at the end of time.

use std::time::Duration;

use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, Error, KeyUsage};

use crate::policy::time::Timestamp;

use super::Problem;
use super::model::Config;

/// How long before its end a certificate is worth a word: what renews certificates does so weeks
/// before, and a person needs some days.
const SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The DNS names that it is for, in lower case; the first label may be `*`.
    pub names: Vec<String>,
    /// When it ends.
    pub not_after: Timestamp,
}

impl Facts {
    /// Those of a certificate; none where a client could not read it either.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let certificate = EndEntityCert::try_from(certificate).ok()?;
        let end_of_time = UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX));
        let usage = KeyUsage::server_auth();
        let verified = certificate.verify_for_usage(&[], &[], &[], end_of_time, usage, None, None);
        let Err(Error::CertExpired { not_after, .. }) = verified else {
            return None;
        };
        let milliseconds = i64::try_from(not_after.as_secs().saturating_mul(1000)).ok()?;
        Some(Self {
            names: certificate
                .valid_dns_names()
                .map(str::to_ascii_lowercase)
                .collect(),
            not_after: Timestamp::from_milliseconds(milliseconds),
        })
    }
}

/// The certificates of listeners that have ended or soon will, each a warning.
pub fn ending(config: &Config, now: Timestamp) -> Vec<Problem> {
    let mut warnings = Vec::new();
    for (index, listener) in config.listeners.iter().enumerate() {
        let pairs = listener.tls.iter().flat_map(|tls| &tls.pairs);
        for (number, pair) in pairs.enumerate() {
            let what = match pair.not_after {
                end if end <= now => "ended on",
                end if end <= now.plus(SOON) => "ends on",
                _ => continue,
            };
            let key = match number {
                0 => format!("listeners[{index}].tls.certificate"),
                _ => {
                    let further = number - 1;
                    format!("listeners[{index}].tls.certificates[{further}].certificate")
                }
            };
            warnings.push(Problem {
                line: 0,
                column: 0,
                key,
                message: format!("{} {what} {}", pair.file, pair.not_after.rfc3339()),
                remedy: "renew it; a changed file is put in force at once".to_owned(),
            });
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let names = ["Api.Example".to_owned(), "*.api.example".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn a_certificate_tells_its_names_and_its_end() {
        // The two ways in which a date is written: up to 2049 with two digits of the year.
        for (year, end) in [
            (2030, "2030-03-01T00:00:00Z"),
            (2060, "2060-03-01T00:00:00Z"),
        ] {
            let certificate = certificate(|params| params.not_after = date_time_ymd(year, 3, 1));
            let facts = Facts::of(&certificate).unwrap();
            assert_eq!(facts.names, ["api.example", "*.api.example"]);
            assert_eq!(facts.not_after, Timestamp::parse(end).unwrap());
        }
    }

    #[test]
    fn what_the_certificate_may_be_used_for_does_not_hide_its_end() {
        let certificate = certificate(|params| {
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
            params.not_after = date_time_ymd(2020, 3, 1);
        });
        let facts = Facts::of(&certificate).unwrap();
        assert_eq!(
            facts.not_after,
            Timestamp::parse("2020-03-01T00:00:00Z").unwrap()
        );
    }

    #[test]
    fn what_is_no_certificate_has_no_facts() {
        assert_eq!(Facts::of(&CertificateDer::from(vec![48, 0])), None);
    }
}
