//! `helper.conf` of the SPIFFE helper: rendering ours, reading one key of the namespace's (split §5.2, §6).

use std::{iter::Peekable, str::Chars};

use api_types::namespace_config::AuthbridgeConfig;

/// The audience of the published examples, used when the namespace names none.
const DEFAULT_AUDIENCE: &str = "kagenti";
/// Where the helper's health endpoint listens unless told otherwise.
const DEFAULT_HEALTH_PORT: u16 = 8081;

/// An audience that would break out of its HCL string.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "key {key} of ConfigMap authbridge-config cannot be the JWT audience of spiffe-helper: it must not contain quotes, backslashes, dollar signs or control characters"
)]
pub(crate) struct BadAudience {
    /// The key the audience comes from.
    key: &'static str,
}

/// Renders the file. `socket` is the path of the Workload API socket, without `unix://`.
pub(crate) fn render(socket: &str, config: AuthbridgeConfig<'_>) -> Result<String, BadAudience> {
    let (key, audience) = match (config.jwt_audience(), config.issuer()) {
        (Some(audience), _) => ("JWT_AUDIENCE", audience.to_owned()),
        (None, Some(issuer)) if config.issuer_key().is_some() => ("ISSUER", issuer),
        (None, Some(issuer)) => ("KEYCLOAK_URL or KEYCLOAK_REALM", issuer),
        (None, None) => ("JWT_AUDIENCE", DEFAULT_AUDIENCE.to_owned()),
    };
    if audience.chars().any(|c| matches!(c, '"' | '\\' | '$') || c.is_control()) {
        return Err(BadAudience { key });
    }
    Ok(format!(
        r#"agent_address = "{socket}"
cmd = ""
cmd_args = ""
cert_dir = "/opt"
svid_file_name = "svid.pem"
svid_key_file_name = "svid_key.pem"
svid_bundle_file_name = "svid_bundle.pem"
jwt_svids = [{{jwt_audience="{audience}", jwt_svid_file_name="jwt_svid.token"}}]
jwt_svid_file_mode = 0644
include_federated_domains = true
"#
    ))
}

/// The port of an enabled `health_checks` block, which listens on all addresses of the Pod.
///
/// Reads just enough HCL: strings, comments and nesting are understood, anything else is skipped.
pub(crate) fn health_port(text: &str) -> Option<u16> {
    let mut tokens = Tokens { chars: text.chars().peekable() };
    let mut depth = 0_usize;
    let mut previous = Token::End;
    loop {
        let token = tokens.next();
        match &token {
            Token::End => return None,
            Token::Open if depth == 0 && is_health_checks(&previous) => return block_port(&mut tokens),
            Token::Open => depth += 1,
            Token::Close => depth = depth.saturating_sub(1),
            Token::Word(word) if word == "=" && depth == 0 && is_health_checks(&previous) => continue,
            Token::Word(_) => {}
        }
        previous = token;
    }
}

fn is_health_checks(token: &Token) -> bool {
    matches!(token, Token::Word(word) if word == "health_checks")
}

fn block_port(tokens: &mut Tokens<'_>) -> Option<u16> {
    let (mut enabled, mut port, mut depth) = (false, DEFAULT_HEALTH_PORT, 0_usize);
    let mut last = [Token::End, Token::End];
    loop {
        let token = tokens.next();
        match &token {
            Token::End => break,
            Token::Close if depth == 0 => break,
            Token::Open => depth += 1,
            Token::Close => depth -= 1,
            Token::Word(value) if depth == 0 => {
                let [Token::Word(key), Token::Word(equals)] = &last else {
                    last = [std::mem::replace(&mut last[1], Token::End), token];
                    continue;
                };
                match (key.as_str(), equals.as_str()) {
                    ("listener_enabled", "=") => enabled = value == "true",
                    ("bind_port", "=") => port = value.parse().ok().filter(|port| *port != 0)?,
                    _ => {}
                }
            }
            Token::Word(_) => {}
        }
        last = [std::mem::replace(&mut last[1], Token::End), token];
    }
    enabled.then_some(port)
}

#[derive(Debug, PartialEq)]
enum Token {
    Open,
    Close,
    /// A bare word, a string without its quotes, or `=`.
    Word(String),
    End,
}

struct Tokens<'t> {
    chars: Peekable<Chars<'t>>,
}

impl Tokens<'_> {
    fn next(&mut self) -> Token {
        while let Some(c) = self.chars.next() {
            match c {
                '{' => return Token::Open,
                '}' => return Token::Close,
                '=' => return Token::Word("=".into()),
                '"' => return Token::Word(self.string()),
                '#' => self.skip_line(),
                '/' if self.chars.peek() == Some(&'/') => self.skip_line(),
                '/' if self.chars.peek() == Some(&'*') => self.skip_block(),
                c if is_word(c) => {
                    let mut word = String::from(c);
                    while let Some(c) = self.chars.next_if(|c| is_word(*c)) {
                        word.push(c);
                    }
                    return Token::Word(word);
                }
                _ => {}
            }
        }
        Token::End
    }

    fn string(&mut self) -> String {
        let mut text = String::new();
        while let Some(c) = self.chars.next() {
            match c {
                '"' => break,
                '\\' => text.extend(self.chars.next()),
                c => text.push(c),
            }
        }
        text
    }

    fn skip_line(&mut self) {
        while self.chars.next_if(|c| *c != '\n').is_some() {}
    }

    fn skip_block(&mut self) {
        let mut star = false;
        self.chars.next();
        for c in self.chars.by_ref() {
            if star && c == '/' {
                return;
            }
            star = c == '*';
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.')
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rstest::rstest;

    use super::*;

    fn rendered(entries: &[(&str, &str)]) -> Result<String, BadAudience> {
        let map: BTreeMap<String, String> =
            entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        render("/spiffe-workload-api/spire-agent.sock", AuthbridgeConfig(Some(&map)))
    }

    #[test]
    fn the_file_is_the_one_of_the_chapter() {
        let text = rendered(&[("JWT_AUDIENCE", "https://kc/realms/r")]).expect("a file");
        assert_eq!(
            text,
            r#"agent_address = "/spiffe-workload-api/spire-agent.sock"
cmd = ""
cmd_args = ""
cert_dir = "/opt"
svid_file_name = "svid.pem"
svid_key_file_name = "svid_key.pem"
svid_bundle_file_name = "svid_bundle.pem"
jwt_svids = [{jwt_audience="https://kc/realms/r", jwt_svid_file_name="jwt_svid.token"}]
jwt_svid_file_mode = 0644
include_federated_domains = true
"#
        );
    }

    #[rstest]
    #[case(&[("ISSUER", "https://i"), ("JWT_AUDIENCE", "a")], "a")]
    #[case(&[("ISSUER", "https://i")], "https://i")]
    #[case(&[("KEYCLOAK_URL", "http://kc"), ("KEYCLOAK_REALM", "r")], "http://kc/realms/r")]
    #[case(&[], "kagenti")]
    fn audiences(#[case] entries: &[(&str, &str)], #[case] want: &str) {
        let text = rendered(entries).expect("a file");
        assert!(text.contains(&format!("jwt_audience=\"{want}\"")), "{text}");
    }

    #[rstest]
    #[case("JWT_AUDIENCE", "a\"b")]
    #[case("ISSUER", "a\\b")]
    #[case("ISSUER", "a${b}")]
    #[case("JWT_AUDIENCE", "a\nb")]
    fn bad_audiences_name_the_key(#[case] key: &str, #[case] value: &str) {
        let error = rendered(&[(key, value)]).expect_err("refused");
        assert!(error.to_string().contains(key), "{error}");
    }

    #[rstest]
    #[case("health_checks { listener_enabled = true }", Some(8081))]
    #[case("health_checks {\n  listener_enabled = true\n  bind_port = 9000\n}", Some(9000))]
    #[case("health_checks {\n  bind_port = \"9000\"\n  listener_enabled = \"true\"\n}", Some(9000))]
    #[case("health_checks = { listener_enabled = true }", Some(8081))]
    #[case("health_checks { listener_enabled = false }", None)]
    #[case("health_checks { bind_port = 9000 }", None)]
    #[case("# health_checks { listener_enabled = true }", None)]
    #[case("/* health_checks { listener_enabled = true } */ cmd = \"x { y\"", None)]
    #[case("cmd = \"health_checks { listener_enabled = true }\"", None)]
    #[case("other { health_checks { listener_enabled = true } }", None)]
    #[case("jwt_svids = [{a=\"b\"}]\nhealth_checks { // on\n listener_enabled = true\n}", Some(8081))]
    #[case("health_checks { listener_enabled = true", Some(8081))]
    #[case("", None)]
    fn health_ports(#[case] text: &str, #[case] want: Option<u16>) {
        assert_eq!(health_port(text), want);
    }
}
