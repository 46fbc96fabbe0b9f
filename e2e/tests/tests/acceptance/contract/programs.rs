//! The programs of the suite, with what differs between them.

use std::collections::BTreeMap;
use std::process::Output;

use anyhow::{Context as _, Result};
use local_cluster::{Profile, components};

/// How long a program may take to refuse its settings, or to print something.
const ENDS_WITHIN: std::time::Duration = e2e::secs(30);

/// A program with the flags, probes and metrics of crate `controller-kit`.
pub(super) struct Program {
    /// Package, program, chart, ServiceAccount.
    pub(super) name: &'static str,
    /// A flag that no other program has.
    pub(super) own_flag: &'static str,
    /// Flags whose variable has a name that its chapter keeps from the previous operator.
    pub(super) old_variables: &'static [(&'static str, &'static str)],
    /// Arguments with which it gets ready on an API server that has nothing but the CRDs.
    pub(super) args: &'static [&'static str],
    /// Command lines that only this one refuses in this way, and what the message names.
    pub(super) refused: &'static [(&'static [&'static str], &'static str)],
}

impl Program {
    /// The variable of a flag, written with its dashes (README decision 7).
    pub(super) fn variable(&self, flag: &str) -> String {
        let compatible = match flag {
            "--pod-namespace" => Some("POD_NAMESPACE"),
            "--pod-name" => Some("POD_NAME"),
            "--watch-namespaces" => Some("NAMESPACES2WATCH"),
            other => {
                self.old_variables.iter().find(|(flag, _)| *flag == other).map(|(_, variable)| *variable)
            }
        };
        compatible.map_or_else(
            || {
                let words = format!("{}_{}", self.name, flag.trim_start_matches('-'));
                words.to_uppercase().replace('-', "_")
            },
            str::to_owned,
        )
    }
}

/// Every one of them.
pub(super) const PROGRAMS: [Program; 6] = [
    Program {
        name: "runtime-ctl",
        own_flag: "--tls-bridge-issuer",
        old_variables: &[],
        args: &[],
        refused: &[
            (&["--webhook-cert-path=/x"], "authbridge-webhook"),
            (&["--enable-mlflow"], "mlflow-ctl"),
            (&["--enable-client-registration=false"], "client-registration-ctl"),
            (&["--enable-agent-webhook"], "agent-ctl, which is not part of this release"),
            (&["--rollout-qps=-1"], "--rollout-qps"),
            (&["--tls-bridge-issuer=Other/ca"], "--tls-bridge-issuer"),
            (&["crds", "apply", "--groups=kagent"], "--groups"),
        ],
    },
    Program {
        name: "card-ctl",
        own_flag: "--card-sources",
        old_variables: &[
            ("--spire-trust-domain", "KAGENTI_SPIRE_TRUST_DOMAIN"),
            ("--spire-trust-bundle-configmap-namespace", "KAGENTI_SPIRE_NAMESPACE"),
        ],
        // ClusterIPs lead nowhere here, and there is no Workload API.
        args: &["--fetch-dial=endpoints", "--enable-verified-fetch=false"],
        refused: &[
            (&["--enforce-network-policies"], "netpol-ctl"),
            (&["--require-a2a-signature"], "--spire-trust-bundle-configmap"),
            (&["--signature-audit-mode"], "--require-a2a-signature"),
            (&["--svid-key-file=/x"], "--svid-cert-file"),
            (&["--verified-fetch-spiffe-socket=tcp://10.0.0.1:1"], "--verified-fetch-spiffe-socket"),
            (&["--min-sync-period=25h"], "--max-sync-period"),
            (&["--enable-sigstore-verification"], "feature that this suite does not have"),
        ],
    },
    Program {
        name: "netpol-ctl",
        own_flag: "--cleanup-on-disable",
        old_variables: &[],
        args: &["--enforce-network-policies"],
        refused: &[
            (&["--require-a2a-signature"], "card-ctl"),
            (&["--apiserver-cidrs=10.0.0.300/32"], "--apiserver-cidrs"),
            (&["--initial-policy-delay=soon"], "--initial-policy-delay"),
            (&["--dns-namespaces=kube_system"], "--dns-namespaces"),
        ],
    },
    Program {
        name: "client-registration-ctl",
        own_flag: "--audience-scope-attach",
        old_variables: &[
            ("--keycloak-public-url", "KAGENTI_KEYCLOAK_PUBLIC_URL"),
            ("--spire-trust-domain", "KAGENTI_SPIRE_TRUST_DOMAIN"),
            ("--spire-namespace", "KAGENTI_SPIRE_NAMESPACE"),
        ],
        args: &[],
        refused: &[
            (&["--mlflow-ca-file=/x"], "mlflow-ctl"),
            (&["--keycloak-admin-auth=spiffe-jwt"], "--keycloak-admin-auth"),
            (&["--keycloak-url=keycloak"], "--keycloak-url"),
            (&["--keycloak-realm=a/b"], "--keycloak-realm"),
            (&["--keycloak-ca-file=/nonexistent/ca.crt"], "/nonexistent/ca.crt"),
            (&["--spire-trust-domain=a/b"], "--spire-trust-domain"),
        ],
    },
    Program {
        name: "mlflow-ctl",
        own_flag: "--mlflow-inject-mode",
        old_variables: &[],
        args: &[],
        refused: &[
            (&["--keycloak-realm=x"], "client-registration-ctl"),
            (&["--mlflow-ca-file=/nonexistent/ca.crt"], "/nonexistent/ca.crt"),
            (&["--mlflow-tracking-uri=mlflow"], "--mlflow-tracking-uri"),
            (&["--mlflow-tracking-auth="], "--mlflow-tracking-auth"),
            (&["--enable-mlflow-operand"], "feature that this suite does not have"),
        ],
    },
    Program {
        name: "authbridge-webhook",
        own_flag: "--webhook-bind-address",
        old_variables: &[],
        // Nothing is registered: what the API server would ask is not the subject.
        args: &["--webhook-publish-ca=false"],
        refused: &[
            (&["--rollout-qps=1"], "runtime-ctl"),
            (&["--require-a2a-signature"], "card-ctl"),
            (&["--webhook-cert-lifetime=soon"], "--webhook-cert-lifetime"),
            (&["--webhook-cert-lifetime=10m", "--webhook-ca-overlap=5m"], "--webhook-ca-overlap"),
            (&["--webhook-cert-lifetime=2h", "--webhook-ca-lifetime=3h"], "--webhook-ca-lifetime"),
        ],
    },
];

/// Beside agents: settings by environment, no probes, no metrics, every error 1 (README decision 21).
pub(super) const SIGNER: &str = "agentcard-signer";

/// Runs a program to its end, with these variables and no others.
pub(super) async fn run<S: AsRef<str>>(name: &str, args: &[S], variables: &[(&str, &str)]) -> Result<Output> {
    let built = tokio::task::spawn_blocking(|| {
        let mut names = PROGRAMS.map(|program| program.name).to_vec();
        names.push(SIGNER);
        components::build(&names, Profile::Same)
    });
    let mut command = tokio::process::Command::new(built.await??.path(name)?);
    let variables: BTreeMap<_, _> = variables.iter().copied().collect();
    command.env_clear().args(args.iter().map(AsRef::as_ref)).envs(variables);
    local_cluster::run_within(command, ENDS_WITHIN).await.with_context(|| format!("running {name}"))
}
