//! What a tarball says about its image.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::Written;

/// The most that is read of a tarball's JSON parts; layers are skipped.
const LARGEST_JSON: u64 = 1024 * 1024;

/// Name, labels and digests of an image in a tarball of [`super::Image::write`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The full reference.
    pub reference: String,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
    /// Digest and layer.
    pub written: Written,
}

impl Summary {
    /// Reads a tarball.
    pub fn read(file: &Path) -> Result<Self> {
        Self::parse(file).with_context(|| format!("reading the image {}", file.display()))
    }

    fn parse(file: &Path) -> Result<Self> {
        let mut parts = BTreeMap::new();
        let mut archive = tar::Archive::new(File::open(file)?);
        for entry in archive.entries()? {
            let entry = entry?;
            let path = entry.path()?.display().to_string();
            if entry.size() <= LARGEST_JSON {
                let mut content = Vec::new();
                entry.take(LARGEST_JSON).read_to_end(&mut content)?;
                parts.insert(path, content);
            }
        }
        let json = |path: &str| -> Result<Value> {
            let content = parts.get(path).with_context(|| format!("it has no {path}"))?;
            Ok(serde_json::from_slice(content)?)
        };
        let blob = |descriptor: Option<&Value>| {
            let digest = descriptor.and_then(|found| found.get("digest")).and_then(Value::as_str);
            let digest = digest.context("a part without digest")?;
            anyhow::Ok((digest.to_owned(), format!("blobs/{}", digest.replace(':', "/"))))
        };
        let index = json("index.json")?;
        let listed = index.pointer("/manifests/0").context("it lists no image")?;
        let reference = listed.pointer("/annotations/io.containerd.image.name").and_then(Value::as_str);
        let (digest, path) = blob(Some(listed))?;
        let manifest = json(&path)?;
        let config = json(&blob(manifest.get("config"))?.1)?;
        let labels = config.pointer("/config/Labels").cloned().unwrap_or_default();
        let layer = manifest.pointer("/layers/0/size").and_then(Value::as_u64).context("it has no layer")?;
        Ok(Self {
            reference: reference.context("it has no name")?.to_owned(),
            labels: serde_json::from_value(labels)?,
            written: Written { digest, layer },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Entry, Image};
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let image = Image {
            reference: "example.org/tool:1".to_owned(),
            entrypoint: vec!["/tool".to_owned()],
            user: "1:1".to_owned(),
            labels: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
            created: 0,
            entries: vec![Entry::text("tool", vec![0; 2 * 1024 * 1024])],
        };
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("image.tar");
        let written = image.write(&file).expect("written");
        let read = Summary::read(&file).expect("read");
        assert_eq!(read, Summary { reference: image.reference, labels: image.labels, written });
        std::fs::write(&file, "no tarball").expect("written");
        assert!(Summary::read(&file).is_err());
    }
}
