//! Where the credentials of a Pod come from: exactly one source (webhook §11.3, split §4).

use super::{Inputs, Layout, PriorInjection, Registration, Warning, WarningCode};
use crate::{credentials, names::label};

/// Result of [`registration_source`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistrationChoice {
    /// The source.
    pub registration: Registration,
    /// The container `kagenti-client-registration` is to be added.
    pub container: bool,
    /// The Secret to mount.
    pub secret: Option<String>,
    /// The annotation that names it is to be written.
    pub sets_annotation: bool,
    /// What the user should know.
    pub warnings: Vec<Warning>,
}

/// The credentials of a Pod that is eligible for injection (split §4, "Where credentials come from"), on the
/// first pass and on reinvocation. After an injection ([`PriorInjection`]) nothing new is ever added.
pub fn registration_source(inputs: &Inputs<'_>, layout: Layout) -> RegistrationChoice {
    let pod = &inputs.pod;
    let first_pass = pod.containers.prior == PriorInjection::None;
    let annotated = pod.credentials_annotation();
    if in_pod(inputs, layout) {
        return in_pod_source(inputs, annotated, first_pass);
    }
    let asks = asks(inputs);
    let mut choice = RegistrationChoice::default();
    if asks && layout == Layout::Combined {
        choice.warnings.push(Warning::new(
            WarningCode::LegacyRegistrarLabel,
            "label kagenti.io/client-registration-inject: \"true\" selects a sidecar that layout combined does not \
             have: the pod gets no credentials from the platform; drop the label",
        ));
    }
    if let Some(name) = annotated {
        choice.registration =
            if credentials::is_operator_secret(name) { Registration::Operator } else { Registration::User };
        choice.secret = Some(name.to_owned());
    } else if first_pass
        && !asks
        && inputs.cluster.gates.client_registration
        && inputs.namespace.authbridge.can_register()
    {
        choice.registration = Registration::Operator;
        choice.secret = Some(credentials::secret_name(inputs.namespace.name, pod.workload));
        choice.sets_annotation = true;
    }
    choice
}

fn asks(inputs: &Inputs<'_>) -> bool {
    inputs.pod.label(label::CLIENT_REGISTRATION_INJECT) == Some("true")
}

/// The rows of the table with label `"true"` and the gate on.
fn in_pod(inputs: &Inputs<'_>, layout: Layout) -> bool {
    layout == Layout::Split && inputs.cluster.gates.client_registration && asks(inputs)
}

/// `authbridge-config` tells the container where Keycloak is.
fn knows_keycloak(inputs: &Inputs<'_>) -> bool {
    inputs.namespace.authbridge.token_url().is_some() || inputs.namespace.authbridge.can_register()
}

/// Row `none` of the table: registration in the Pod is asked for and cannot work.
pub(super) fn without_keycloak(inputs: &Inputs<'_>, layout: Layout) -> bool {
    in_pod(inputs, layout)
        && inputs.pod.credentials_annotation().is_none_or(credentials::is_operator_secret)
        && !knows_keycloak(inputs)
}

fn in_pod_source(inputs: &Inputs<'_>, annotated: Option<&str>, first_pass: bool) -> RegistrationChoice {
    let mut choice = RegistrationChoice::default();
    let mut warn = |code: WarningCode, message: String| choice.warnings.push(Warning::new(code, message));
    if let Some(name) = annotated.filter(|name| !credentials::is_operator_secret(name)) {
        warn(
            WarningCode::UserSecretWins,
            format!(
                "annotation kagenti.io/keycloak-client-credentials-secret-name names Secret {name}: it is mounted, \
                 and label kagenti.io/client-registration-inject has no effect"
            ),
        );
        choice.registration = Registration::User;
        choice.secret = Some(name.to_owned());
        return choice;
    }
    if !knows_keycloak(inputs) {
        warn(
            WarningCode::RegistrationWithoutKeycloak,
            format!(
                "no kagenti-client-registration: ConfigMap authbridge-config in namespace {} has neither TOKEN_URL \
                 nor KEYCLOAK_URL and KEYCLOAK_REALM",
                inputs.namespace.name
            ),
        );
        return choice;
    }
    if inputs.pod.containers.own_registration {
        warn(
            WarningCode::OwnRegistration,
            "the pod brings its own container kagenti-client-registration: none is added".into(),
        );
    } else {
        choice.container = first_pass;
    }
    if let Some(name) = annotated {
        choice.warnings.push(Warning::new(
            WarningCode::LeftoverCredentials,
            format!(
                "annotation kagenti.io/keycloak-client-credentials-secret-name ({name}) is left over and not used: \
                 the pod registers itself; remove it from the pod template"
            ),
        ));
    }
    choice.registration = Registration::Sidecar;
    choice
}
