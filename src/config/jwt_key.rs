//! Which keys can verify JSON Web Tokens.
//!
//! One judgement for both who reads the file and who verifies: a key that `cutover check` accepts
//! and `serve` refuses would be found out at the deployment.

use jsonwebtoken::{Algorithm, DecodingKey};

use super::model::JwtAlgorithm;

/// A key that cannot verify what it is configured for. Says nothing of the key itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtKeyError {
    /// An empty secret verifies what anybody signs.
    #[error("the HS256 secret is empty")]
    EmptySecret,
    /// Public keys are public: as a shared secret, one lets anybody sign.
    #[error("the HS256 secret is a PEM file; RS256 and ES256 take public keys, HS256 does not")]
    PemAsSecret,
    /// No public key, or one of another kind.
    #[error("this is no {} public key in PEM", kind(*algorithm))]
    InvalidPublicKey {
        /// The algorithm it is meant for.
        algorithm: JwtAlgorithm,
    },
    /// A key so short that no signature by it is accepted.
    #[error("this RSA key has less than 2048 bits")]
    ShortRsaKey,
}

impl JwtKeyError {
    /// What would mend it.
    pub const fn remedy(self) -> &'static str {
        match self {
            JwtKeyError::EmptySecret => "give the shared secret, such as `${JWT_SECRET}`",
            JwtKeyError::PemAsSecret => {
                "give the shared secret, or name the algorithm that the key is for"
            }
            JwtKeyError::InvalidPublicKey { .. } => {
                "give the text that begins with `-----BEGIN PUBLIC KEY-----`, no certificate and \
                 no private key, such as with `${file:jwt.pem}`"
            }
            JwtKeyError::ShortRsaKey => "have the issuer sign with a longer key",
        }
    }
}

const fn kind(algorithm: JwtAlgorithm) -> &'static str {
    match algorithm {
        JwtAlgorithm::Es256 => "P-256",
        JwtAlgorithm::Rs256 | JwtAlgorithm::Hs256 => "RSA",
    }
}

/// The key in the form that verifies.
///
/// # Errors
/// [`JwtKeyError`] where it cannot verify tokens of this algorithm.
pub fn decoding_key(
    algorithm: JwtAlgorithm,
    key: &[u8],
) -> Result<(Algorithm, DecodingKey), JwtKeyError> {
    let invalid = || JwtKeyError::InvalidPublicKey { algorithm };
    // The library takes certificates and private keys for public ones and finds the wrong bytes in
    // them; every token would then be unverifiable without a word.
    let has_label = |label: &str| {
        let text = String::from_utf8_lossy(key);
        text.contains(&format!("-----BEGIN {label}-----"))
    };
    let is_public = has_label("PUBLIC KEY") || has_label("RSA PUBLIC KEY");
    match algorithm {
        JwtAlgorithm::Hs256 if key.is_empty() => Err(JwtKeyError::EmptySecret),
        JwtAlgorithm::Hs256 if key.trim_ascii_start().starts_with(b"-----BEGIN ") => {
            Err(JwtKeyError::PemAsSecret)
        }
        JwtAlgorithm::Hs256 => Ok((Algorithm::HS256, DecodingKey::from_secret(key))),
        JwtAlgorithm::Rs256 | JwtAlgorithm::Es256 if !is_public => Err(invalid()),
        JwtAlgorithm::Rs256 => {
            let key = DecodingKey::from_rsa_pem(key).map_err(|_| invalid())?;
            // The modulus alone has 256 bytes at 2048 bits; below that, no signature is accepted.
            let size = key.try_get_as_bytes().map_err(|_| invalid())?.len();
            if size < 256 {
                return Err(JwtKeyError::ShortRsaKey);
            }
            Ok((Algorithm::RS256, key))
        }
        JwtAlgorithm::Es256 => {
            let key = DecodingKey::from_ec_pem(key).map_err(|_| invalid())?;
            // An uncompressed point on P-256: a tag and two coordinates of 32 bytes.
            let size = key.try_get_as_bytes().map_err(|_| invalid())?.len();
            if size != 65 {
                return Err(invalid());
            }
            Ok((Algorithm::ES256, key))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(algorithm: &'static rcgen::SignatureAlgorithm) -> (String, String) {
        let pair = rcgen::KeyPair::generate_for(algorithm).unwrap();
        (pair.serialize_pem(), pair.public_key_pem())
    }

    #[test]
    fn a_key_that_cannot_verify_is_refused_for_its_reason() {
        let (rsa_private, rsa) = pair(&rcgen::PKCS_RSA_SHA256);
        let (_, p256) = pair(&rcgen::PKCS_ECDSA_P256_SHA256);
        let (_, p384) = pair(&rcgen::PKCS_ECDSA_P384_SHA384);
        let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = certificate.cert.pem();
        let (hs256, rs256, es256) = (
            JwtAlgorithm::Hs256,
            JwtAlgorithm::Rs256,
            JwtAlgorithm::Es256,
        );
        let invalid = |algorithm| Some(JwtKeyError::InvalidPublicKey { algorithm });
        let nonsense = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
        for (algorithm, key, expected) in [
            (hs256, "secret", None),
            (rs256, &rsa, None),
            (es256, &p256, None),
            (hs256, "", Some(JwtKeyError::EmptySecret)),
            (hs256, &rsa, Some(JwtKeyError::PemAsSecret)),
            (rs256, SHORT_RSA_KEY, Some(JwtKeyError::ShortRsaKey)),
            (rs256, &p256, invalid(rs256)),
            (rs256, "secret", invalid(rs256)),
            (rs256, nonsense, invalid(rs256)),
            (rs256, &rsa_private, invalid(rs256)),
            (rs256, &certificate, invalid(rs256)),
            (es256, &certificate, invalid(es256)),
            (es256, &rsa, invalid(es256)),
            (es256, &p384, invalid(es256)),
            (es256, "", invalid(es256)),
        ] {
            let judged = decoding_key(algorithm, key.as_bytes()).err();
            assert_eq!(judged, expected, "{algorithm:?} {key}");
        }
    }

    /// 1,024 bits, made with `openssl genrsa 1024 | openssl rsa -pubout`.
    const SHORT_RSA_KEY: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCwoXxPiXjEtG/wH2B+/M4jKQSv
HapExMtW4wmFKq33bLGr9miwARCiNBUDgPkz3VVbZw8QEa1EbEAW+wq2LMmTdYuS
wRWgDIYl3YHsP7OTNoq3rvfCqiCfK5M+hKoAEn9zvw61+eNOCfkKxpL9beI8yob8
4GgYve7hIR2n0DuZhQIDAQAB
-----END PUBLIC KEY-----
";
}
