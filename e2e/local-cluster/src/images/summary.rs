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
        let parts = Parts::read(file)?;
        let (listed, digest, manifest) = parts.manifest()?;
        let reference = listed.pointer("/annotations/io.containerd.image.name").and_then(Value::as_str);
        let config = parts.json(&blob(manifest.get("config"))?.1)?;
        let labels = config.pointer("/config/Labels").cloned().unwrap_or_default();
        let layer = manifest.pointer("/layers/0/size").and_then(Value::as_u64).context("it has no layer")?;
        Ok(Self {
            reference: reference.context("it has no name")?.to_owned(),
            labels: serde_json::from_value(labels)?,
            written: Written { digest, layer },
        })
    }
}

/// A file of the image in a tarball of [`super::Image::write`]; none when the image has no such file. The path is without its
/// leading slash.
pub fn file_in_image(tarball: &Path, path: &str) -> Result<Option<Vec<u8>>> {
    let find = || -> Result<Option<Vec<u8>>> {
        let (_, _, manifest) = Parts::read(tarball)?.manifest()?;
        let (_, layer) = blob(manifest.pointer("/layers/0"))?;
        let mut archive = tar::Archive::new(File::open(tarball)?);
        for part in archive.entries()? {
            let part = part?;
            if part.path()?.as_os_str() == layer.as_str() {
                for entry in tar::Archive::new(part).entries()? {
                    let mut entry = entry?;
                    if entry.path()?.as_os_str() == path {
                        let mut content = Vec::new();
                        entry.read_to_end(&mut content)?;
                        return Ok(Some(content));
                    }
                }
            }
        }
        Ok(None)
    };
    find().with_context(|| format!("reading the image {}", tarball.display()))
}

/// The small files of a tarball by path: all that are JSON.
struct Parts(BTreeMap<String, Vec<u8>>);

impl Parts {
    fn read(file: &Path) -> Result<Self> {
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
        Ok(Self(parts))
    }

    fn json(&self, path: &str) -> Result<Value> {
        let content = self.0.get(path).with_context(|| format!("it has no {path}"))?;
        Ok(serde_json::from_slice(content)?)
    }

    /// What the index says about the image, the digest of its manifest, and the manifest.
    fn manifest(&self) -> Result<(Value, String, Value)> {
        let index = self.json("index.json")?;
        let listed = index.pointer("/manifests/0").context("it lists no image")?.clone();
        let (digest, path) = blob(Some(&listed))?;
        Ok((listed, digest, self.json(&path)?))
    }
}

/// Digest and path of what a descriptor is about.
fn blob(descriptor: Option<&Value>) -> Result<(String, String)> {
    let digest = descriptor.and_then(|found| found.get("digest")).and_then(Value::as_str);
    let digest = digest.context("a part without digest")?;
    Ok((digest.to_owned(), format!("blobs/{}", digest.replace(':', "/"))))
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
        let found = |path: &str| file_in_image(&file, path).expect("read").map(|content| content.len());
        assert_eq!((found("tool"), found("other")), (Some(2 * 1024 * 1024), None));
        std::fs::write(&file, "no tarball").expect("written");
        assert!(Summary::read(&file).is_err());
    }
}
