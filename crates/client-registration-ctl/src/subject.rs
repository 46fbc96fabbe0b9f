//! What a registration is about: the workloads of one name, their configuration and their identity.

use std::{collections::BTreeMap, sync::Arc};

use api_types::{credentials, injection::PodFacts, registration::annotation as own};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::{
    config::Config,
    context::Context,
    error::Error,
    identity::{self, Identity, Unresolved},
    keycloak::{
        attributes::{WORKLOAD, WorkloadMark},
        client::{self, Client},
        scope,
    },
    workload::{Unit, Workload, WorkloadKey},
};

/// The workloads of one name that are to be registered, and how.
pub struct Subject {
    /// Namespace and name.
    pub unit: Unit,
    /// The workloads, oldest first; never empty.
    pub workloads: Vec<Arc<Workload>>,
    /// The oldest.
    pub primary: Arc<Workload>,
    /// How the namespace wants it.
    pub config: Config,
    /// Which client it is.
    pub identity: Identity,
    /// Our mark.
    pub cluster_id: String,
    /// Hash of all inputs (annotation `kagenti.io/registration-hash`).
    pub hash: String,
}

/// The identity of a workload, with the ServiceAccount that its Pods will have.
///
/// # Errors
/// [`Error::Pass`] while something it depends on was not read yet; inside, why it has none.
pub fn identity_of(ctx: &Context, workload: &Workload) -> Result<Result<Identity, Unresolved>, Error> {
    let runtime = ctx.index.runtime_of(&workload.key);
    let pod = PodFacts {
        workload: &workload.key.unit.name,
        labels: Some(&workload.labels),
        annotations: Some(&workload.annotations),
        service_account: workload.service_account.as_deref(),
        host_network: workload.host_network,
        ..PodFacts::default()
    };
    let Unit { namespace, name } = &workload.key.unit;
    let decision = ctx.around.decide(namespace, pod, runtime.as_ref().map(|runtime| &runtime.spec))?;
    let domain = runtime.as_ref().and_then(|runtime| runtime.trust_domain());
    Ok(identity::resolve(namespace, name, &decision.service_account, domain, &ctx.domain()))
}

impl Subject {
    /// Puts the parts together. `workloads` is not empty.
    pub fn new(
        ctx: &Context,
        workloads: Vec<Arc<Workload>>,
        primary: Arc<Workload>,
        config: Config,
        identity: Identity,
        cluster_id: String,
    ) -> Self {
        let hash = hash(ctx, &config, &identity, &cluster_id);
        Self { unit: primary.key.unit.clone(), workloads, primary, config, identity, cluster_id, hash }
    }

    /// The rotation that is asked for: the annotation's value on the oldest workload that has one.
    pub fn rotation(&self) -> Option<&str> {
        self.workloads.iter().find_map(|workload| workload.rotate.as_deref())
    }

    /// The client as it should be, given what was found.
    pub fn client(&self, ctx: &Context, found: Option<&Client>) -> client::Desired {
        let owner = found.and_then(|found| self.elder(ctx, found)).unwrap_or_else(|| self.primary.key.mark());
        client::Desired {
            client_id: self.identity.client_id.clone(),
            name: credentials::client_name(&owner.namespace, &owner.name),
            auth: self.config.auth,
            idp_alias: self.config.idp_alias.clone(),
            token_exchange: self.config.token_exchange,
            profile: ctx.settings.client_grant_profile,
            cluster_id: self.cluster_id.clone(),
            workload: owner,
        }
    }

    /// The workload that the client names, when it is an older one that shares the client with this one: it sets the
    /// name, and the others must not fight over it (§4).
    fn elder(&self, ctx: &Context, found: &Client) -> Option<WorkloadMark> {
        let mark = WorkloadMark::read(found.attributes.get(WORKLOAD)?)?;
        if mark.namespace != self.unit.namespace {
            return None;
        }
        let other = ctx.index.workloads.get(&WorkloadKey::of_mark(&mark)?)?;
        let gates = ctx.gates().ok()?;
        let shares = !other.deleting
            && other.eligibility(&gates) == credentials::Eligibility::Register
            && identity_of(ctx, &other)
                .ok()?
                .is_ok_and(|identity| identity.client_id == self.identity.client_id);
        (shares && other.age() < self.primary.age()).then_some(mark)
    }

    /// The audience scope as it should be.
    pub fn scope(&self) -> scope::Desired {
        scope::Desired {
            namespace: self.unit.namespace.clone(),
            workload: self.unit.name.clone(),
            mark: self.primary.key.mark(),
            cluster_id: self.cluster_id.clone(),
            client_id: self.identity.client_id.clone(),
        }
    }
}

/// Everything that decides what Keycloak and the Secret should look like; another value means work.
fn hash(ctx: &Context, config: &Config, identity: &Identity, cluster_id: &str) -> String {
    let settings = &ctx.settings;
    let inputs = BTreeMap::from([
        ("attach", json!(config.attach.as_str())),
        ("audience", json!(config.audience)),
        ("auth", json!(config.auth.as_str())),
        ("client", json!(identity.client_id)),
        ("cluster", json!(cluster_id)),
        ("exchange", json!(config.token_exchange)),
        ("finalizer", json!(settings.holds_secrets())),
        ("idp", json!(config.idp_alias)),
        ("name", json!(identity.name)),
        ("platform", json!(config.platform_clients)),
        ("prune", json!(settings.audience_scope_prune_realm_defaults)),
        ("realm", json!(config.server.realm())),
        ("url", json!(config.server.base().as_str())),
    ]);
    hex::encode(Sha256::digest(json!(inputs).to_string()))
}

/// Revision that Pods of these workloads may know, from their templates.
pub fn used_revision(ctx: &Context, unit: &Unit, workloads: &[Arc<Workload>]) -> u64 {
    let of_templates =
        workloads.iter().filter_map(|workload| workload.annotations.get(own::TEMPLATE_REVISION));
    of_templates.filter_map(|text| text.parse().ok()).chain(ctx.revisions.get(unit)).max().unwrap_or(0)
}
