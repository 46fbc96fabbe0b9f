# Every recipe is a few lines of cargo or a script, which work as well without `just`.

# List the recipes
default:
    @just --list

# A real control plane, the quick start, and what happens to it
demo *args:
    cargo demo {{args}}

# Everything that must be green
test:
    cargo test --workspace

# Scenarios that last over two minutes or need thousands of objects; the last of them need root
test-long: && e2e-services-long e2e-node-long
    cargo test --package agent-trust --test suite -- --ignored --nocapture
    cargo test --package e2e --test long -- --ignored --nocapture --test-threads 1

# Scenarios on a real Keycloak and a real MLflow; needs Java 17 and Python 3.11 with venv
e2e-services filter="":
    cargo test --package e2e --test services -- --ignored --skip long_ --test-threads 4 {{filter}}

# Those of them that last over two minutes or need thousands of objects
e2e-services-long:
    cargo test --package e2e --test services -- --ignored --nocapture --test-threads 1 long_

# Images, chart and Services on a real node; needs root (it installs containerd, runc, CNI plugins and iptables)
e2e-node filter="":
    cargo test --package e2e --test node -- --ignored --nocapture --skip long_ --test-threads 2 {{filter}}

# Those that last over two minutes: certificates rotate under load for a quarter of an hour
e2e-node-long:
    cargo test --package e2e --test node -- --ignored --nocapture --test-threads 1 long_

# One table: time, requests, CPU, memory
bench *args:
    cargo bench-suite {{args}}

# A control plane to work against, until Ctrl-C
cluster *args:
    cargo local-cluster up {{args}}

# The images of the suite as tarballs in target/images, for `ctr images import` or `docker load`
images *args:
    cargo local-cluster images {{args}}

# Format the code
fmt:
    cargo fmt --all

# Warnings are errors
lint:
    cargo clippy --workspace --all-targets -- -D warnings

# Write CRDs, golden lists, the tables of the documentation, and what kustomize installs
generate:
    cargo xtask generate
    cargo render-deploy

# Pack what the charts depend on, then lint them
chart:
    #!/usr/bin/env bash
    set -euo pipefail
    helm=$(cargo local-cluster program helm)
    for chart in $(ls -d charts/*-ctl charts/*-webhook charts/kagenti-crds-*) charts/kagenti-operator; do
        "$helm" dependency update --skip-refresh "$chart"
        "$helm" lint --strict "$chart"
    done

# What CI runs
ci:
    .ci/run
