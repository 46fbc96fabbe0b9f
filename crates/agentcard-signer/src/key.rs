//! The private key in the form that the signing library takes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::PrivateKeyDer;
use zeroize::Zeroizing;

/// PKCS#8 as it is; the older forms as PEM, which says what they are. The memory is cleared after use.
pub(crate) fn encoded(key: &PrivateKeyDer<'_>) -> Zeroizing<Vec<u8>> {
    let kind = match key {
        PrivateKeyDer::Sec1(_) => "EC",
        PrivateKeyDer::Pkcs1(_) => "RSA",
        _ => return Zeroizing::new(key.secret_der().to_vec()),
    };
    let body = Zeroizing::new(STANDARD.encode(key.secret_der()));
    // One allocation of the final size: growing would leave copies behind.
    let mut pem = Zeroizing::new(Vec::with_capacity(body.len() + body.len() / 64 + 100));
    for part in ["-----BEGIN ", kind, " PRIVATE KEY-----\n"] {
        pem.extend_from_slice(part.as_bytes());
    }
    for line in body.as_bytes().chunks(64) {
        pem.extend_from_slice(line);
        pem.push(b'\n');
    }
    for part in ["-----END ", kind, " PRIVATE KEY-----\n"] {
        pem.extend_from_slice(part.as_bytes());
    }
    pem
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};

    use super::*;

    #[test]
    fn older_forms_become_pem_and_come_back() {
        let der = vec![7; 200];
        let forms: [PrivateKeyDer<'static>; 2] =
            [PrivateSec1KeyDer::from(der.clone()).into(), PrivatePkcs1KeyDer::from(der.clone()).into()];
        for key in forms {
            let pem = encoded(&key);
            assert!(pem.capacity() >= pem.len());
            assert_eq!(PrivateKeyDer::from_pem_slice(&pem).expect("PEM"), key);
        }
        assert_eq!(*encoded(&PrivatePkcs8KeyDer::from(der.clone()).into()), der);
    }
}
