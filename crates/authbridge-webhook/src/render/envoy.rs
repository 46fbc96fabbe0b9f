//! `envoy.yaml` and its certificate files (webhook §12.2).
//!
//! Written as text: the shape is fixed, only ports, the mTLS mode and the trust domain vary. A test parses it.

use std::fmt::Write as _;

use api_types::{injection::Mtls, platform::Proxy};

/// What varies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EnvoyConfig<'a> {
    /// Ports of the listeners.
    pub(crate) proxy: &'a Proxy,
    /// mTLS between sidecars.
    pub(crate) mtls: Mtls,
    /// Peers must belong to this trust domain; `None` = any that the bundle vouches for.
    pub(crate) trust_domain: Option<&'a str>,
}

/// `sds-identity.yaml`: the workload's own certificate. Watched, so rotated SVIDs are picked up.
pub(crate) const SDS_IDENTITY: &str = r#"resources:
- "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret
  name: svid
  tls_certificate:
    certificate_chain:
      filename: /opt/svid.pem
    private_key:
      filename: /opt/svid_key.pem
    watched_directory:
      path: /opt
"#;

/// `sds-trust.yaml`: the bundle peers are verified with.
pub(crate) const SDS_TRUST: &str = r#"resources:
- "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret
  name: bundle
  validation_context:
    trusted_ca:
      filename: /opt/svid_bundle.pem
    watched_directory:
      path: /opt
"#;

/// A caller's own direction header must never count: it would choose the pipeline, and so skip validation.
const LUA_INBOUND: &str = r#"function envoy_on_request(handle)
  handle:headers():remove("x-authbridge-direction")
  handle:headers():replace("x-authbridge-direction", "inbound")
end
"#;
const LUA_OUTBOUND: &str = r#"function envoy_on_request(handle)
  handle:headers():remove("x-authbridge-direction")
end
"#;

const EXT: &str = "type.googleapis.com/envoy.extensions";
const DIRECT: &str = "original_destination";
const DIRECT_TLS: &str = "original_destination_tls";

/// Renders `envoy.yaml`.
pub(crate) fn render(config: &EnvoyConfig<'_>) -> String {
    let mut out = String::with_capacity(12 * 1024);
    let proxy = config.proxy;
    let admin = proxy.admin_port;
    let _ = write!(
        out,
        "admin:\n  address:\n    socket_address: {{address: 127.0.0.1, port_value: {admin}}}\nstatic_resources:\n  listeners:\n"
    );
    outbound_listener(&mut out, config);
    inbound_listener(&mut out, config);
    clusters(&mut out, config);
    out
}

fn listener(out: &mut String, name: &str, port: u16, filters: &[&str]) {
    let _ = write!(
        out,
        "  - name: {name}\n    address:\n      socket_address: {{address: 0.0.0.0, port_value: {port}}}\n    listener_filters:\n"
    );
    for filter in filters {
        let message = if *filter == "original_dst" { "OriginalDst" } else { "TlsInspector" };
        let _ = write!(
            out,
            "    - name: envoy.filters.listener.{filter}\n      typed_config:\n        \"@type\": {EXT}.filters.listener.{filter}.v3.{message}\n"
        );
    }
    out.push_str("    filter_chains:\n");
}

fn outbound_listener(out: &mut String, config: &EnvoyConfig<'_>) {
    listener(out, "outbound_listener", config.proxy.port, &["original_dst", "tls_inspector"]);
    let _ = write!(
        out,
        "    - filter_chain_match: {{transport_protocol: tls}}\n      filters:\n      - name: envoy.filters.network.tcp_proxy\n        typed_config:\n          \"@type\": {EXT}.filters.network.tcp_proxy.v3.TcpProxy\n          stat_prefix: outbound_tls_passthrough\n          cluster: {DIRECT}\n"
    );
    out.push_str("    - filter_chain_match: {transport_protocol: raw_buffer}\n");
    let cluster = if config.mtls == Mtls::Strict { DIRECT_TLS } else { DIRECT };
    http_filters(out, "outbound_http", cluster, LUA_OUTBOUND);
}

fn inbound_listener(out: &mut String, config: &EnvoyConfig<'_>) {
    let port = config.proxy.inbound_proxy_port;
    if config.mtls == Mtls::Disabled {
        listener(out, "inbound_listener", port, &["original_dst"]);
        out.push_str("    -\n");
        http_filters(out, "inbound_http", DIRECT, LUA_INBOUND);
        return;
    }
    listener(out, "inbound_listener", port, &["tls_inspector", "original_dst"]);
    out.push_str("    - filter_chain_match: {transport_protocol: tls}\n");
    http_filters(out, "inbound_http_tls", DIRECT, LUA_INBOUND);
    tls_context(out, "      ", "DownstreamTlsContext", config.trust_domain);
    if config.mtls == Mtls::Permissive {
        out.push_str("    - filter_chain_match: {transport_protocol: raw_buffer}\n");
        http_filters(out, "inbound_http_plain", DIRECT, LUA_INBOUND);
    }
}

/// The HTTP connection manager of one chain: Lua, then external processing, then the router.
fn http_filters(out: &mut String, stat: &str, cluster: &str, lua: &str) {
    let _ = write!(
        out,
        "      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          \"@type\": {EXT}.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: {stat}
          codec_type: AUTO
          route_config:
            name: {stat}
            virtual_hosts:
            - name: catch_all
              domains: [\"*\"]
              routes:
              - match: {{prefix: /}}
                route: {{cluster: {cluster}, timeout: 300s}}
          http_filters:
          - name: envoy.filters.http.lua
            typed_config:
              \"@type\": {EXT}.filters.http.lua.v3.Lua
              default_source_code:
                inline_string: |
"
    );
    for line in lua.lines() {
        let _ = writeln!(out, "                  {line}");
    }
    let _ = write!(
        out,
        "          - name: envoy.filters.http.ext_proc
            typed_config:
              \"@type\": {EXT}.filters.http.ext_proc.v3.ExternalProcessor
              grpc_service:
                envoy_grpc: {{cluster_name: ext_proc_cluster}}
                timeout: 300s
              message_timeout: 310s
              allow_mode_override: true
              failure_mode_allow: false
              processing_mode:
                request_header_mode: SEND
                response_header_mode: SEND
                request_body_mode: NONE
                response_body_mode: NONE
          - name: envoy.filters.http.router
            typed_config:
              \"@type\": {EXT}.filters.http.router.v3.Router
"
    );
}

/// A TLS context whose certificates come by file-based SDS: Envoy never re-reads statically named ones.
fn tls_context(out: &mut String, indent: &str, message: &str, trust_domain: Option<&str>) {
    let mut line = |text: &str| {
        let _ = writeln!(out, "{indent}{text}");
    };
    line("transport_socket:");
    line("  name: envoy.transport_sockets.tls");
    line("  typed_config:");
    line(&format!("    \"@type\": {EXT}.transport_sockets.tls.v3.{message}"));
    if message == "DownstreamTlsContext" {
        line("    require_client_certificate: true");
    }
    line("    common_tls_context:");
    line("      tls_certificate_sds_secret_configs:");
    line("      - name: svid");
    sds_source(&mut line, "        ", "sds-identity.yaml");
    if let Some(domain) = trust_domain {
        // A JSON string is a YAML string: nothing in the domain can end it.
        let prefix = serde_json::Value::from(format!("spiffe://{domain}/"));
        line("      combined_validation_context:");
        line("        default_validation_context:");
        line("          match_typed_subject_alt_names:");
        line("          - san_type: URI");
        line(&format!("            matcher: {{prefix: {prefix}}}"));
        line("        validation_context_sds_secret_config:");
        line("          name: bundle");
        sds_source(&mut line, "          ", "sds-trust.yaml");
    } else {
        line("      validation_context_sds_secret_config:");
        line("        name: bundle");
        sds_source(&mut line, "        ", "sds-trust.yaml");
    }
}

fn sds_source(line: &mut impl FnMut(&str), indent: &str, file: &str) {
    line(&format!("{indent}sds_config:"));
    line(&format!("{indent}  resource_api_version: V3"));
    line(&format!("{indent}  path_config_source: {{path: /etc/envoy/{file}}}"));
}

fn clusters(out: &mut String, config: &EnvoyConfig<'_>) {
    out.push_str("  clusters:\n");
    let direct = |out: &mut String, name: &str| {
        let _ = write!(
            out,
            "  - name: {name}\n    type: ORIGINAL_DST\n    lb_policy: CLUSTER_PROVIDED\n    connect_timeout: 30s\n"
        );
    };
    direct(out, DIRECT);
    if config.mtls == Mtls::Strict {
        direct(out, DIRECT_TLS);
        tls_context(out, "    ", "UpstreamTlsContext", None);
    }
    let _ = write!(
        out,
        "  - name: ext_proc_cluster
    type: STATIC
    connect_timeout: 5s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        \"@type\": {EXT}.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config:
          http2_protocol_options: {{}}
    load_assignment:
      cluster_name: ext_proc_cluster
      endpoints:
      - lb_endpoints:
        - endpoint:
            address:
              socket_address: {{address: 127.0.0.1, port_value: 9090}}
"
    );
}

#[cfg(test)]
mod tests {
    use api_types::yaml::parse_value;
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn parsed(mtls: Mtls, trust_domain: Option<&str>) -> Value {
        let proxy = Proxy::default();
        let text = render(&EnvoyConfig { proxy: &proxy, mtls, trust_domain });
        parse_value(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    fn chains(config: &Value, listener: usize) -> Vec<Value> {
        config["static_resources"]["listeners"][listener]["filter_chains"].as_array().expect("chains").clone()
    }

    fn stat(chain: &Value) -> &str {
        chain["filters"][0]["typed_config"]["stat_prefix"].as_str().expect("a stat prefix")
    }

    // Webhook §12.2, row inbound_listener.
    #[rstest]
    #[case(Mtls::Disabled, &[("inbound_http", false)], &["original_dst"])]
    #[case(
        Mtls::Permissive,
        &[("inbound_http_tls", true), ("inbound_http_plain", false)],
        &["tls_inspector", "original_dst"]
    )]
    #[case(Mtls::Strict, &[("inbound_http_tls", true)], &["tls_inspector", "original_dst"])]
    fn inbound_chains(#[case] mtls: Mtls, #[case] want: &[(&str, bool)], #[case] filters: &[&str]) {
        let config = parsed(mtls, None);
        let chains = chains(&config, 1);
        let got: Vec<_> =
            chains.iter().map(|chain| (stat(chain), !chain["transport_socket"].is_null())).collect();
        assert_eq!(got, want);
        let names: Vec<String> = config["static_resources"]["listeners"][1]["listener_filters"]
            .as_array()
            .expect("filters")
            .iter()
            .map(|filter| filter["name"].as_str().expect("a name").replace("envoy.filters.listener.", ""))
            .collect();
        assert_eq!(names, filters);
    }

    #[rstest]
    #[case(Mtls::Disabled, "original_destination", 2)]
    #[case(Mtls::Permissive, "original_destination", 2)]
    #[case(Mtls::Strict, "original_destination_tls", 3)]
    fn outbound_passes_tls_and_processes_http(
        #[case] mtls: Mtls,
        #[case] cluster: &str,
        #[case] clusters: usize,
    ) {
        let config = parsed(mtls, None);
        let chains = chains(&config, 0);
        assert_eq!(chains[0]["filter_chain_match"]["transport_protocol"], "tls");
        assert_eq!(chains[0]["filters"][0]["typed_config"]["cluster"], "original_destination");
        let manager = &chains[1]["filters"][0]["typed_config"];
        let route = &manager["route_config"]["virtual_hosts"][0]["routes"][0]["route"];
        assert_eq!(route, &json!({"cluster": cluster, "timeout": "300s"}));
        assert_eq!(config["static_resources"]["clusters"].as_array().expect("clusters").len(), clusters);
    }

    // Webhook §12.2, "Existing systems get wrong" (a) and (b): Lua runs before ext_proc and overrides a client.
    #[rstest]
    #[case(Mtls::Disabled)]
    #[case(Mtls::Permissive)]
    #[case(Mtls::Strict)]
    fn every_http_chain_sets_the_direction_first(#[case] mtls: Mtls) {
        let config = parsed(mtls, None);
        for (listener, inbound) in [(0, false), (1, true)] {
            for chain in chains(&config, listener) {
                let manager = &chain["filters"][0]["typed_config"];
                let Some(filters) = manager["http_filters"].as_array() else { continue };
                let names: Vec<_> =
                    filters.iter().map(|filter| filter["name"].as_str().expect("a name")).collect();
                assert_eq!(
                    names,
                    ["envoy.filters.http.lua", "envoy.filters.http.ext_proc", "envoy.filters.http.router"]
                );
                let lua =
                    filters[0]["typed_config"]["default_source_code"]["inline_string"].as_str().expect("Lua");
                assert!(lua.contains("remove(\"x-authbridge-direction\")"));
                assert_eq!(lua.contains("replace(\"x-authbridge-direction\", \"inbound\")"), inbound);
                assert_eq!(filters[1]["typed_config"]["failure_mode_allow"], false);
            }
        }
    }

    #[test]
    fn a_trust_domain_restricts_peers() {
        let config = parsed(Mtls::Strict, Some("a.example"));
        let context = &chains(&config, 1)[0]["transport_socket"]["typed_config"]["common_tls_context"];
        let names = &context["combined_validation_context"]["default_validation_context"]["match_typed_subject_alt_names"];
        assert_eq!(names, &json!([{"san_type": "URI", "matcher": {"prefix": "spiffe://a.example/"}}]));
        let odd = parsed(Mtls::Strict, Some("a\"}\nx: y"));
        assert!(odd["x"].is_null(), "the domain stays inside its string");
    }

    #[test]
    fn certificate_files_are_watched() {
        for text in [SDS_IDENTITY, SDS_TRUST] {
            let secret = parse_value(text).expect("YAML")["resources"][0].clone();
            let body =
                secret.get("tls_certificate").or_else(|| secret.get("validation_context")).expect("a body");
            assert_eq!(body["watched_directory"]["path"], "/opt");
        }
    }

    #[test]
    fn the_whole_file() {
        let proxy = Proxy::default();
        let config = EnvoyConfig { proxy: &proxy, mtls: Mtls::Permissive, trust_domain: Some("a.example") };
        insta::assert_snapshot!(render(&config));
    }
}
