//! What no log, Event, condition, metric or argument may hold (client-registration, scenario 23).

use anyhow::{Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

use crate::services::Account;
use crate::services::web::encoded;

/// Secrets, in the forms in which a program might write them.
#[derive(Default)]
pub(super) struct Forbidden(Vec<String>);

impl Forbidden {
    /// Secrets by themselves: passwords, client secrets, tokens.
    pub(super) fn secrets(&mut self, secrets: impl IntoIterator<Item = String>) {
        for secret in secrets {
            self.0.push(STANDARD_NO_PAD.encode(&secret));
            self.0.push(secret);
        }
    }

    /// A login as in an `Authorization` header.
    pub(super) fn login(&mut self, account: &Account) {
        for id in [account.id.clone(), encoded(&account.id)] {
            self.0.push(STANDARD.encode(format!("{id}:{}", account.secret)));
        }
        self.secrets([account.secret.clone()]);
    }

    /// Fails when one of them, or anything that looks like a token, is in `text`.
    pub(super) fn check(&self, place: &str, text: &str) -> Result<()> {
        if let Some(index) = self.0.iter().position(|secret| text.contains(secret.as_str())) {
            bail!("secret {index} of {} is in {place}", self.0.len());
        }
        if holds_token(text) {
            bail!("a token is in {place}");
        }
        Ok(())
    }
}

/// Whether there is a JWT: three parts, of which the first two begin as JSON objects do.
fn holds_token(text: &str) -> bool {
    let part = |letter: char| !(letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.'));
    text.split(part).any(|word| {
        let parts: Vec<&str> = word.split('.').collect();
        parts.windows(3).any(|three| {
            matches!(three, [head, claims, signature]
                if head.starts_with("eyJ") && claims.starts_with("eyJ") && signature.len() >= 16)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_found_in_every_form() {
        let mut forbidden = Forbidden::default();
        forbidden.login(&Account { id: "team1/x".to_owned(), secret: "s3cret-value".to_owned() });
        forbidden.check("a log", "nothing of it").expect("nothing");
        for text in [
            "password=s3cret-value&x=y".to_owned(),
            format!("data: {}", STANDARD.encode("s3cret-value")),
            format!("Basic {}", STANDARD.encode("team1%2Fx:s3cret-value")),
        ] {
            let error = forbidden.check("a log", &text).expect_err(&text).to_string();
            assert!(error.contains("a log") && !error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn tokens_are_known_by_their_shape() {
        assert!(holds_token("Bearer eyJhbGciOi.eyJleHAiOj.0123456789abcdef\""));
        assert!(!holds_token("eyJhbGciOi eyJleHAiOj 0123456789abcdef"));
        assert!(!holds_token("https://a.example.com/realms/kagenti-0123456789abcdef"));
    }
}
