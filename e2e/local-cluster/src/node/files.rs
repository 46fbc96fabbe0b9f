//! What the programs of the node read, and how they are started.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::init::Plan;
use super::{NAME, cgroup, preflight};
use crate::control_plane::pki::Authority;
use crate::control_plane::{Credential, kubeconfig, write_private};
use crate::network::PodNetwork;
use crate::programs::{Program, Programs};
use crate::supervisor::protocol::ProcessSpec;

/// The image that holds a Pod's namespaces.
pub(crate) const PAUSE: &str = "local-cluster.invalid/pause:1";
/// Where programs look for others: containerd for runc, kube-proxy and plugins for iptables.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The directory of a node in its cluster's directory.
pub(crate) fn home(dir: &Path) -> PathBuf {
    dir.join("node")
}

/// The socket of the node's containerd; it answers on both sides of the namespaces.
pub(crate) fn containerd_socket(dir: &Path) -> PathBuf {
    home(dir).join("containerd.sock")
}

/// The address of the cluster's DNS Service.
pub(crate) fn dns_address(network: &PodNetwork) -> Ipv4Addr {
    network.service(10)
}

/// Arguments with which the API server can talk to the kubelet (`kubectl logs`, `exec`).
pub(crate) fn api_server_arguments(dir: &Path) -> Vec<String> {
    let pki = |name: &str| dir.join("pki").join(name).display().to_string();
    vec![
        format!("--kubelet-client-certificate={}", pki("kubelet-client.crt")),
        format!("--kubelet-client-key={}", pki("kubelet-client.key")),
        format!("--kubelet-certificate-authority={}", pki("ca.crt")),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
    ]
}

/// Writes everything that the node needs; starts nothing.
pub(crate) fn prepare(
    dir: &Path,
    ca: &Authority,
    server: &str,
    network: &PodNetwork,
    programs: &Programs,
) -> Result<ProcessSpec> {
    let home = home(dir);
    for name in ["cni", "lib", "log", "sysctl"] {
        fs::create_dir_all(home.join(name))
            .with_context(|| format!("creating {name} in {}", home.display()))?;
    }
    identities(dir, ca, server, network)?;
    // Names outside the cluster are nobody's business here: nothing can be pulled or called.
    let files = [
        ("resolv.conf", String::new()),
        ("containerd.toml", containerd_configuration(dir)?),
        ("cni/10-local-cluster.conflist", network_configuration(network)),
        ("kubelet.yaml", kubelet_configuration(dir, network)),
        ("kube-proxy.yaml", proxy_configuration(dir, network)),
    ];
    for (name, text) in files {
        write_private(&home.join(name), &text)?;
    }
    let spec = |name: &str, program: PathBuf, args: Vec<String>| ProcessSpec {
        name: name.to_owned(),
        program,
        args,
        env: BTreeMap::from([("PATH".to_owned(), PATH.to_owned())]),
        log: dir.join("logs").join(format!("{name}.log")),
        netns: None,
    };
    let config = |name: &str| format!("--config={}", home.join(name).display());
    let kubelet = vec![
        config("kubelet.yaml"),
        format!("--kubeconfig={}", dir.join("kubelet.kubeconfig").display()),
        format!("--hostname-override={NAME}"),
        format!("--node-ip={}", network.node_address()),
    ];
    let plan = Plan {
        home: home.clone(),
        cgroup: cgroup::name(dir),
        socket: containerd_socket(dir),
        containerd: spec("containerd", "containerd".into(), vec![config("containerd.toml")]),
        others: vec![
            spec("kubelet", programs.path(Program::Kubelet)?.to_owned(), kubelet),
            spec(
                "kube-proxy",
                programs.path(Program::KubeProxy)?.to_owned(),
                vec![config("kube-proxy.yaml")],
            ),
        ],
    };
    let path = home.join("plan.json");
    write_private(&path, &serde_json::to_string(&plan).context("writing the node's plan")?)?;
    // This very program, which exec-shim is as well.
    let args = vec!["node-init".to_owned(), path.display().to_string()];
    let netns = network.netns().context("a real node has a network namespace")?.to_owned();
    Ok(ProcessSpec { netns: Some(netns), ..spec(super::PROGRAM, "/proc/self/exe".into(), args) })
}

/// Who the node's programs are to the API server, and the API server to the kubelet.
fn identities(dir: &Path, ca: &Authority, server: &str, network: &PodNetwork) -> Result<()> {
    let clients = [
        ("kubelet", format!("system:node:{NAME}"), "system:nodes"),
        ("kube-proxy", "system:kube-proxy".to_owned(), "local-cluster"),
    ];
    for (file, user, group) in clients {
        let pair = ca.client(&user, group).with_context(|| format!("making the certificate of {user}"))?;
        let text = kubeconfig(server, ca.certificate(), &Credential::Certificate(&pair));
        write_private(&dir.join(format!("{file}.kubeconfig")), &text)?;
    }
    let serving = ca.server(&format!("system:node:{NAME}"), &[NAME, &network.node_address().to_string()]);
    let serving = serving.context("making the kubelet's certificate")?;
    let client = ca.client("kube-apiserver-kubelet-client", "system:masters");
    let client = client.context("making the API server's client certificate")?;
    let files = [
        ("kubelet.crt", &serving.certificate),
        ("kubelet.key", &serving.key),
        ("kubelet-client.crt", &client.certificate),
        ("kubelet-client.key", &client.key),
    ];
    for (name, text) in files {
        write_private(&dir.join("pki").join(name), text)?;
    }
    Ok(())
}

fn containerd_configuration(dir: &Path) -> Result<String> {
    let (home, plugins) = (home(dir), preflight::plugins_dir()?);
    Ok(format!(
        "version = 2\nroot = \"/var/lib/containerd\"\nstate = \"/run/containerd\"\n\n\
         [grpc]\naddress = \"{socket}\"\n\n\
         [plugins.\"io.containerd.internal.v1.opt\"]\npath = \"/var/lib/containerd/opt\"\n\n\
         [plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"{PAUSE}\"\n\
         # Without CAP_SYS_RESOURCE nobody may lower a score.\nrestrict_oom_score_adj = true\n\n\
         [plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"{plugins}\"\nconf_dir = \"{cni}\"\n",
        socket = containerd_socket(dir).display(),
        plugins = plugins.display(),
        cni = home.join("cni").display(),
    ))
}

fn network_configuration(network: &PodNetwork) -> String {
    json!({
        "cniVersion": "0.4.0",
        "name": "local-cluster",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": false,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": network.node_pods()}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
    .to_string()
}

fn kubelet_configuration(dir: &Path, network: &PodNetwork) -> String {
    let pki = |name: &str| dir.join("pki").join(name);
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": network.node_address(),
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": pki("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", cgroup::name(dir)),
        "clusterDNS": [dns_address(network)],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": format!("unix://{}", containerd_socket(dir).display()),
        // Nothing is evicted and no image collected: nobody could pull it again, and this machine's disk is no node's.
        "evictionHard": {
            "imagefs.available": "0%",
            "imagefs.inodesFree": "0%",
            "memory.available": "0%",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
        },
        "failCgroupV1": false,
        "failSwapOn": false,
        "imageGCHighThresholdPercent": 100,
        "imageMinimumGCAge": "1000h",
        "localStorageCapacityIsolation": false,
        "resolvConf": home(dir).join("resolv.conf"),
        "tlsCertFile": pki("kubelet.crt"),
        "tlsPrivateKeyFile": pki("kubelet.key"),
        "volumePluginDir": "/var/lib/kubelet/volumeplugins",
    })
    .to_string()
}

fn proxy_configuration(dir: &Path, network: &PodNetwork) -> String {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "bindAddress": network.node_address(),
        "clientConnection": {"kubeconfig": dir.join("kube-proxy.kubeconfig")},
        "clusterCIDR": network.node_pods(),
        // The limits of connection tracking are the machine's, not the node's: hands off.
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpCloseWaitTimeout": "0s",
            "tcpEstablishedTimeout": "0s",
        },
        "healthzBindAddress": format!("{}:10256", network.node_address()),
        "hostnameOverride": NAME,
        "metricsBindAddress": format!("{}:10249", network.node_address()),
        "mode": "iptables",
    })
    .to_string()
}
