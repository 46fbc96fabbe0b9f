//! A real Keycloak in development mode.
//!
//! `kc.sh start-dev` compiles its configuration into `lib/quarkus` of its own directory and then runs Java as a child.
//! Here Java is started directly, so that whoever holds the process id holds the server, and every server gets a
//! directory of its own (links to the unpacked distribution, its own `lib/quarkus` and `data`), so that several with
//! different features may run. The compiled configuration is kept in the user's cache, by features.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use super::archive::Archive;
use super::java::Java;
use super::new_password;
use super::server::{Process, Server};
use crate::cluster::Cluster;
use crate::ports::Port;
use crate::programs::cache_dir;
use crate::supervisor::protocol::ProcessSpec;
use crate::terminal::Terminal;
use crate::wait::log_tail;

/// The release that the specification speaks of.
const ARCHIVE: Archive<'static> = Archive {
    title: "Keycloak 26.4.0 from Maven Central, 153 MiB",
    url: "https://repo1.maven.org/maven2/org/keycloak/keycloak-quarkus-dist/26.4.0/keycloak-quarkus-dist-26.4.0.zip",
    sha256: "1b6a11a2726ac8a8dc9c91d5fafe989a75ce4f1622d7f7b45c21d5bc16629c0a",
    root: "keycloak-26.4.0",
};
/// How Keycloak ends once it has compiled a changed configuration.
const COMPILED: i32 = 10;
/// Longest time for that on a busy machine.
const COMPILE_WITHIN: Duration = Duration::from_mins(5);
/// Longest time until it answers on a busy machine; 14 s on one that is not.
const READY_WITHIN: Duration = Duration::from_mins(4);
/// Name of the first administrator.
const ADMIN: &str = "admin";

/// What a Keycloak should be like.
#[derive(Clone, Debug)]
pub struct KeycloakOptions {
    /// Its name among the cluster's processes, also of its log.
    pub name: String,
    /// Values of `--features`: preview features to switch on.
    pub features: Vec<String>,
    /// Keep realms over a stop. Otherwise they live in memory, and a server that is started again is empty.
    pub keep_data: bool,
}

impl Default for KeycloakOptions {
    /// With the features of `federated-jwt`, and with data that survives a stop.
    fn default() -> Self {
        Self {
            name: "keycloak".to_owned(),
            features: vec!["client-auth-federated".to_owned(), "spiffe".to_owned()],
            keep_data: true,
        }
    }
}

/// A running Keycloak.
#[derive(Debug)]
pub struct Keycloak {
    server: Server,
    url: String,
    admin_password: Password,
    tools: PathBuf,
}

/// Not for logs.
struct Password(String);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<password>")
    }
}

impl Keycloak {
    /// Starts one on loopback with an administrator of its own; downloads and compiles it first if need be, with
    /// progress on standard error.
    pub async fn start(cluster: &Cluster, options: KeycloakOptions) -> Result<Self> {
        let Prepared { java, distribution, quarkus } = prepared(cluster, &options).await?;
        let home = cluster.info().dir.join(format!("{}-home", options.name));
        make_home(&home, &distribution, &quarkus)?;

        let (port, management) = (Port::lease()?, Port::lease()?);
        let url = format!("http://127.0.0.1:{}", port.number());
        let password = new_password()?;
        let mut args = java_args(&home, true);
        args.extend(start_args(&options));
        args.extend([
            "--http-host=127.0.0.1".to_owned(),
            format!("--http-port={}", port.number()),
            format!("--http-management-port={}", management.number()),
        ]);
        if options.keep_data {
            let file = home.join("data/h2/keycloak");
            args.push(format!("--db-url=jdbc:h2:file:{};NON_KEYWORDS=VALUE", file.display()));
        }
        let env = BTreeMap::from([
            ("KC_BOOTSTRAP_ADMIN_USERNAME".to_owned(), ADMIN.to_owned()),
            ("KC_BOOTSTRAP_ADMIN_PASSWORD".to_owned(), password.clone()),
        ]);
        let log = cluster.log_path(&options.name);
        let spec = ProcessSpec { name: options.name, program: java.program, args, env, log, netns: None };
        let probe = format!("{url}/realms/master");
        let process = Process { spec, port, probe, ready_within: READY_WITHIN };
        let server = Server::start(cluster, process).await?;
        Ok(Self { server, url, admin_password: Password(password), tools: distribution.join("bin") })
    }

    /// What [`Keycloak::start`] does before the server itself, for callers that show their own progress there.
    pub async fn prepare(cluster: &Cluster, options: &KeycloakOptions) -> Result<()> {
        prepared(cluster, options).await.map(drop)
    }

    /// Base URL, `http://127.0.0.1:<port>`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// User name of the first administrator, in realm `master`.
    pub fn admin_username(&self) -> &'static str {
        ADMIN
    }

    /// Their password, made for this server.
    pub fn admin_password(&self) -> &str {
        &self.admin_password.0
    }

    /// Directory of `kcadm.sh`.
    pub fn tools(&self) -> &Path {
        &self.tools
    }

    /// The process, to stop it and to start it again.
    pub fn server(&self) -> &Server {
        &self.server
    }
}

/// What a server is made of.
struct Prepared {
    java: Java,
    distribution: PathBuf,
    quarkus: PathBuf,
}

async fn prepared(cluster: &Cluster, options: &KeycloakOptions) -> Result<Prepared> {
    let java = Java::find().await.context("Keycloak needs Java")?;
    let dir = cache_dir()?.join("keycloak").join(ARCHIVE.sha256.get(..16).unwrap_or(ARCHIVE.sha256));
    let terminal = Terminal::stderr();
    let distribution = ARCHIVE.ensure(&dir, terminal).await?;
    let compiled = Compiled { dir: &dir, distribution: &distribution, options };
    let quarkus = compiled.ensure(cluster, &java, terminal).await?;
    Ok(Prepared { java, distribution, quarkus })
}

/// The compiled configuration of a set of features.
struct Compiled<'a> {
    dir: &'a Path,
    distribution: &'a Path,
    options: &'a KeycloakOptions,
}

impl Compiled<'_> {
    /// Its place in the cache; compiles it first if need be.
    async fn ensure(&self, cluster: &Cluster, java: &Java, terminal: Terminal) -> Result<PathBuf> {
        let digest = hex::encode(Sha256::digest(start_args(self.options).join("\n")));
        let key = digest.get(..16).unwrap_or(&digest);
        let done = self.dir.join(format!("quarkus-{key}"));
        if done.is_dir() {
            return Ok(done);
        }
        let task = terminal.task("compiling Keycloak's configuration (once per user)");
        match self.compile(cluster, java, &done).await {
            Ok(()) => {
                task.done();
                Ok(done)
            }
            Err(error) => {
                task.cleared();
                Err(error.context("compiling Keycloak's configuration"))
            }
        }
    }

    async fn compile(&self, cluster: &Cluster, java: &Java, done: &Path) -> Result<()> {
        // In the cluster's directory, so two processes never meet; the rename decides who was first.
        let name = format!("{}-compile", self.options.name);
        let home = cluster.info().dir.join(&name);
        make_home(&home, self.distribution, &self.distribution.join("lib/quarkus"))?;
        let mut args = java_args(&home, false);
        args.extend(start_args(self.options));
        let log = cluster.log_path(&name);
        let env = BTreeMap::new();
        let program = java.program.clone();
        let spec = ProcessSpec { name, program, args, env, log: log.clone(), netns: None };
        let pid = cluster.start_process(spec).await?;
        let exit = tokio::time::timeout(COMPILE_WITHIN, cluster.process_ended(pid)).await;
        let exit = exit.with_context(|| format!("not done in {} s", COMPILE_WITHIN.as_secs()))??;
        if exit.code != Some(COMPILED) {
            bail!("it ended with {exit}; its log ends with:\n{}", log_tail(&log, 20));
        }
        // Beside its final place: the rename must not cross file systems.
        let staging = done.with_extension(std::process::id().to_string());
        copy_files(&home.join("lib/quarkus"), &staging)?;
        if let Err(error) = fs::rename(&staging, done) {
            let _ = fs::remove_dir_all(&staging);
            if !done.is_dir() {
                return Err(error).with_context(|| format!("creating {}", done.display()));
            }
        }
        fs::remove_dir_all(&home).with_context(|| format!("removing {}", home.display()))
    }
}

/// What is compiled in, and so must be the same at the start.
fn start_args(options: &KeycloakOptions) -> Vec<String> {
    let mut args = vec!["start-dev".to_owned(), "--db=dev-mem".to_owned()];
    if !options.features.is_empty() {
        args.push(format!("--features={}", options.features.join(",")));
    }
    args
}

/// The Java call of `kc.sh`, with the quick compiler and a plain collector: the server lives for minutes.
fn java_args(home: &Path, compiled: bool) -> Vec<String> {
    let home = home.display();
    let mut args: Vec<String> = Vec::new();
    if compiled {
        args.push("-Dkc.config.built=true".to_owned());
    }
    args.extend(
        [
            "-Djava.util.concurrent.ForkJoinPool.common.threadFactory=io.quarkus.bootstrap.forkjoin.QuarkusForkJoinWorkerThreadFactory",
            "-XX:MetaspaceSize=96M",
            "-XX:MaxMetaspaceSize=256m",
            "-XX:+ExitOnOutOfMemoryError",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Xms64m",
            "-Xmx512m",
            "-Dfile.encoding=UTF-8",
            "-Djava.security.egd=file:/dev/urandom",
            "--add-opens=java.base/java.util=ALL-UNNAMED",
            "--add-opens=java.base/java.util.concurrent=ALL-UNNAMED",
            "--add-opens=java.base/java.security=ALL-UNNAMED",
            "-Duser.language=en",
            "-Duser.country=US",
            "-Djava.util.logging.manager=org.jboss.logmanager.LogManager",
            "-Dpicocli.disable.closures=true",
            "-Dquarkus-log-max-startup-records=10000",
        ]
        .map(str::to_owned),
    );
    args.extend([
        format!("-Dkc.home.dir={home}"),
        format!("-Djboss.server.config.dir={home}/conf"),
        "-cp".to_owned(),
        format!("{home}/lib/quarkus-run.jar"),
        "io.quarkus.bootstrap.runner.QuarkusEntryPoint".to_owned(),
    ]);
    args
}

/// A directory that Java takes for the distribution, but writes to alone.
fn make_home(home: &Path, distribution: &Path, quarkus: &Path) -> Result<()> {
    let lib = home.join("lib");
    fs::create_dir_all(&lib).with_context(|| format!("creating {}", lib.display()))?;
    for part in ["conf", "providers", "themes", "version.txt", "lib/app", "lib/lib"] {
        let link = home.join(part);
        symlink(distribution.join(part), &link).with_context(|| format!("creating {}", link.display()))?;
    }
    // Not a link: its class path is relative to where it is.
    let jar = "lib/quarkus-run.jar";
    fs::copy(distribution.join(jar), home.join(jar)).context("copying Keycloak's main archive")?;
    copy_files(quarkus, &lib.join("quarkus"))
}

fn copy_files(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("creating {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("listing {}", from.display()))? {
        let entry = entry.with_context(|| format!("listing {}", from.display()))?;
        fs::copy(entry.path(), to.join(entry.file_name()))
            .with_context(|| format!("copying {}", entry.path().display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_decide_what_is_compiled() {
        let plain = KeycloakOptions { features: Vec::new(), ..KeycloakOptions::default() };
        assert_eq!(start_args(&plain), ["start-dev", "--db=dev-mem"]);
        let args = start_args(&KeycloakOptions::default());
        assert_eq!(args.last().map(String::as_str), Some("--features=client-auth-federated,spiffe"));
    }

    #[test]
    fn no_password_among_the_arguments_or_in_debug_output() {
        assert_eq!(format!("{:?}", Password("s3cr3t".to_owned())), "<password>");
        assert!(!java_args(Path::new("/h"), true).iter().any(|arg| arg.contains("PASSWORD")));
    }

    #[test]
    fn a_home_has_its_own_compiled_part() {
        let dir = tempfile::tempdir().expect("a directory");
        let distribution = dir.path().join("keycloak-1");
        for part in ["conf", "providers", "themes", "lib/app", "lib/lib", "lib/quarkus"] {
            fs::create_dir_all(distribution.join(part)).expect("a directory");
        }
        for file in ["version.txt", "lib/quarkus-run.jar", "lib/quarkus/application.dat"] {
            fs::write(distribution.join(file), file).expect("a file");
        }
        let home = dir.path().join("home");
        make_home(&home, &distribution, &distribution.join("lib/quarkus")).expect("a home");
        fs::write(home.join("lib/quarkus/application.dat"), "other").expect("its own");
        let original = fs::read_to_string(distribution.join("lib/quarkus/application.dat")).expect("kept");
        assert_eq!(original, "lib/quarkus/application.dat");
        assert!(home.join("lib/app").is_symlink() && !home.join("lib/quarkus-run.jar").is_symlink());
    }
}
