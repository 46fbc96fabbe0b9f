//! Writes an image as a tarball: an OCI image layout, with the index that older `docker load` wants beside it.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use super::image::{Entry, Image};

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Digest of the image's manifest, `sha256:<hex>`.
    pub digest: String,
    /// Bytes of the layer.
    pub layer: u64,
}

/// A content-addressed part of the layout.
struct Blob {
    hex: String,
    bytes: Vec<u8>,
}

impl Blob {
    fn new(bytes: Vec<u8>) -> Self {
        Self { hex: hex::encode(Sha256::digest(&bytes)), bytes }
    }

    fn json(value: &Value) -> Self {
        Self::new(value.to_string().into_bytes())
    }

    fn digest(&self) -> String {
        format!("sha256:{}", self.hex)
    }

    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.hex)
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": self.digest(), "size": self.bytes.len()})
    }
}

impl Image {
    /// Writes the image to a file, which appears whole or not at all.
    pub fn write(&self, path: &Path) -> Result<Written> {
        let layer = Blob::new(layer(&self.entries, self.created)?);
        let config = Blob::json(&self.config(&layer)?);
        let manifest = Blob::json(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config.descriptor("application/vnd.oci.image.config.v1+json"),
            // Not compressed: packing and unpacking would cost more than the file system's copy.
            "layers": [layer.descriptor("application/vnd.oci.image.layer.v1.tar")],
        }));
        let listed = json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": manifest.digest(),
            "size": manifest.bytes.len(),
            "annotations": {"io.containerd.image.name": self.reference},
            "platform": {"architecture": architecture(), "os": "linux"},
        });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [listed],
        });
        let for_docker =
            json!([{"Config": config.path(), "RepoTags": [self.reference], "Layers": [layer.path()]}]);
        let files = [
            Entry::text("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#),
            Entry::text("index.json", index.to_string()),
            Entry::text("manifest.json", for_docker.to_string()),
        ];
        let written = Written { digest: manifest.digest(), layer: layer.bytes.len() as u64 };
        let blobs = [config, layer, manifest];
        let blobs = blobs.into_iter().map(|blob| Entry::text(&blob.path(), blob.bytes));
        let entries: Vec<Entry> = files.into_iter().chain(blobs).collect();
        let hidden = path.with_extension("part");
        std::fs::write(&hidden, tarball(&entries, self.created)?)
            .and_then(|()| std::fs::rename(&hidden, path))
            .with_context(|| format!("writing {}", path.display()))?;
        Ok(written)
    }

    fn config(&self, layer: &Blob) -> Result<Value> {
        let created = jiff::Timestamp::from_second(self.created).context("the time of an image")?;
        Ok(json!({
            "architecture": architecture(),
            "os": "linux",
            "created": created.to_string(),
            "config": {"User": self.user, "Entrypoint": self.entrypoint, "Labels": self.labels, "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [layer.digest()]},
            "history": [{"created": created.to_string(), "created_by": "local-cluster images"}],
        }))
    }
}

/// This machine's architecture as images name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The layer: every file and the directories that lead to it.
fn layer(entries: &[Entry], created: i64) -> Result<Vec<u8>> {
    tarball(entries, created).context("packing the layer")
}

/// A tarball of files, sorted, all owned by root and equally old, so that the same content gives the same bytes.
fn tarball(entries: &[Entry], created: i64) -> Result<Vec<u8>> {
    let mut sorted: Vec<&Entry> = entries.iter().collect();
    sorted.sort_by(|a, b| a.path.cmp(&b.path));
    let mut builder = Builder::new(Vec::new());
    let mut known = BTreeSet::new();
    for entry in sorted {
        let parents = Path::new(&entry.path).ancestors().skip(1).filter(|dir| !dir.as_os_str().is_empty());
        let mut parents: Vec<&Path> = parents.collect();
        parents.reverse();
        for dir in parents.into_iter().filter(|dir| known.insert(dir.to_path_buf())) {
            let mut header = header(EntryType::Directory, 0o755, 0, created)?;
            builder
                .append_data(&mut header, format!("{}/", dir.display()), std::io::empty())
                .with_context(|| format!("packing {}", dir.display()))?;
        }
        let mut header = header(EntryType::Regular, entry.mode, entry.content.len() as u64, created)?;
        builder
            .append_data(&mut header, &entry.path, entry.content.as_slice())
            .with_context(|| format!("packing {}", entry.path))?;
    }
    builder.into_inner().context("finishing a tarball")
}

fn header(kind: EntryType, mode: u32, size: u64, created: i64) -> Result<Header> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(u64::try_from(created).context("an image is older than 1970")?);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read as _;

    use super::*;

    fn image() -> Image {
        Image {
            reference: "example.org/team/tool:1".to_owned(),
            entrypoint: vec!["/tool".to_owned()],
            user: "65532:65532".to_owned(),
            labels: BTreeMap::from([("org.opencontainers.image.title".to_owned(), "tool".to_owned())]),
            created: 0,
            entries: vec![
                Entry { path: "tool".to_owned(), mode: 0o755, content: b"program".to_vec() },
                Entry::text("etc/ssl/certs/ca-certificates.crt", "roots"),
                Entry::text("etc/passwd", "nonroot"),
            ],
        }
    }

    /// Every file of a tarball by its path.
    fn files(tarball: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(tarball);
        let entries = archive.entries().expect("a tarball");
        entries
            .map(|entry| {
                let mut entry = entry.expect("an entry");
                let mut content = Vec::new();
                entry.read_to_end(&mut content).expect("readable");
                (entry.path().expect("a path").display().to_string(), content)
            })
            .collect()
    }

    fn written(image: &Image) -> (Written, Vec<u8>) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("image.tar");
        let written = image.write(&path).expect("written");
        assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 1, "nothing half-written stays");
        (written, std::fs::read(path).expect("read"))
    }

    #[test]
    fn the_layout_hangs_together() {
        let (written, bytes) = written(&image());
        let files = files(&bytes);
        let parsed = |path: &str| -> Value { serde_json::from_slice(&files[path]).expect("JSON") };
        let blob = |digest: &Value| {
            let hex = digest.as_str().and_then(|text| text.strip_prefix("sha256:")).expect("a digest");
            let content = files[&format!("blobs/sha256/{hex}")].clone();
            assert_eq!(hex::encode(Sha256::digest(&content)), hex);
            content
        };
        let index = parsed("index.json");
        assert_eq!(index["manifests"][0]["digest"], written.digest);
        assert_eq!(
            index["manifests"][0]["annotations"]["io.containerd.image.name"],
            "example.org/team/tool:1"
        );
        let manifest: Value =
            serde_json::from_slice(&blob(&index["manifests"][0]["digest"])).expect("a manifest");
        let config: Value = serde_json::from_slice(&blob(&manifest["config"]["digest"])).expect("a config");
        assert_eq!(config["config"]["User"], "65532:65532");
        assert_eq!(config["config"]["Entrypoint"], json!(["/tool"]));
        let layer = blob(&manifest["layers"][0]["digest"]);
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
        assert_eq!(written.layer, layer.len() as u64);
        let names: Vec<String> = self::files(&layer).into_keys().collect();
        let wanted =
            ["etc/", "etc/passwd", "etc/ssl/", "etc/ssl/certs/", "etc/ssl/certs/ca-certificates.crt", "tool"];
        assert_eq!(names, wanted);
        assert_eq!(parsed("manifest.json")[0]["RepoTags"], json!(["example.org/team/tool:1"]));
    }

    #[test]
    fn the_same_content_gives_the_same_bytes() {
        let mut other = image();
        other.entries.reverse();
        assert_eq!(written(&image()), written(&other));
        other.labels.insert("a".to_owned(), "b".to_owned());
        assert_ne!(written(&image()).0.digest, written(&other).0.digest);
    }
}
