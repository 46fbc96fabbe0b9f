//! Stands where `python /app/client_registration.py` would in the container that registers a client: asks `KEYCLOAK_URL` over
//! plain HTTP, and writes a secret to `SECRET_FILE_PATH` once it gets an answer. Everything around it is the real script.

use std::error::Error;
use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

/// Longer than a Keycloak at work takes.
const LIMIT: Duration = Duration::from_secs(5);

fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::var("KEYCLOAK_URL").map_err(|error| format!("KEYCLOAK_URL: {error}"))?;
    let file = std::env::var("SECRET_FILE_PATH").map_err(|error| format!("SECRET_FILE_PATH: {error}"))?;
    ask(&url).map_err(|error| format!("{url}: {error}"))?;
    std::fs::write(&file, "made-up").map_err(|error| format!("{file}: {error}"))?;
    Ok(())
}

/// An error unless somebody answers with 200.
fn ask(url: &str) -> Result<(), Box<dyn Error>> {
    let host = url.strip_prefix("http://").ok_or("no http:// URL")?.trim_end_matches('/');
    let address = host.to_socket_addrs()?.next().ok_or("no address")?;
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    // One write: a server that has answered after the first of several resets the connection on the next.
    stream.write_all(format!("GET / HTTP/1.0\r\nhost: {host}\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.take(64 * 1024).read_to_string(&mut answer)?;
    let status = answer.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) == Some("200") { Ok(()) } else { Err(format!("it says {status:?}").into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn an_answer_is_needed() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let server = std::thread::spawn(move || {
            for status in ["503 Service Unavailable", "200 OK"] {
                let (mut stream, _) = listener.accept().expect("a connection");
                let mut head = [0; 512];
                let _ = stream.read(&mut head).expect("a request");
                write!(stream, "HTTP/1.0 {status}\r\n\r\n").expect("answered");
            }
        });
        assert!(ask(&url).expect_err("not yet").to_string().contains("503"));
        ask(&url).expect("an answer");
        server.join().expect("a server");
        assert!(ask(&url).is_err(), "nobody listens");
    }
}
