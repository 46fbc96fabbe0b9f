//! What a server can do, and what follows for the requests and for the agents (MLflow §3, §5.4). Pure.

use api_types::mlflow::KUBERNETES_AUTH;
use serde::Deserialize;

use super::answers::{Answer, Code, Problem};
use crate::settings::{TrackingAuth, Workspaces};

/// What `server-info` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// `workspaces_enabled`; `None` = the server has no such endpoint.
    pub workspaces: Option<bool>,
    /// `tracking_auth`, when it is not empty.
    pub auth: Option<String>,
}

#[derive(Deserialize)]
struct ServerInfo {
    workspaces_enabled: bool,
    #[serde(default)]
    tracking_auth: Option<String>,
}

impl Capabilities {
    /// Reads the answer; a server without the endpoint has no capabilities.
    ///
    /// # Errors
    /// What would fail for any other request too.
    pub fn read(answer: Answer) -> Result<Self, Problem> {
        match answer {
            Answer::Success(body) => {
                if body.get("store_type").is_some_and(serde_json::Value::is_null) {
                    let text =
                        "the server only serves artifacts (store_type is null): name a tracking server";
                    return Err(Problem::new(Code::NotATrackingServer, text));
                }
                let info: Option<ServerInfo> = serde_json::from_value(body).ok();
                Ok(info.map_or_else(Self::default, |info| Self {
                    workspaces: Some(info.workspaces_enabled),
                    auth: info.tracking_auth.filter(|auth| !auth.trim().is_empty()),
                }))
            }
            Answer::Problem(problem)
                if !matches!(problem.code, Code::UnexpectedResponse | Code::RequestRejected) =>
            {
                Err(problem)
            }
            Answer::Problem(_) | Answer::Missing | Answer::AlreadyExists | Answer::FeatureDisabled => {
                Ok(Self::default())
            }
        }
    }
}

/// How a server is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Requests name the namespace as workspace.
    pub workspaces: bool,
    /// Value of `MLFLOW_TRACKING_AUTH`; `None` = no variable, no Role.
    pub auth: Option<String>,
}

/// True when the flags leave something to the server.
pub fn must_ask(workspaces: Workspaces, auth: &TrackingAuth) -> bool {
    match workspaces {
        Workspaces::Auto => true,
        Workspaces::Always => false,
        Workspaces::Never => *auth == TrackingAuth::Auto,
    }
}

/// How to use a server; `fixed` = it was named by `--mlflow-tracking-uri`.
pub fn usage(workspaces: Workspaces, auth: &TrackingAuth, server: &Capabilities, fixed: bool) -> Usage {
    let workspaces = match workspaces {
        Workspaces::Always => true,
        Workspaces::Never => false,
        // Servers of the MLflow operator had workspaces before they could say so.
        Workspaces::Auto => server.workspaces.unwrap_or(!fixed),
    };
    let auth = match auth {
        TrackingAuth::None => None,
        TrackingAuth::Value(value) => Some(value.clone()),
        TrackingAuth::Auto if workspaces => Some(KUBERNETES_AUTH.to_owned()),
        TrackingAuth::Auto => server.auth.clone(),
    };
    Usage { workspaces, auth }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    #[rstest]
    #[case(json!({"store_type": "sql", "workspaces_enabled": true}), Some((Some(true), None)))]
    #[case(json!({"store_type": "sql", "workspaces_enabled": false, "tracking_auth": ""}), Some((Some(false), None)))]
    #[case(json!({"workspaces_enabled": false, "tracking_auth": "x"}), Some((Some(false), Some("x"))))]
    #[case(json!({"store_type": null, "workspaces_enabled": false}), None)]
    #[case(json!({"hello": 1}), Some((None, None)))]
    #[case(json!([]), Some((None, None)))]
    fn server_info(#[case] body: Value, #[case] want: Option<(Option<bool>, Option<&str>)>) {
        let read = Capabilities::read(Answer::Success(body)).ok();
        assert_eq!(read.as_ref().map(|c| (c.workspaces, c.auth.as_deref())), want);
    }

    /// Older servers answer with HTML; a server that refuses us refuses everything else too.
    #[test]
    fn absent_is_not_refused() {
        let of = |code| Capabilities::read(Answer::Problem(Problem::new(code, "x")));
        assert_eq!(of(Code::UnexpectedResponse), Ok(Capabilities::default()));
        for code in [Code::Unauthenticated, Code::HostRejected, Code::ServerUnavailable, Code::TlsError] {
            assert_eq!(of(code).unwrap_err().code, code);
        }
    }

    /// MLflow §5.4 and `--mlflow-tracking-auth`.
    #[rstest]
    #[case::auto_on(Workspaces::Auto, TrackingAuth::Auto, Some(true), None, true, (true, Some(KUBERNETES_AUTH)))]
    #[case::auto_off(Workspaces::Auto, TrackingAuth::Auto, Some(false), None, false, (false, None))]
    #[case::advertised(Workspaces::Auto, TrackingAuth::Auto, Some(false), Some("x"), false, (false, Some("x")))]
    #[case::old_by_object(Workspaces::Auto, TrackingAuth::Auto, None, None, false, (true, Some(KUBERNETES_AUTH)))]
    #[case::old_by_flag(Workspaces::Auto, TrackingAuth::Auto, None, None, true, (false, None))]
    #[case::always(Workspaces::Always, TrackingAuth::Auto, Some(false), None, true, (true, Some(KUBERNETES_AUTH)))]
    #[case::never(Workspaces::Never, TrackingAuth::Auto, Some(true), Some("x"), false, (false, Some("x")))]
    #[case::none(Workspaces::Always, TrackingAuth::None, None, None, false, (true, None))]
    #[case::value(Workspaces::Never, TrackingAuth::Value("v".into()), None, None, false, (false, Some("v")))]
    fn usages(
        #[case] workspaces: Workspaces,
        #[case] auth: TrackingAuth,
        #[case] enabled: Option<bool>,
        #[case] advertised: Option<&str>,
        #[case] fixed: bool,
        #[case] want: (bool, Option<&str>),
    ) {
        let server = Capabilities { workspaces: enabled, auth: advertised.map(str::to_owned) };
        let usage = usage(workspaces, &auth, &server, fixed);
        assert_eq!((usage.workspaces, usage.auth.as_deref()), want);
    }
}
