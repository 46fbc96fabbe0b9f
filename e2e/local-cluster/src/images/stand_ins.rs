//! What answers on a real node for images that cannot be had without a registry: small programs of our own, from
//! `e2e/pod-programs`, under the references that the quick start and the webhook name.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::{Image, Profile, build_static};

/// The agent of the quick start.
const AGENT: &str = "ghcr.io/kagenti/agent-examples/weather_service:v0.0.1-alpha.3";
/// The images that the webhook injects: reference, and what the stand-in is told first.
const INJECTED: [(&str, &[&str]); 2] = [
    ("ghcr.io/kagenti/kagenti-extensions/authbridge:latest", &[]),
    ("ghcr.io/kagenti/kagenti-extensions/proxy-init:latest", &["init"]),
];

/// Builds the programs and writes a tarball for each image into a directory. Blocks while cargo works.
pub fn pack(dir: &Path) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    let programs = build_static(&["agent", "stand-in"], Profile::Quick)?;
    let mut files = Vec::new();
    let mut write = |name: &str, image: &Image| {
        let file = dir.join(format!("{name}.tar"));
        image.write(&file).map(|_| files.push(file))
    };
    write("agent", &Image::of_program(AGENT, "agent", programs.path("agent")?)?)?;
    for (index, (reference, first)) in INJECTED.iter().enumerate() {
        let mut image = Image::of_program(reference, "stand-in", programs.path("stand-in")?)?;
        image.entrypoint.extend(first.iter().map(|word| (*word).to_owned()));
        write(&format!("stand-in-{index}"), &image)?;
    }
    Ok(files)
}
