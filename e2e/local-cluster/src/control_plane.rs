//! The programs of a control plane: their files, arguments and identities.

pub(crate) mod pki;
mod stages;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;

use self::pki::{Authority, KeyPairPem};
use crate::network::PodNetwork;
use crate::node;
use crate::options::ClusterOptions;
use crate::ports::Port;
use crate::programs::{Program, Programs};
use crate::supervisor::protocol::ProcessSpec;

/// Issuer of ServiceAccount tokens.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Files, ports and process descriptions of one control plane.
#[derive(Debug)]
pub(crate) struct ControlPlane {
    pub(crate) server: String,
    pub(crate) etcd: String,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) audit_log: PathBuf,
    specs: BTreeMap<&'static str, ProcessSpec>,
    /// Held for as long as the programs use them.
    #[expect(dead_code, reason = "a lease is used by being held")]
    ports: [Port; 3],
}

impl ControlPlane {
    /// Writes everything into `dir`; starts nothing.
    pub(crate) fn prepare(
        dir: &Path,
        options: &ClusterOptions,
        programs: &Programs,
        network: &PodNetwork,
    ) -> Result<Self> {
        let ports = [Port::lease()?, Port::lease()?, Port::lease()?];
        let [etcd_port, peer_port, api_port] = &ports;
        let etcd = format!("http://127.0.0.1:{}", etcd_port.number());
        let peer = format!("http://127.0.0.1:{}", peer_port.number());
        let advertise = network.api_address().to_string();
        // On loopback, unless Pods are to reach it: then at an address that only this machine has.
        let listen = if options.real_node { &advertise } else { "127.0.0.1" };
        let server = format!("https://{listen}:{}", api_port.number());
        let kubernetes_service = network.service(1).to_string();

        for name in ["logs", "pki", "etcd"] {
            fs::create_dir_all(dir.join(name))
                .with_context(|| format!("creating {name} in {}", dir.display()))?;
        }
        let pki = dir.join("pki");
        let ca = Authority::new("local-cluster-ca").context("making the cluster's CA")?;
        let hosts = [
            "localhost",
            "127.0.0.1",
            &advertise,
            &kubernetes_service,
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ];
        let serving = ca.server("kube-apiserver", &hosts).context("making the API server's certificate")?;
        let tokens = pki::signing_key().context("making the token signing key")?;
        let files = [
            ("ca.crt", ca.certificate()),
            ("ca.key", &ca.key()),
            ("apiserver.crt", &serving.certificate),
            ("apiserver.key", &serving.key),
            ("tokens.pub", &tokens.certificate),
            ("tokens.key", &tokens.key),
        ];
        for (name, text) in files {
            write_private(&pki.join(name), text)?;
        }
        let identities = [
            ("admin", "local-cluster-admin", "system:masters"),
            // Its controllers share one identity: a ServiceAccount each would cost seconds at every start.
            ("kube-controller-manager", "system:kube-controller-manager", "system:masters"),
            ("kube-scheduler", "system:kube-scheduler", "local-cluster"),
            ("kwok", "kwok", "system:masters"),
        ];
        for (file, user, group) in identities {
            let client =
                ca.client(user, group).with_context(|| format!("making the certificate of {user}"))?;
            let text = kubeconfig(&server, ca.certificate(), &Credential::Certificate(&client));
            write_private(&dir.join(format!("{file}.kubeconfig")), &text)?;
        }
        write_private(&dir.join("audit-policy.yaml"), AUDIT_POLICY)?;
        write_private(&dir.join("kwok.yaml"), &stages::kwok_configuration(network))?;
        write_private(
            &dir.join("kube-scheduler.yaml"),
            &scheduler_configuration(dir, options.controller_qps),
        )?;

        let node = options.real_node.then(|| node::files::prepare(dir, &ca, &server, network, programs));
        let addresses = [
            format!("--bind-address={listen}"),
            format!("--secure-port={}", api_port.number()),
            // Loopback is not allowed in EndpointSlices, so the Service `kubernetes` gets another address.
            format!("--advertise-address={advertise}"),
            format!("--service-cluster-ip-range={}", network.services()),
        ];
        let api_server = api_server_arguments(dir, options, &etcd, &addresses);
        let mut plane = Self {
            kubeconfig: dir.join("admin.kubeconfig"),
            audit_log: dir.join("logs").join("audit.log"),
            server,
            etcd: etcd.clone(),
            specs: BTreeMap::new(),
            ports,
        };
        plane.add(programs, Program::Etcd, dir, etcd_arguments(dir, &etcd, &peer))?;
        plane.add(programs, Program::KubeApiserver, dir, api_server)?;
        if options.controller_manager {
            plane.add(
                programs,
                Program::KubeControllerManager,
                dir,
                controller_manager_arguments(dir, options),
            )?;
        }
        if options.scheduler {
            let config = dir.join("kube-scheduler.yaml");
            let args = vec![format!("--config={}", config.display()), "--secure-port=0".to_owned()];
            plane.add(programs, Program::KubeScheduler, dir, args)?;
        }
        if options.nodes > 0 {
            let args = vec![
                format!("--kubeconfig={}", dir.join("kwok.kubeconfig").display()),
                format!("--config={}", dir.join("kwok.yaml").display()),
            ];
            plane.add(programs, Program::Kwok, dir, args)?;
        }
        if let Some(node) = node {
            plane.specs.insert(node::PROGRAM, node?);
        }
        Ok(plane)
    }

    fn add(&mut self, programs: &Programs, program: Program, dir: &Path, args: Vec<String>) -> Result<()> {
        let name = program.name();
        let spec = ProcessSpec {
            name: name.to_owned(),
            program: programs.path(program)?.to_owned(),
            args,
            env: BTreeMap::new(),
            log: dir.join("logs").join(format!("{name}.log")),
            netns: None,
        };
        self.specs.insert(name, spec);
        Ok(())
    }

    /// How a program is started; an error when this cluster does not have it.
    pub(crate) fn spec(&self, name: &str) -> Result<&ProcessSpec> {
        self.specs.get(name).with_context(|| format!("this cluster has no program {name:?}"))
    }

    /// Names of the programs that need a working API server.
    pub(crate) fn second_wave(&self) -> Vec<&'static str> {
        let first = [Program::Etcd.name(), Program::KubeApiserver.name()];
        self.specs.keys().copied().filter(|name| !first.contains(name)).collect()
    }
}

fn etcd_arguments(dir: &Path, client: &str, peer: &str) -> Vec<String> {
    vec![
        "--name=local".to_owned(),
        format!("--data-dir={}", dir.join("etcd").display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=local={peer}"),
        // The data lives as long as the cluster; a crash of the machine loses nothing anyone wants.
        "--unsafe-no-fsync=true".to_owned(),
        // Alone there is nobody to elect: the least delay that etcd accepts.
        "--heartbeat-interval=10".to_owned(),
        "--election-timeout=100".to_owned(),
        "--quota-backend-bytes=4294967296".to_owned(),
        "--log-level=warn".to_owned(),
    ]
}

fn api_server_arguments(
    dir: &Path,
    options: &ClusterOptions,
    etcd: &str,
    addresses: &[String],
) -> Vec<String> {
    let pki = |name: &str| dir.join("pki").join(name).display().to_string();
    let mut plugins = vec!["NodeRestriction".to_owned()];
    plugins.extend(options.admission_plugins.iter().cloned());
    let mut args = vec![
        format!("--etcd-servers={etcd}"),
        format!("--tls-cert-file={}", pki("apiserver.crt")),
        format!("--tls-private-key-file={}", pki("apiserver.key")),
        format!("--client-ca-file={}", pki("ca.crt")),
        "--authorization-mode=Node,RBAC".to_owned(),
        format!("--enable-admission-plugins={}", plugins.join(",")),
        format!("--service-account-issuer={ISSUER}"),
        format!("--service-account-key-file={}", pki("tokens.pub")),
        format!("--service-account-signing-key-file={}", pki("tokens.key")),
        "--allow-privileged=true".to_owned(),
        "--profiling=false".to_owned(),
        format!("--audit-policy-file={}", dir.join("audit-policy.yaml").display()),
        format!("--audit-log-path={}", dir.join("logs").join("audit.log").display()),
        "--audit-log-format=json".to_owned(),
        // Written before the response ends, so a test can count right after its request.
        "--audit-log-mode=blocking".to_owned(),
        // In MB. 0 would mean 100 and rotate in the middle of a benchmark.
        "--audit-log-maxsize=1000000".to_owned(),
    ];
    args.extend_from_slice(addresses);
    if options.real_node {
        args.extend(node::files::api_server_arguments(dir));
    } else {
        // Where nothing routes Service addresses a webhook's Service is called at its endpoints.
        args.push("--enable-aggregator-routing=true".to_owned());
    }
    args.extend(options.api_server_args.iter().cloned());
    args
}

fn controller_manager_arguments(dir: &Path, options: &ClusterOptions) -> Vec<String> {
    let pki = |name: &str| dir.join("pki").join(name).display().to_string();
    let mut args = vec![
        format!("--kubeconfig={}", dir.join("kube-controller-manager.kubeconfig").display()),
        "--leader-elect=false".to_owned(),
        "--secure-port=0".to_owned(),
        "--controllers=*".to_owned(),
        format!("--service-account-private-key-file={}", pki("tokens.key")),
        format!("--root-ca-file={}", pki("ca.crt")),
        format!("--cluster-signing-cert-file={}", pki("ca.crt")),
        format!("--cluster-signing-key-file={}", pki("ca.key")),
        // Fake nodes that report late on a busy machine must not lose their Pods.
        "--node-monitor-grace-period=300s".to_owned(),
        "--profiling=false".to_owned(),
    ];
    if let Some(qps) = options.controller_qps {
        args.push(format!("--kube-api-qps={qps}"));
        args.push(format!("--kube-api-burst={}", qps.saturating_mul(2)));
    }
    args.extend(options.controller_manager_args.iter().cloned());
    args
}

fn scheduler_configuration(dir: &Path, qps: Option<u32>) -> String {
    let mut connection = json!({"kubeconfig": dir.join("kube-scheduler.kubeconfig")});
    if let (Some(qps), Some(map)) = (qps, connection.as_object_mut()) {
        map.insert("qps".to_owned(), qps.into());
        map.insert("burst".to_owned(), qps.saturating_mul(2).into());
    }
    // JSON is YAML.
    json!({
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "leaderElection": {"leaderElect": false},
        "clientConnection": connection,
    })
    .to_string()
}

/// Requests by everybody but the API server itself and health checks. A watch is counted once, when it
/// begins; everything else once, when it is answered.
const AUDIT_POLICY: &str = r#"apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: ["system:apiserver"]
- level: None
  nonResourceURLs: ["/healthz*", "/livez*", "/readyz*", "/metrics"]
- level: Metadata
"#;

/// How a kubeconfig's user proves who it is.
pub(crate) enum Credential<'a> {
    /// Client certificate and key.
    Certificate(&'a KeyPairPem),
    /// Bearer token.
    Token(&'a str),
}

/// A kubeconfig with one context named `local-cluster`.
pub(crate) fn kubeconfig(server: &str, ca_pem: &str, credential: &Credential<'_>) -> String {
    let user = match credential {
        Credential::Certificate(pair) => format!(
            "client-certificate-data: {}\n    client-key-data: {}",
            BASE64.encode(&pair.certificate),
            BASE64.encode(&pair.key)
        ),
        Credential::Token(token) => format!("token: {token}"),
    };
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: local-cluster\nclusters:\n- name: local-cluster\n  \
         cluster:\n    server: {server}\n    certificate-authority-data: {}\ncontexts:\n- name: local-cluster\n  \
         context:\n    cluster: local-cluster\n    user: local-cluster\nusers:\n- name: local-cluster\n  user:\n    \
         {user}\n",
        BASE64.encode(ca_pem)
    )
}

/// Writes a file that only its owner may read.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("creating {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubeconfigs_are_read_by_the_client() {
        let text = kubeconfig("https://127.0.0.1:1", "CA", &Credential::Token("secret"));
        let parsed = kube::config::Kubeconfig::from_yaml(&text).expect("a kubeconfig");
        assert_eq!(parsed.current_context.as_deref(), Some("local-cluster"));
        assert_eq!(parsed.auth_infos.len(), 1);
        let server = parsed.clusters[0].cluster.as_ref().and_then(|cluster| cluster.server.clone());
        assert_eq!(server.as_deref(), Some("https://127.0.0.1:1"));
    }

    #[test]
    fn callers_arguments_come_last() {
        let options =
            ClusterOptions { api_server_args: vec!["--v=4".to_owned()], ..ClusterOptions::default() };
        let args =
            api_server_arguments(Path::new("/x"), &options, "http://e", &["--bind-address=::1".to_owned()]);
        assert_eq!(args.last().map(String::as_str), Some("--v=4"));
        let slow = ClusterOptions { controller_qps: None, ..options };
        let args = controller_manager_arguments(Path::new("/x"), &slow);
        assert!(args.iter().all(|arg| !arg.starts_with("--kube-api-qps")));
    }
}
