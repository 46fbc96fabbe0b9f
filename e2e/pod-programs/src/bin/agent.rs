//! A small agent in a real container: serves an A2A card, and tells what it can reach from inside its Pod.
//!
//! | request | answer |
//! |---|---|
//! | `GET /.well-known/agent-card.json` | the card |
//! | `GET /reach?http://<host>[:<port>]/<path>` | what that URL answers, seen from the Pod: names are resolved there, Services are reached there |
//! | anything else | 200 and its own environment's name of the Pod |

use std::error::Error;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, ToSocketAddrs as _};
use std::time::Duration;

/// No peer may hold a thread longer than this.
const LIMIT: Duration = Duration::from_secs(5);
/// The most that is read of a foreign answer.
const LARGEST: u64 = 64 * 1024;
/// Card of the agent; the address is the Service of the quick start.
const CARD: &str = r#"{"protocolVersion":"0.3.0","name":"Weather Agent","description":"Says what the weather is like in a city.","url":"http://weather-agent.default.svc.cluster.local:8000/","preferredTransport":"JSONRPC","version":"0.1.0","capabilities":{"streaming":false,"pushNotifications":false},"defaultInputModes":["text/plain"],"defaultOutputModes":["text/plain"],"skills":[{"id":"current-weather","name":"Current weather","description":"The weather in one city, now.","tags":["weather"]}]}"#;

type Answer = Result<(String, String), Box<dyn Error>>;

fn main() -> Result<(), Box<dyn Error>> {
    let port: u16 = match std::env::var("PORT") {
        Ok(port) => port.parse().map_err(|error| format!("PORT is {port:?}: {error}"))?,
        Err(_) => 8000,
    };
    let listener = TcpListener::bind(("0.0.0.0", port))?;
    eprintln!("listening on port {port}");
    for stream in listener.incoming() {
        let stream = stream?;
        // A thread per connection: a Pod of a test sees a handful of them.
        std::thread::spawn(move || {
            if let Err(error) = serve(&stream) {
                eprintln!("{error}");
            }
        });
    }
    Ok(())
}

fn serve(mut stream: &TcpStream) -> Result<(), Box<dyn Error>> {
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    let mut head = BufReader::new(stream.take(LARGEST)).lines();
    let first = head.next().ok_or("no request")??;
    for line in head {
        if line?.is_empty() {
            break;
        }
    }
    let target = first.split(' ').nth(1).ok_or_else(|| format!("no request: {first:?}"))?;
    let (status, body) =
        answer(target).unwrap_or_else(|error| ("502 Bad Gateway".to_owned(), format!("{error}\n")));
    let kind = if body.starts_with('{') { "application/json" } else { "text/plain; charset=utf-8" };
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )?;
    Ok(())
}

fn answer(target: &str) -> Answer {
    let ok = "200 OK".to_owned();
    match target.split_once('?') {
        Some(("/reach", url)) => reach(url),
        _ if target == "/.well-known/agent-card.json" => Ok((ok, CARD.to_owned())),
        _ => Ok((ok, format!("{}\n", std::env::var("HOSTNAME").unwrap_or_default()))),
    }
}

/// What a URL answers: the status line's code and phrase, and the body.
fn reach(url: &str) -> Answer {
    let rest = url.strip_prefix("http://").ok_or("only http:// is reached")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let with_port = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let address = with_port.to_socket_addrs()?.next().ok_or_else(|| format!("{host} has no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    // One write: a server that has answered after the first of several resets the connection on the next.
    stream
        .write_all(format!("GET /{path} HTTP/1.0\r\nhost: {host}\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut text = String::new();
    stream.take(LARGEST).read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or("no HTTP answer")?;
    let status = head.lines().next().and_then(|line| line.split_once(' ')).ok_or("no status line")?.1;
    Ok((status.to_owned(), body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                serve(&stream).expect("served");
            }
        });
        address
    }

    #[test]
    fn it_serves_the_card_and_reaches_others() {
        let (one, two) = (server(), server());
        let (status, body) = reach(&format!("http://{one}/.well-known/agent-card.json")).expect("an answer");
        assert_eq!(status, "200 OK");
        assert!(body.contains("Weather Agent"));
        let (status, relayed) =
            reach(&format!("http://{one}/reach?http://{two}/.well-known/agent-card.json"))
                .expect("an answer");
        assert_eq!((status.as_str(), relayed), ("200 OK", body));
    }

    #[test]
    fn what_cannot_be_reached_is_a_bad_gateway() {
        let one = server();
        let (status, body) = reach(&format!("http://{one}/reach?http://127.0.0.1:1/")).expect("an answer");
        assert_eq!(status, "502 Bad Gateway");
        assert!(body.contains("refused"), "{body}");
    }
}
