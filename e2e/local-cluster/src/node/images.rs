//! Images for the node: its own two, and whatever a test or a user brings.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::files;
use crate::images::{Image, Profile, build_static};
use crate::options::ClusterOptions;
use crate::programs::Program;
use crate::run::{run_within, stdout_of};
use crate::supervisor::protocol::Order;

/// The image of CoreDNS.
pub(crate) const COREDNS: &str = "local-cluster.invalid/coredns:1";

/// How long one import may take. Half a minute is much, on a machine that does other things as well.
const IMPORT_WITHIN: Duration = Duration::from_mins(5);

/// The program of the image `pause`, built when a cluster with these options needs it.
pub(crate) fn pause_program(options: &ClusterOptions) -> Result<Option<PathBuf>> {
    if !options.real_node {
        return Ok(None);
    }
    Ok(Some(build_static(&["pause"], Profile::Quick)?.path("pause")?.to_owned()))
}

/// Writes the images that every node needs and says where.
pub(crate) fn pack_base(dir: &Path, order: &Order) -> Result<Vec<PathBuf>> {
    let pause = order.pause.as_deref().context("the order has no program `pause`")?;
    let coredns = order.programs.path(Program::Coredns)?;
    let images = [("pause", files::PAUSE, pause), ("coredns", COREDNS, coredns)];
    let mut written = Vec::with_capacity(images.len());
    for (name, reference, program) in images {
        let file = files::home(dir).join(format!("{name}.tar"));
        Image::of_program(reference, name, program)?.write(&file)?;
        written.push(file);
    }
    Ok(written)
}

/// Imports tarballs into the containerd of the cluster with this directory, where the kubelet looks.
pub(crate) async fn import(dir: &Path, tarballs: &[PathBuf]) -> Result<()> {
    let socket = files::containerd_socket(dir);
    for file in tarballs {
        let mut command = tokio::process::Command::new("ctr");
        command.arg("--address").arg(&socket).args(["--namespace", "k8s.io", "images", "import"]).arg(file);
        let doing = format!("importing {}", file.display());
        let output = run_within(command, IMPORT_WITHIN)
            .await
            .with_context(|| format!("{doing} with ctr, which comes with containerd"))?;
        stdout_of(&doing, &output)?;
    }
    Ok(())
}
