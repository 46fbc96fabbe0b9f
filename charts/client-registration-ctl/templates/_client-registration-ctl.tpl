{{/* What only client-registration-ctl has. */}}
{{- define "client-registration-ctl.prepare" -}}
{{- include "kagenti.prepare" . -}}
{{- $s := .s -}}
{{- $keycloak := $s.keycloak -}}
{{- $flags := dict "keycloak-realm" $keycloak.realm "keycloak-url" $keycloak.url "watch-secrets" $s.watchSecrets -}}
{{- $_ := set $flags "keycloak-admin-secret-name" $keycloak.adminSecretName -}}
{{- with $keycloak.adminSecretNamespace -}}
{{- $_ := set $flags "keycloak-admin-secret-namespace" . -}}
{{- $_ := set $.named "keycloak" . -}}
{{- $_ := set $ "explicit" (append $.explicit .) -}}
{{- end -}}
{{- with $keycloak.adminSecretName }}{{ $_ := set $.renames "keycloak-initial-admin" . }}{{ end -}}
{{- if not $s.watchSecrets }}{{ $_ := set . "withoutVerbs" (dict "secrets" (list "list" "watch")) }}{{ end -}}
{{- $_ := set $flags "enable-authbridge-config" $s.authbridgeConfig.enabled -}}
{{- $_ := set $flags "client-auth-type" $s.authbridgeConfig.clientAuthType -}}
{{- $_ := set $flags "credential-wait-timeout" $s.authbridgeConfig.credentialWaitTimeout -}}
{{- $_ := set . "usesTrustedCA" true -}}
{{- include "kagenti.mountTrustedCA" . -}}
{{- if .caConfigMap }}{{ $_ := set $flags "keycloak-ca-file" (printf "/etc/kagenti/trusted-ca/%s" $s.trustedCA.key) }}{{ end -}}
{{- include "kagenti.flags" (dict "ctx" . "flags" $flags) -}}

{{- with $keycloak.publicUrl }}{{ $_ := set $ "env" (append $.env (dict "name" "KAGENTI_KEYCLOAK_PUBLIC_URL" "value" .)) }}{{ end -}}
{{- with $s.spireTrustDomain }}{{ $_ := set $ "env" (append $.env (dict "name" "KAGENTI_SPIRE_TRUST_DOMAIN" "value" .)) }}{{ end -}}
{{- with $s.spireNamespace -}}
{{- $_ := set $ "env" (append $.env (dict "name" "KAGENTI_SPIRE_NAMESPACE" "value" .)) -}}
{{- $_ := set $.named "zero-trust-workload-identity-manager" . -}}
{{- $_ := set $ "explicit" (append $.explicit .) -}}
{{- end -}}

{{- $ports := list (dict "port" (include "kagenti.portOf" (dict "url" $keycloak.url "otherwise" 8080) | int) "protocol" "TCP") -}}
{{- if not $keycloak.url }}{{ $ports = append $ports (dict "port" 8443 "protocol" "TCP") }}{{ end -}}
{{- $_ := set . "egress" (append .egress (dict "ports" $ports)) -}}
{{- if .namespaced -}}
{{- $where := "keycloak" -}}
{{- with $keycloak.adminSecretNamespace }}{{ $where = . }}{{ end -}}
{{- if not (include "kagenti.hasNamed" (dict "ctx" . "namespace" $where)) -}}
{{- $_ := set . "notes" (append .notes (printf "Ask an administrator for a Role in namespace %s: get, list, watch on Secret %s for ServiceAccount %s/%s." $where $keycloak.adminSecretName .root.Release.Namespace .serviceAccount)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
