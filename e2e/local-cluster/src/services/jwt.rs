//! Tokens, checked the way a sidecar checks them: signature by the realm's keys, issuer, time, audience.

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use serde_json::Value;

use super::web::{items, text};

/// An access token.
#[derive(Clone)]
pub struct Token {
    text: String,
    header: Value,
    claims: Value,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("claims", &self.claims).finish_non_exhaustive()
    }
}

impl Token {
    /// Reads a token in compact form; nothing is checked yet.
    pub fn read(text: &str) -> Result<Self> {
        let mut parts = text.split('.');
        let (Some(header), Some(claims), Some(_), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            bail!("not three parts");
        };
        let json = |part: &str| -> Result<Value> {
            Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).context("base64")?)?)
        };
        let (header, claims) = (json(header).context("its header")?, json(claims).context("its claims")?);
        Ok(Self { text: text.to_owned(), header, claims })
    }

    /// The compact form, for a header.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The claims.
    pub fn claims(&self) -> &Value {
        &self.claims
    }

    /// The audiences: `aud` is a plain string when there is one.
    pub fn audiences(&self) -> Vec<&str> {
        match self.claims.get("aud") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// A time of the claims, in seconds since 1970.
    fn seconds(&self, pointer: &str) -> Option<i64> {
        self.claims.pointer(pointer).and_then(Value::as_i64)
    }

    /// Fails unless a key of `keys` (a JWKS) signed it, it comes from `issuer`, is valid now and is meant for
    /// `audience`.
    pub fn verify(&self, keys: &Value, issuer: &str, audience: &str) -> Result<()> {
        ensure!(text(&self.header, "/alg") == "RS256", "algorithm {}", text(&self.header, "/alg"));
        let known = |key: &&Value| {
            text(key, "/kid") == text(&self.header, "/kid")
                && text(key, "/kty") == "RSA"
                && text(key, "/use") == "sig"
        };
        let key = items(keys, "/keys").iter().find(known).context("no key of the realm has its id")?;
        let part = |name: &str| URL_SAFE_NO_PAD.decode(text(key, name)).context("the realm's key");
        let key = RsaPublicKeyComponents { n: part("/n")?, e: part("/e")? };
        let (signed, signature) = self.text.rsplit_once('.').context("no signature")?;
        let signature = URL_SAFE_NO_PAD.decode(signature).context("its signature")?;
        key.verify(&RSA_PKCS1_2048_8192_SHA256, signed.as_bytes(), &signature)
            .map_err(|_| anyhow::anyhow!("the signature is wrong"))?;
        ensure!(text(&self.claims, "/iss") == issuer, "issuer {}", text(&self.claims, "/iss"));
        let now = jiff::Timestamp::now().as_second();
        let expires = self.seconds("/exp").context("no expiry")?;
        ensure!(expires > now, "expired {} s ago", now - expires);
        ensure!(self.seconds("/nbf").is_none_or(|from| from <= now + 5), "not valid yet");
        ensure!(self.audiences().contains(&audience), "it is for {:?}, not for {audience}", self.audiences());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn token(claims: &Value) -> Token {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = json!({"alg": "RS256", "kid": "k"});
        Token::read(&format!("{}.{}.AAAA", part(&header), part(claims))).expect("a token")
    }

    #[test]
    fn one_audience_or_several() {
        assert_eq!(token(&json!({"aud": "a"})).audiences(), ["a"]);
        assert_eq!(token(&json!({"aud": ["a", "b"]})).audiences(), ["a", "b"]);
        assert!(token(&json!({})).audiences().is_empty());
    }

    #[test]
    fn nothing_passes_without_a_key_and_a_signature() {
        let token = token(&json!({"aud": "a", "iss": "i", "exp": i64::MAX}));
        let error = token.verify(&json!({"keys": []}), "i", "a").expect_err("no key").to_string();
        assert!(error.contains("no key"), "{error}");
        let keys = json!({"keys": [{"kid": "k", "kty": "RSA", "use": "sig", "n": "AQAB", "e": "AQAB"}]});
        let error = token.verify(&keys, "i", "a").expect_err("no signature").to_string();
        assert!(error.contains("signature"), "{error}");
    }
}
