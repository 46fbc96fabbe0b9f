//! Stands where the images of AuthBridge would, which cannot be had without a registry: it holds the ports of the plan
//! and relays the agent's, so that port plan, probes, Services, volumes and configuration are proven by traffic. It checks
//! no token and opens no TLS.
//!
//! `stand-in init` is `proxy-init`: it says what it was asked to redirect, and ends. `stand-in --config <file>` is the
//! sidecar: `reverse_proxy_addr` leads to `reverse_proxy_backend`, the other addresses of `listener` accept and say who they
//! are, port 9091 answers `/healthz`, `/readyz` and `/config` (the file as it was read). In mode `envoy-sidecar` nothing but
//! that port is held: what leads traffic there is a redirection that the stand-in of `proxy-init` does not make.

use std::error::Error;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// Where the sidecar's health is, in every mode.
const HEALTH_PORT: u16 = 9091;
/// The mode without ports of its own.
const ENVOY: &str = "mode: envoy-sidecar";
/// No peer may hold a thread longer than this without a byte.
const IDLE: Duration = Duration::from_secs(30);

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["init"] => {
            let variable = |name: &str| format!("{name}={}", std::env::var(name).unwrap_or_default());
            eprintln!(
                "would redirect with {}",
                ["MODE", "PROXY_UID", "TRANSPARENT_PORT"].map(variable).join(" ")
            );
            Ok(())
        }
        ["--config", path] => {
            let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
            sidecar(&text)
        }
        other => Err(format!("usage: stand-in init | stand-in --config <file>, not {other:?}").into()),
    }
}

/// The addresses of `listener` that the sidecar holds.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    reverse: String,
    backend: String,
    others: Vec<(&'static str, String)>,
}

impl Plan {
    /// Reads block YAML line by line, which is how the webhook writes it.
    fn read(text: &str) -> Outcome<Self> {
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(':'))?;
            Some(line.trim().trim_matches(['"', '\'']).to_owned())
        };
        let wanted = |key: &str| value(key).ok_or_else(|| format!("the configuration has no {key}"));
        let backend = wanted("reverse_proxy_backend")?;
        let backend = backend.strip_prefix("http://").ok_or("reverse_proxy_backend is no http:// URL")?;
        let others = ["forward_proxy_addr", "transparent_proxy_addr"];
        Ok(Self {
            reverse: listen_address(&wanted("reverse_proxy_addr")?),
            backend: backend.trim_end_matches('/').to_owned(),
            others: others.into_iter().filter_map(|key| Some((key, listen_address(&value(key)?)))).collect(),
        })
    }
}

/// `:8000` is every address.
fn listen_address(text: &str) -> String {
    if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() }
}

fn sidecar(text: &str) -> Outcome<()> {
    let plan = if text.lines().any(|line| line == ENVOY) { None } else { Some(Plan::read(text)?) };
    let mut threads = Vec::new();
    let config = Arc::new(text.to_owned());
    threads.push(listen(&format!("0.0.0.0:{HEALTH_PORT}"), move |stream| health(&stream, &config))?);
    if let Some(plan) = plan {
        for (name, address) in plan.others {
            threads.push(listen(&address, move |stream| say(&stream, "200 OK", &format!("{name}\n")))?);
        }
        let backend = plan.backend;
        threads.push(listen(&plan.reverse, move |stream| relay(stream, &backend))?);
    }
    for thread in threads {
        let _ = thread.join();
    }
    Err("no longer listening".into())
}

/// Accepts connections for ever, a thread for each.
fn listen(
    address: &str,
    serve: impl Fn(TcpStream) -> Outcome<()> + Send + Sync + 'static,
) -> Outcome<std::thread::JoinHandle<()>> {
    let listener = TcpListener::bind(address).map_err(|error| format!("{address}: {error}"))?;
    eprintln!("listening on {address}");
    let serve = Arc::new(serve);
    Ok(std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            std::thread::spawn(move || {
                if let Err(error) = serve(stream) {
                    eprintln!("{error}");
                }
            });
        }
    }))
}

fn health(stream: &TcpStream, config: &str) -> Outcome<()> {
    stream.set_read_timeout(Some(IDLE))?;
    let mut first = String::new();
    BufReader::new(stream).read_line(&mut first)?;
    match first.split(' ').nth(1) {
        Some("/healthz" | "/readyz") => say(stream, "200 OK", "ok\n"),
        Some("/config") => say(stream, "200 OK", config),
        _ => say(stream, "404 Not Found", "\n"),
    }
}

fn say(mut stream: &TcpStream, status: &str, body: &str) -> Outcome<()> {
    let length = body.len();
    write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")?;
    // Closing with unread input would reset the connection and lose the answer.
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.set_read_timeout(Some(IDLE))?;
    let mut rest = Vec::new();
    stream.take(64 * 1024).read_to_end(&mut rest)?;
    Ok(())
}

/// Bytes both ways until either side is done.
fn relay(client: TcpStream, backend: &str) -> Outcome<()> {
    let server = TcpStream::connect(backend).map_err(|error| format!("{backend}: {error}"))?;
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(IDLE))?;
    }
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    let upstream = std::thread::spawn(move || {
        let _ = std::io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(std::net::Shutdown::Write);
    });
    let (mut from_server, mut to_client) = (server, client);
    let _ = std::io::copy(&mut from_server, &mut to_client);
    let _ = to_client.shutdown(std::net::Shutdown::Both);
    let _ = upstream.join();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITTEN: &str = "listener:\n  forward_proxy_addr: \":8081\"\n  reverse_proxy_addr: \":8000\"\n  \
        reverse_proxy_backend: http://127.0.0.1:8001\n  transparent_proxy_addr: \":8082\"\nmode: proxy-sidecar\n";

    #[test]
    fn the_plan_is_what_the_webhook_wrote() {
        let plan = Plan::read(WRITTEN).expect("a plan");
        let others = [("forward_proxy_addr", "0.0.0.0:8081"), ("transparent_proxy_addr", "0.0.0.0:8082")];
        assert_eq!(
            plan,
            Plan {
                reverse: "0.0.0.0:8000".to_owned(),
                backend: "127.0.0.1:8001".to_owned(),
                others: others.map(|(key, address)| (key, address.to_owned())).into(),
            }
        );
        assert!(Plan::read("mode: envoy-sidecar\n").is_err());
    }

    #[test]
    fn bytes_pass_both_ways() {
        let backend = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = backend.local_addr().expect("an address").to_string();
        std::thread::spawn(move || {
            let (stream, _) = backend.accept().expect("a connection");
            say(&stream, "200 OK", "from behind").expect("said");
        });
        let front = TcpListener::bind("127.0.0.1:0").expect("a port");
        let at = front.local_addr().expect("an address");
        std::thread::spawn(move || {
            relay(front.accept().expect("a connection").0, &address).expect("relayed");
        });
        let mut client = TcpStream::connect(at).expect("connected");
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("asked");
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("answered");
        assert!(answer.ends_with("from behind"), "{answer}");
    }
}
