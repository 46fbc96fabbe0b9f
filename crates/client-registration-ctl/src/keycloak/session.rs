//! The end of a login's session: a replaced token's session is closed, but only after the last call that uses the token
//! has ended, because the token is refused from that moment (client-registration §5.2).

use rest_client::{BaseUrl, Endpoint, Request, RestClient, Secret};
use tokio::sync::mpsc;

/// Sessions that wait to be closed; more are left to end by themselves.
const WAITING: usize = 64;

/// A session of Keycloak's administrator. When the last holder drops it, it is handed to the closer.
#[derive(Debug)]
pub struct Session {
    open: Option<OpenSession>,
    closer: mpsc::Sender<OpenSession>,
}

#[derive(Debug)]
struct OpenSession {
    base: BaseUrl,
    realm: String,
    client: &'static str,
    refresh: Secret,
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            // Best effort: nobody waits for it.
            let _ = self.closer.try_send(open);
        }
    }
}

/// Makes sessions and closes them.
#[derive(Clone, Debug)]
pub struct Sessions(mpsc::Sender<OpenSession>);

/// Closes sessions, one after the other.
pub struct Closer {
    rest: RestClient,
    ended: mpsc::Receiver<OpenSession>,
}

/// The two ends.
pub fn sessions(rest: RestClient) -> (Sessions, Closer) {
    let (sender, ended) = mpsc::channel(WAITING);
    (Sessions(sender), Closer { rest, ended })
}

impl Sessions {
    /// A session that a login of `client` in `realm` began.
    pub fn open(&self, base: &BaseUrl, realm: &str, client: &'static str, refresh: Secret) -> Session {
        let open = OpenSession { base: base.clone(), realm: realm.to_owned(), client, refresh };
        Session { open: Some(open), closer: self.0.clone() }
    }
}

impl Closer {
    /// Closes what ends, for ever.
    pub async fn run(mut self) {
        while let Some(session) = self.ended.recv().await {
            let endpoint = Endpoint::new("logout").segments([
                "realms",
                &session.realm,
                "protocol",
                "openid-connect",
                "logout",
            ]);
            let request = Request::post(&session.base, endpoint)
                .form([("client_id", session.client), ("refresh_token", session.refresh.expose())])
                .once();
            match self.rest.send(&request).await {
                Ok(answer) if answer.is_success() => {}
                Ok(answer) => tracing::debug!(status = answer.status(), "an old session was not closed"),
                Err(error) => tracing::debug!(%error, "an old session was not closed"),
            }
        }
    }
}
