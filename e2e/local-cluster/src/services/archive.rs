//! One pinned archive in the user's cache: downloaded once, checked by digest, unpacked.
//!
//! A download that was interrupted is continued; whatever does not have the digest is thrown away. The unpacked
//! directory appears by a rename, so half of one is never used. One process works on it at a time (file lock).

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use reqwest::StatusCode;
use reqwest::header::RANGE;
use sha2::{Digest as _, Sha256};

use crate::terminal::{Task, Terminal};

/// Connecting to the registry.
const CONNECT: Duration = Duration::from_secs(20);
/// The longest silence in a download.
const SILENCE: Duration = Duration::from_secs(60);

/// What to have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Archive<'a> {
    /// For people: `Keycloak 26.4.0`.
    pub(super) title: &'a str,
    /// Where it is downloaded from.
    pub(super) url: &'a str,
    /// Digest of the zip, hexadecimal.
    pub(super) sha256: &'a str,
    /// The one directory inside.
    pub(super) root: &'a str,
}

impl Archive<'_> {
    /// The unpacked directory below `dir`; brings it there first if need be.
    pub(super) async fn ensure(&self, dir: &Path, terminal: Terminal) -> Result<PathBuf> {
        let unpacked = dir.join(self.root);
        if unpacked.is_dir() {
            return Ok(unpacked);
        }
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        let mut task = terminal.task(&format!("{} (once per user)", self.title));
        let brought = self.bring(dir, &unpacked, &mut task).await;
        match brought {
            Ok(()) => {
                task.done();
                Ok(unpacked)
            }
            Err(error) => {
                task.cleared();
                Err(error.context(format!("getting {}", self.title)))
            }
        }
    }

    async fn bring(&self, dir: &Path, unpacked: &Path, task: &mut Task) -> Result<()> {
        let _lock = lock(&dir.join("lock"), task).await?;
        if unpacked.is_dir() {
            return Ok(());
        }
        let zip = dir.join(self.url.rsplit('/').next().unwrap_or("archive.zip"));
        if !zip.is_file() || digest(&zip).await? != self.sha256 {
            self.download(&zip, task).await.with_context(|| {
                format!(
                    "{} could not be downloaded; to do it by other means, put it at {}",
                    self.url,
                    zip.display()
                )
            })?;
            let found = digest(&zip).await?;
            if found != self.sha256 {
                let _ = fs::remove_file(&zip);
                bail!("{} has SHA-256 {found}, not {}; it was thrown away", self.url, self.sha256);
            }
        }
        task.detail("unpacking");
        let (archive, staging, root) = (zip.clone(), dir.join("staging"), self.root.to_owned());
        let unpacked = unpacked.to_owned();
        tokio::task::spawn_blocking(move || unpack(&archive, &staging, &root, &unpacked))
            .await
            .context("unpacking")??;
        // Only the unpacked files are used from here on.
        let _ = fs::remove_file(&zip);
        Ok(())
    }

    /// Continues a file that is too short, starts over with any other.
    async fn download(&self, to: &Path, task: &mut Task) -> Result<()> {
        let have = fs::metadata(to).map_or(0, |meta| meta.len());
        let mut request = client()?.get(self.url);
        if have > 0 {
            request = request.header(RANGE, format!("bytes={have}-"));
        }
        let mut response = request.send().await.context("asking for it")?;
        let mut options = OpenOptions::new();
        let (file, mut done) = match response.status() {
            StatusCode::PARTIAL_CONTENT => (options.append(true).open(to), have),
            StatusCode::OK => (options.write(true).create(true).truncate(true).open(to), 0),
            StatusCode::RANGE_NOT_SATISFIABLE => {
                fs::remove_file(to).with_context(|| format!("removing {}", to.display()))?;
                bail!("what was there of it before does not fit and was thrown away; try again");
            }
            status => bail!("the registry answers {status}"),
        };
        let mut file = file.with_context(|| format!("opening {}", to.display()))?;
        let total = response.content_length().map_or(0, |rest| rest + done);
        while let Some(chunk) = tokio::time::timeout(SILENCE, response.chunk())
            .await
            .with_context(|| format!("{} s of silence", SILENCE.as_secs()))?
            .context("reading it")?
        {
            file.write_all(&chunk).with_context(|| format!("writing {}", to.display()))?;
            done += chunk.len() as u64;
            task.detail(&format!("{} of {} MiB", done >> 20, total >> 20));
        }
        file.sync_all().with_context(|| format!("writing {}", to.display()))
    }
}

/// Proxies of the environment are used, unlike in the product: this is a download for the user.
fn client() -> Result<reqwest::Client> {
    let provider = rustls::crypto::ring::default_provider();
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let tls = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .context("a TLS configuration")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .connect_timeout(CONNECT)
        .build()
        .context("a client for the download")
}

async fn lock(path: &Path, task: &mut Task) -> Result<File> {
    let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => task.detail("another process is at it"),
            Err(error) => return Err(error).with_context(|| format!("locking {}", path.display())),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn digest(path: &Path) -> Result<String> {
    let path = path.to_owned();
    let computed = tokio::task::spawn_blocking(move || {
        let mut file = File::open(&path)?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0_u8; 1 << 20];
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                return std::io::Result::Ok(hex::encode(hash.finalize()));
            }
            hash.update(buffer.get(..read).unwrap_or_default());
        }
    });
    computed.await.context("computing a digest")?.context("reading what was downloaded")
}

fn unpack(archive: &Path, staging: &Path, root: &str, target: &Path) -> Result<()> {
    if staging.exists() {
        fs::remove_dir_all(staging).with_context(|| format!("removing {}", staging.display()))?;
    }
    let file = File::open(archive).with_context(|| format!("opening {}", archive.display()))?;
    zip::ZipArchive::new(std::io::BufReader::new(file))
        .and_then(|mut zip| zip.extract(staging))
        .with_context(|| format!("unpacking {}", archive.display()))?;
    fs::rename(staging.join(root), target).with_context(|| format!("there is no {root} in the archive"))?;
    fs::remove_dir_all(staging).with_context(|| format!("removing {}", staging.display()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use axum::extract::State;
    use axum::http::HeaderMap;
    use axum::response::{IntoResponse as _, Response};
    use axum::routing::get;
    use zip::write::SimpleFileOptions;

    use super::*;

    /// A registry with one archive; counts what it has sent.
    struct Registry {
        zip: Vec<u8>,
        sent: AtomicUsize,
    }

    async fn serve(State(registry): State<Arc<Registry>>, headers: HeaderMap) -> Response {
        let from = headers.get("range").and_then(|range| range.to_str().ok());
        let from = from.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        let Some(rest) = registry.zip.get(from.unwrap_or(0)..).filter(|rest| !rest.is_empty()) else {
            return StatusCode::RANGE_NOT_SATISFIABLE.into_response();
        };
        registry.sent.fetch_add(rest.len(), Ordering::SeqCst);
        let status = if from.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
        (status, rest.to_vec()).into_response()
    }

    async fn registry() -> (Arc<Registry>, String, String) {
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Stored)
            .unix_permissions(0o755);
        zip.start_file("thing-1/bin/run", options).expect("a file");
        zip.write_all(&[b'x'; 4096]).expect("its content");
        let zip = zip.finish().expect("an archive").into_inner();
        let sha256 = hex::encode(Sha256::digest(&zip));
        let registry = Arc::new(Registry { zip, sent: AtomicUsize::new(0) });
        let router = Router::new().route("/thing-1.zip", get(serve)).with_state(registry.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/thing-1.zip", listener.local_addr().expect("its address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (registry, url, sha256)
    }

    #[tokio::test]
    async fn two_at_once_bring_it_once() {
        let (registry, url, sha256) = registry().await;
        let dir = tempfile::tempdir().expect("a directory");
        let archive = Archive { title: "Thing", url: &url, sha256: &sha256, root: "thing-1" };
        let quiet = Terminal::stderr();
        let both = tokio::join!(archive.ensure(dir.path(), quiet), archive.ensure(dir.path(), quiet));
        let (one, other) = (both.0.expect("brought"), both.1.expect("waited"));
        assert_eq!(one, other);
        let program = fs::read(one.join("bin/run")).expect("unpacked");
        assert_eq!(program.len(), 4096);
        assert_eq!(registry.sent.load(Ordering::SeqCst), registry.zip.len());
        archive.ensure(dir.path(), quiet).await.expect("there already");
        assert_eq!(registry.sent.load(Ordering::SeqCst), registry.zip.len());
    }

    #[tokio::test]
    async fn an_interrupted_download_is_continued() {
        let (registry, url, sha256) = registry().await;
        let dir = tempfile::tempdir().expect("a directory");
        let half = registry.zip.get(..1000).expect("a beginning");
        fs::write(dir.path().join("thing-1.zip"), half).expect("half of it");
        let archive = Archive { title: "Thing", url: &url, sha256: &sha256, root: "thing-1" };
        archive.ensure(dir.path(), Terminal::stderr()).await.expect("continued");
        assert_eq!(registry.sent.load(Ordering::SeqCst), registry.zip.len() - 1000);
    }

    #[tokio::test]
    async fn another_content_is_refused_and_thrown_away() {
        let (registry, url, _) = registry().await;
        let dir = tempfile::tempdir().expect("a directory");
        let archive = Archive { title: "Thing", url: &url, sha256: "00", root: "thing-1" };
        let error = archive.ensure(dir.path(), Terminal::stderr()).await.expect_err("refused");
        assert!(format!("{error:#}").contains("SHA-256"), "{error:#}");
        assert!(!dir.path().join("thing-1").exists() && !dir.path().join("thing-1.zip").exists());
        assert_eq!(registry.sent.load(Ordering::SeqCst), registry.zip.len());
    }
}
