//! The bearer token of the controller (MLflow §5.1).

use std::{path::PathBuf, time::Duration};

use rest_client::Secret;
use tokio::{sync::Mutex, time::Instant};

/// Projected tokens rotate; an older copy is read again.
const FRESH: Duration = Duration::from_secs(60);

/// A token in a file.
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    read: Option<(Instant, Option<Secret>)>,
    complained: bool,
}

impl TokenFile {
    /// Nothing is read yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, state: Mutex::default() }
    }

    /// The token, trimmed; `None` when there is none. A file that cannot be read is said once.
    pub async fn get(&self) -> Option<Secret> {
        let mut state = self.state.lock().await;
        if let Some((at, token)) = &state.read
            && at.elapsed() < FRESH
        {
            return token.clone();
        }
        let token = match tokio::fs::read_to_string(&self.path).await {
            Ok(text) => {
                state.complained = false;
                Some(Secret::new(text.trim().to_owned())).filter(|token| !token.is_empty())
            }
            Err(error) => {
                if !std::mem::replace(&mut state.complained, true) {
                    tracing::warn!(
                        file = %self.path.display(),
                        "no token for MLflow, requests go without: {error}; --mlflow-token-file names another file"
                    );
                }
                None
            }
        };
        state.read = Some((Instant::now(), token.clone()));
        token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rotated_token_is_read_after_a_minute() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let token = TokenFile::new(file.path().into());
        std::fs::write(file.path(), " one \n").unwrap();
        let text = async || token.get().await.map(|secret| secret.expose().to_owned());
        assert_eq!(text().await.as_deref(), Some("one"));
        std::fs::write(file.path(), "two").unwrap();
        assert_eq!(text().await.as_deref(), Some("one"));
        tokio::time::advance(FRESH).await;
        assert_eq!(text().await.as_deref(), Some("two"));
        std::fs::write(file.path(), "\n").unwrap();
        tokio::time::advance(FRESH).await;
        assert_eq!(text().await, None);
    }
}
