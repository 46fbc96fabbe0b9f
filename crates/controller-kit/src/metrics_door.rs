//! The metrics port: `GET /metrics` and nothing else (packaging §11).

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};

use crate::authz::{Access, Reviewer};
use crate::metrics::{Metrics, OPENMETRICS_CONTENT_TYPE, TEXT_CONTENT_TYPE, text_0_0_4};

#[derive(Clone)]
struct Door {
    metrics: Metrics,
    reviewer: Option<Arc<Reviewer>>,
}

/// The route of the metrics port. With a reviewer only callers it lets in get an answer.
pub fn router(metrics: Metrics, reviewer: Option<Reviewer>) -> Router {
    Router::new()
        .route("/metrics", get(scrape))
        .with_state(Door { metrics, reviewer: reviewer.map(Arc::new) })
}

async fn scrape(State(door): State<Door>, headers: HeaderMap) -> Response {
    if let Some(reviewer) = &door.reviewer {
        let access = match bearer(&headers) {
            Some(token) => reviewer.review(token).await,
            None => Access::Unauthenticated,
        };
        match access {
            Access::Allowed => {}
            Access::Unauthenticated => {
                let text = "a bearer token that the cluster accepts is needed\n";
                return (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")], text).into_response();
            }
            Access::Forbidden => {
                let text =
                    "the token's user may not get the URL /metrics: bind the metrics reader ClusterRole\n";
                return (StatusCode::FORBIDDEN, text).into_response();
            }
            Access::Unavailable => {
                let text = "callers cannot be reviewed now\n";
                return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
            }
        }
    }
    let Ok(text) = door.metrics.openmetrics() else {
        return (StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be written\n").into_response();
    };
    if accepts_openmetrics(&headers) {
        ([(CONTENT_TYPE, OPENMETRICS_CONTENT_TYPE)], text).into_response()
    } else {
        ([(CONTENT_TYPE, TEXT_CONTENT_TYPE)], text_0_0_4(&text)).into_response()
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn accepts_openmetrics(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|item| {
            let mut parts = item.split(';').map(str::trim);
            let openmetrics = parts.next() == Some("application/openmetrics-text");
            let refused = parts.any(|part| part.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0)));
            openmetrics && !refused
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5", true)]
    #[case("text/plain;version=0.0.4", false)]
    #[case("*/*", false)]
    #[case("text/plain, application/openmetrics-text; q=0", false)]
    #[case("text/plain, application/openmetrics-text; q=0.2", true)]
    fn openmetrics_is_sent_when_it_is_asked_for(#[case] accept: &str, #[case] want: bool) {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        assert_eq!(accepts_openmetrics(&headers), want);
    }

    #[rstest]
    #[case("Bearer abc", Some("abc"))]
    #[case("bearer  abc ", Some("abc"))]
    #[case("Basic abc", None)]
    #[case("Bearer ", None)]
    #[case("abc", None)]
    fn only_a_bearer_token_counts(#[case] value: &str, #[case] want: Option<&str>) {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, value.parse().unwrap());
        assert_eq!(bearer(&headers), want);
    }
}
