//! A realm with a client and a user, for the demo or for one test, and what an administrator sees in it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use http::Method;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::jwt::Token;
use super::keycloak::Keycloak;
use super::new_password;
use super::web::{Call, Reply, encoded, text};

/// The platform's client (client-registration, scenarios).
pub const PLATFORM_CLIENT: &str = "kagenti";
/// A user of the realm.
pub const USER: &str = "ann";
/// Name of the client that [`Realm::least_rights`] makes.
pub const REGISTRAR: &str = "client-registration-ctl";
/// How long an administrator's token is used; it is valid for a minute.
const TOKEN_AGE: Duration = Duration::from_secs(30);

/// Who may ask for tokens: a client with its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    /// Client id.
    pub id: String,
    /// Client secret.
    pub secret: String,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A realm with client [`PLATFORM_CLIENT`] and user [`USER`].
pub struct Realm {
    base: String,
    name: String,
    admin: (String, String),
    token: Mutex<Option<(Instant, String)>>,
    platform: Account,
    user_password: String,
}

impl Realm {
    /// Makes the realm.
    pub async fn create(keycloak: &Keycloak, name: &str) -> Result<Self> {
        let platform = Account { id: PLATFORM_CLIENT.to_owned(), secret: new_password()? };
        let realm = Self {
            base: keycloak.url().to_owned(),
            name: name.to_owned(),
            admin: (keycloak.admin_username().to_owned(), keycloak.admin_password().to_owned()),
            token: Mutex::default(),
            platform: platform.clone(),
            user_password: new_password()?,
        };
        let body = json!({
            "realm": name,
            "enabled": true,
            "clients": [{
                "clientId": platform.id,
                "enabled": true,
                "publicClient": false,
                "secret": platform.secret,
                "serviceAccountsEnabled": true,
                "directAccessGrantsEnabled": true,
            }],
        });
        let url = format!("{}/admin/realms", realm.base);
        Call::post(url)
            .bearer(&realm.admin_token().await?)
            .json(&body)
            .ok()
            .await
            .context("making the realm")?;
        // Not with the realm: users that are imported with it get no default roles, and so no audience.
        let user = json!({
            "username": USER,
            "enabled": true,
            "email": "ann@example.test",
            "emailVerified": true,
            "firstName": "Ann",
            "lastName": "Example",
            "credentials": [{"type": "password", "value": realm.user_password, "temporary": false}],
        });
        realm.write(Method::POST, "/users", &user).await.context("making a user")?;
        Ok(realm)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What `iss` of its tokens says.
    pub fn issuer(&self) -> String {
        format!("{}/realms/{}", self.base, self.name)
    }

    /// The platform's client.
    pub fn platform(&self) -> &Account {
        &self.platform
    }

    /// Removes the realm: it is missing from then on.
    pub async fn delete(&self) -> Result<()> {
        self.admin(Method::DELETE, "", None).await?.ok_or("deleting the realm").map(drop)
    }

    /// One request of the administrator below `/admin/realms/<realm>`; the answer, whatever it is.
    pub async fn admin(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Reply> {
        let url = format!("{}/admin/realms/{}{path}", self.base, self.name);
        let call = Call::new(method, url).bearer(&self.admin_token().await?);
        match body {
            Some(body) => call.json(body).send().await,
            None => call.send().await,
        }
    }

    /// What the administrator reads.
    pub async fn read(&self, path: &str) -> Result<Value> {
        self.admin(Method::GET, path, None).await?.ok_or(path)
    }

    /// What the administrator writes.
    pub async fn write(&self, method: Method, path: &str, body: &Value) -> Result<Reply> {
        let reply = self.admin(method, path, Some(body)).await?;
        reply.clone().ok_or(path)?;
        Ok(reply)
    }

    async fn admin_token(&self) -> Result<String> {
        let mut known = self.token.lock().await;
        if let Some((_, token)) = known.as_ref().filter(|(since, _)| since.elapsed() < TOKEN_AGE) {
            return Ok(token.clone());
        }
        let (user, password) = &self.admin;
        let fields = [
            ("grant_type", "password"),
            ("client_id", "admin-cli"),
            ("username", user),
            ("password", password),
        ];
        let url = format!("{}/realms/master/protocol/openid-connect/token", self.base);
        let token = Call::post(url).form(&fields).ok().await.context("logging in as administrator")?;
        let token = text(&token, "/access_token").to_owned();
        *known = Some((Instant::now(), token.clone()));
        Ok(token)
    }

    /// A client by its id.
    pub async fn client(&self, id: &str) -> Result<Option<Value>> {
        let found = self.read(&format!("/clients?clientId={}", encoded(id))).await?;
        Ok(found.as_array().and_then(|clients| clients.first().cloned()))
    }

    /// A client that must be there.
    pub async fn existing(&self, id: &str) -> Result<Value> {
        self.client(id).await?.with_context(|| format!("there is no client {id} in realm {}", self.name))
    }

    /// Ids of the clients that did not come with the realm.
    pub async fn agents(&self) -> Result<Vec<String>> {
        let all = self.read("/clients").await?;
        let own = ["account", "account-console", "admin-cli", "broker", "realm-management"];
        let own = own.into_iter().chain(["security-admin-console", PLATFORM_CLIENT, REGISTRAR]);
        let own: Vec<&str> = own.collect();
        let ids = all.as_array().into_iter().flatten().map(|client| text(client, "/clientId"));
        let mut ids: Vec<String> = ids.filter(|id| !own.contains(id)).map(str::to_owned).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// A client scope by its name, with its mappers.
    pub async fn scope(&self, name: &str) -> Result<Option<Value>> {
        let all = self.read("/client-scopes").await?;
        Ok(all.as_array().and_then(|all| all.iter().find(|scope| text(scope, "/name") == name).cloned()))
    }

    /// Names of the client scopes that end in `-aud` or carry our suffix.
    pub async fn audience_scopes(&self) -> Result<Vec<String>> {
        let all = self.read("/client-scopes").await?;
        let names = all.as_array().into_iter().flatten().map(|scope| text(scope, "/name"));
        let mut names: Vec<String> =
            names.filter(|name| name.starts_with("agent-")).map(str::to_owned).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Names on the realm's default list: what clients made later get.
    pub async fn default_scopes(&self) -> Result<Vec<String>> {
        let all = self.read("/default-default-client-scopes").await?;
        let names = all.as_array().into_iter().flatten().map(|scope| text(scope, "/name").to_owned());
        let mut names: Vec<String> = names.collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Changes a client; fields that are left out stay.
    pub async fn change_client(&self, id: &str, mut fields: Value) -> Result<()> {
        let client = self.existing(id).await?;
        fields.as_object_mut().context("the fields are no object")?.insert("clientId".to_owned(), json!(id));
        self.write(Method::PUT, &format!("/clients/{}", text(&client, "/id")), &fields).await.map(drop)
    }

    /// Makes a client and returns its UUID.
    pub async fn create_client(&self, body: &Value) -> Result<String> {
        self.write(Method::POST, "/clients", body).await?;
        let id = text(body, "/clientId");
        Ok(text(&self.existing(id).await?, "/id").to_owned())
    }

    /// Removes a client.
    pub async fn delete_client(&self, id: &str) -> Result<()> {
        let uuid = text(&self.existing(id).await?, "/id").to_owned();
        self.admin(Method::DELETE, &format!("/clients/{uuid}"), None).await?.ok_or("deleting").map(drop)
    }

    /// Gives a client a new secret and returns it.
    pub async fn rotate(&self, id: &str) -> Result<String> {
        let uuid = text(&self.existing(id).await?, "/id").to_owned();
        let path = format!("/clients/{uuid}/client-secret");
        let reply = self.admin(Method::POST, &path, None).await?.ok_or("a new secret")?;
        Ok(text(&reply, "/value").to_owned())
    }

    /// The service account that the documentation recommends: a client with the one role `manage-clients` of
    /// `realm-management` (client-registration §5.2).
    pub async fn least_rights(&self) -> Result<Account> {
        let account = self.registrar().await?;
        let user = self.service_account(&account.id).await?;
        let management = self.existing("realm-management").await?;
        let management = text(&management, "/id");
        let role = self.read(&format!("/clients/{management}/roles/manage-clients")).await?;
        let path = format!("/users/{user}/role-mappings/clients/{management}");
        self.write(Method::POST, &path, &json!([role])).await?;
        Ok(account)
    }

    /// A service account without any right.
    pub async fn registrar(&self) -> Result<Account> {
        let account = Account { id: REGISTRAR.to_owned(), secret: new_password()? };
        let body = json!({
            "clientId": account.id,
            "secret": account.secret,
            "publicClient": false,
            "serviceAccountsEnabled": true,
            "standardFlowEnabled": false,
            "directAccessGrantsEnabled": false,
            "fullScopeAllowed": true,
        });
        self.create_client(&body).await?;
        Ok(account)
    }

    async fn service_account(&self, client: &str) -> Result<String> {
        let uuid = text(&self.existing(client).await?, "/id").to_owned();
        Ok(text(&self.read(&format!("/clients/{uuid}/service-account-user")).await?, "/id").to_owned())
    }

    /// What the token endpoint answers to a form.
    pub async fn token_endpoint(&self, fields: &[(&str, &str)]) -> Result<Reply> {
        let url = format!("{}/protocol/openid-connect/token", self.issuer());
        Call::post(url).form(fields).send().await
    }

    /// What the token endpoint answers to a client that logs in for itself.
    pub async fn log_in(&self, account: &Account) -> Result<Reply> {
        self.token_endpoint(&[
            ("grant_type", "client_credentials"),
            ("client_id", &account.id),
            ("client_secret", &account.secret),
        ])
        .await
    }

    /// The token of a client that logs in for itself.
    pub async fn token(&self, account: &Account) -> Result<Token> {
        let body = self.log_in(account).await?.ok_or("logging in")?;
        Token::read(text(&body, "/access_token"))
    }

    /// A token of [`USER`], logged in through a client.
    pub async fn user_token(&self, client: &Account) -> Result<Token> {
        let fields = [
            ("grant_type", "password"),
            ("client_id", client.id.as_str()),
            ("client_secret", client.secret.as_str()),
            ("username", USER),
            ("password", self.user_password.as_str()),
        ];
        let body = self.token_endpoint(&fields).await?.ok_or("logging in as user")?;
        Token::read(text(&body, "/access_token"))
    }

    /// The realm's keys (JWKS).
    pub async fn keys(&self) -> Result<Value> {
        Call::get(format!("{}/protocol/openid-connect/certs", self.issuer())).ok().await
    }

    /// Fails unless a token is one of this realm, valid now and meant for `audience`.
    pub async fn accepts(&self, token: &Token, audience: &str) -> Result<()> {
        token.verify(&self.keys().await?, &self.issuer(), audience)
    }

    /// Everything in here that must never be seen anywhere: secrets and passwords.
    pub async fn secrets(&self) -> Result<Vec<String>> {
        let mut secrets = vec![self.admin.1.clone(), self.user_password.clone()];
        let clients = self.read("/clients").await?;
        for client in clients.as_array().into_iter().flatten() {
            secrets.push(text(client, "/secret").to_owned());
        }
        secrets.retain(|secret| secret.len() >= 8);
        ensure!(secrets.len() > 2, "a realm without secrets proves nothing");
        Ok(secrets)
    }
}
