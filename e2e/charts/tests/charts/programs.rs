//! What a container is told, its program understands: every rendered argument is parsed by the program's own command line.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use chart_tests::{Helm, text};
use serde_json::Value;

use crate::{all_value_sets, rendered};

/// Variables that no flag stands for: those of OpenTelemetry.
const OF_TELEMETRY: &str = "OTEL_";

#[test]
fn every_argument_and_variable_is_known_to_its_program() -> Result<()> {
    let mut checked = 0;
    for (chart, file) in all_value_sets()? {
        for (name, spec) in rendered(chart, &file)?.pod_specs() {
            let container = &spec["containers"][0];
            let image = text(container, "/image");
            let component = image.rsplit('/').next().and_then(|last| last.split([':', '@']).next());
            let component = component.with_context(|| format!("{name}: {image}"))?;
            let command = xtask::flags::command(component)?;
            let known: BTreeSet<String> = command
                .get_arguments()
                .filter_map(|arg| Some(arg.get_env()?.to_string_lossy().into_owned()))
                .collect();
            let args = container["args"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let parsed = command.try_get_matches_from(std::iter::once(component).chain(args));
            ensure!(parsed.is_ok(), "{chart}, {}: {name}: {parsed:?}", file.display());
            for variable in container["env"].as_array().into_iter().flatten() {
                let variable = text(variable, "/name");
                let fine = known.contains(variable) || variable.starts_with(OF_TELEMETRY);
                assert!(fine, "{chart}: {name}: {variable}");
            }
            checked += 1;
        }
    }
    assert!(checked > 40, "{checked} containers");
    Ok(())
}

/// Ports that are named are served: probes, metrics and the webhook, each by the flag that says so.
#[test]
fn ports_are_those_of_the_flags() -> Result<()> {
    for (chart, file) in all_value_sets()? {
        let objects = rendered(chart, &file)?;
        for deployment in objects.of("Deployment") {
            let name = text(deployment, "/metadata/name");
            let container = &deployment["spec"]["template"]["spec"]["containers"][0];
            for port in container["ports"].as_array().into_iter().flatten() {
                let flag = match text(port, "/name") {
                    "probes" => "health-probe-bind-address",
                    "metrics" => "metrics-bind-address",
                    "webhook-server" => "webhook-bind-address",
                    other => anyhow::bail!("{name}: port {other}"),
                };
                assert_eq!(
                    objects.flag(name, flag)?,
                    format!(":{}", port["containerPort"]),
                    "{chart}: {name}"
                );
            }
            for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
                assert_eq!(text(container, &format!("/{probe}/httpGet/port")), "probes", "{name}");
            }
        }
    }
    Ok(())
}

/// Files that a flag names lie in a mounted volume.
#[test]
fn files_of_flags_are_mounted() -> Result<()> {
    let flags =
        ["webhook-cert-path", "metrics-cert-path", "mlflow-ca-file", "keycloak-ca-file", "config-path"];
    for (chart, file) in all_value_sets()? {
        for (name, spec) in rendered(chart, &file)?.pod_specs() {
            let container = &spec["containers"][0];
            let mounts: Vec<&str> = container["volumeMounts"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|mount| text(mount, "/mountPath"))
                .collect();
            for arg in container["args"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                let Some((flag, path)) = arg.trim_start_matches('-').split_once('=') else { continue };
                if flags.contains(&flag) {
                    let inside = mounts.iter().any(|mount| path.starts_with(mount));
                    assert!(inside, "{chart}: {name}: {arg} with {mounts:?}");
                }
            }
            let volumes: BTreeSet<&str> = spec["volumes"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|volume| text(volume, "/name"))
                .collect();
            for mount in container["volumeMounts"].as_array().into_iter().flatten() {
                assert!(volumes.contains(text(mount, "/name")), "{chart}: {name}: {mount}");
            }
        }
    }
    Ok(())
}

/// A private CA goes where a flag reads it, and nowhere else: card-ctl reads cards by plain HTTP, or by mTLS with SPIFFE's
/// own roots.
#[test]
fn a_private_ca_is_mounted_where_it_is_read() -> Result<()> {
    let all = "--set=mlflow-ctl.enabled=true,netpol-ctl.enabled=true,netpol-ctl.enforceNetworkPolicies=false";
    for values in ["global.trustedCA.configMapName=private", "global.trustedCA.openshiftInject=true"] {
        let objects = Helm::get()?.suite(&[all, &format!("--set={values}")])?;
        let mut mounted = Vec::new();
        for deployment in objects.of("Deployment") {
            let container = &deployment["spec"]["template"]["spec"]["containers"][0];
            let read =
                container["args"].to_string().contains("-ca-file=/etc/kagenti/trusted-ca/ca-bundle.crt");
            let there = container["volumeMounts"].to_string().contains("\"/etc/kagenti/trusted-ca\"");
            assert_eq!(read, there, "{}", text(deployment, "/metadata/name"));
            mounted.extend(there.then(|| text(deployment, "/metadata/name")));
        }
        mounted.sort_unstable();
        assert_eq!(mounted, ["kagenti-client-registration-ctl", "kagenti-mlflow-ctl"], "{values}");
        let made = objects.names("ConfigMap").iter().filter(|name| name.ends_with("-trusted-ca")).count();
        assert_eq!(made, if values.contains("openshift") { 2 } else { 0 }, "{values}");
    }
    Ok(())
}
