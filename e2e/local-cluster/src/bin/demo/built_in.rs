//! A small A2A 0.3 server, for machines without Python or without network.

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::agent::{NAME, URL};

/// The card that it serves.
pub(crate) fn card() -> Value {
    json!({
        "protocolVersion": "0.3.0",
        "name": NAME,
        "description": "Says what the weather is like in a city.",
        "url": URL,
        "preferredTransport": "JSONRPC",
        "version": "0.1.0",
        "capabilities": {"streaming": false, "pushNotifications": false},
        "defaultInputModes": ["text/plain"],
        "defaultOutputModes": ["text/plain"],
        "skills": [{
            "id": "current-weather",
            "name": "Current weather",
            "description": "The weather in one city, now.",
            "tags": ["weather"],
            "examples": ["What is the weather like in Rome?"],
        }],
    })
}

/// Serves until the task is ended.
pub(crate) async fn serve(listener: TcpListener) {
    let router = Router::new()
        .route("/.well-known/agent-card.json", get(async |State(card): State<Value>| Json(card)))
        .route("/", post(answer))
        .with_state(card());
    let _ = axum::serve(listener, router).await;
}

/// A2A over JSON-RPC: every message gets the same good weather.
async fn answer(Json(request): Json<Value>) -> Json<Value> {
    let id = request.get("id").cloned().unwrap_or_default();
    Json(match request.get("method").and_then(Value::as_str) {
        Some("message/send") => json!({"jsonrpc": "2.0", "id": id, "result": {
            "kind": "message",
            "messageId": format!("answer-{id}"),
            "role": "agent",
            "parts": [{"kind": "text", "text": "Sunny, 24 °C."}],
        }}),
        _ => json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "Method not found"}}),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_speaks_a2a() {
        let Json(reply) = answer(Json(json!({"id": 1, "method": "message/send"}))).await;
        assert_eq!(reply["result"]["role"], "agent");
        let Json(reply) = answer(Json(json!({"id": 2, "method": "tasks/get"}))).await;
        assert_eq!(reply["error"]["code"], -32601);
    }
}
