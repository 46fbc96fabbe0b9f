//! The process contract (packaging §11, §12) of every program, as it is built. One table says what differs between them;
//! each test goes over all of them.

mod cleanup;
mod command_line;
mod doors;
mod lifetime;
mod programs;

use anyhow::{Context as _, Result};
use e2e::{Group, Json as _, Ns, Suite, kinds, objects, secs, wait_for};
use futures::future::try_join_all;
use local_cluster::{Component, ComponentOptions, Rights};
use serde_json::{Value, json};

use self::programs::{PROGRAMS, Program};
use crate::faults::fixture::{bare_options, named, options};

/// An API server with the CRDs and nothing else.
static CLUSTER: Group = Group::new(bare_options);

/// A process of a program.
struct Running {
    program: &'static Program,
    process: Component,
}

/// Where a test lets programs run: a namespace of its own, so that other tests do not see their Leases.
struct Stage<'a> {
    suite: &'a Suite,
    ns: Ns,
}

impl<'a> Stage<'a> {
    async fn new(suite: &'a Suite, name: &str) -> Result<Self> {
        // Where some may look for a single object: Keycloak's, SPIRE's and the API server's own.
        for program in &PROGRAMS {
            for place in Rights::shipped(program.name)?.named.keys() {
                suite.global().await?.apply(objects::named(kinds::NAMESPACE, place)).await?;
            }
        }
        Ok(Self { suite, ns: suite.namespace(name, json!({})).await? })
    }

    /// Starts every program at once, with changed options; each has an identity of its own.
    async fn start(
        &self,
        replica: &str,
        change: impl Fn(ComponentOptions) -> ComponentOptions,
    ) -> Result<Vec<Running>> {
        let starts = PROGRAMS.iter().map(|program| {
            let options = options(self.suite, program.name)
                .namespace(self.ns.name())
                .args(program.args.iter().copied());
            let options = change(named(options, &format!("{}-{replica}", program.name)));
            async move {
                let process = Component::start(self.suite.cluster(), options).await;
                Ok(Running { program, process: process.context(program.name)? })
            }
        });
        try_join_all(starts).await
    }

    /// Waits until a process holds its program's Lease.
    async fn until_leader(&self, one: &Running) -> Result<()> {
        let (lease, name) = (lease(one), &one.process.spec().name);
        wait_for(secs(30), &format!("{name} to hold {lease}"), async || {
            let found = self.ns.find(kinds::LEASE, &lease).await?.unwrap_or(Value::Null);
            Ok((found.text("/spec/holderIdentity") == name).then_some(()))
        })
        .await
    }
}

/// The name of the Lease of a program (README decision 7).
fn lease(of: &Running) -> String {
    format!("{}.kagenti.dev", of.program.name)
}

/// Does the same with every process at once; an error names the program and carries the end of its log.
async fn each<T>(all: &[Running], check: impl AsyncFn(&Running) -> Result<T>) -> Result<Vec<T>> {
    let check = &check;
    let checks = all.iter().map(|one| async move {
        let done = check(one).await;
        done.with_context(|| {
            format!("{}, whose log ends with:\n{}", one.program.name, one.process.log_tail())
        })
    });
    try_join_all(checks).await
}

/// Waits until every process is ready.
async fn ready(all: &[Running]) -> Result<()> {
    each(all, async |one| one.process.wait_ready(secs(60)).await).await.map(drop)
}
