{{/* Rules between components, and values of the previous chart. All findings are shown together. */}}
{{- define "suite.validate" -}}
{{- $ctx := dict "root" . -}}
{{- include "suite.prepare" $ctx -}}
{{- $_ := set $ctx "component" .Chart.Name -}}
{{- $on := .Subcharts -}}
{{- if hasKey $on "netpol-ctl" -}}
{{- $netpol := dict -}}
{{- include "kagenti.own" (dict "root" (get $on "netpol-ctl") "into" $netpol) -}}
{{- if and (ne (toString $netpol.enforceNetworkPolicies) "false") (hasKey $on "card-ctl") -}}
{{- $card := dict -}}
{{- include "kagenti.own" (dict "root" (get $on "card-ctl") "into" $card) -}}
{{- if not (or $card.verifiedFetch.enabled $card.signatureVerification.enabled $card.sigstore.enabled) -}}
{{- include "kagenti.finding" (dict "ctx" $ctx "text" "netpol-ctl.enabled=true isolates every agent while card-ctl can verify none: set card-ctl.verifiedFetch.enabled=true or card-ctl.signatureVerification.enabled=true (or netpol-ctl.enforceNetworkPolicies=false)") -}}
{{- end -}}
{{- if and $card.signatureVerification.enabled $card.signatureVerification.auditMode (not $netpol.enforceDuringAudit) -}}
{{- include "kagenti.finding" (dict "ctx" $ctx "text" "card-ctl.signatureVerification.auditMode=true with netpol-ctl on: agents that only audited fail to reach the isolated ones; set netpol-ctl.enforceNetworkPolicies=false, or netpol-ctl.enforceDuringAudit=true if that is meant") -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (ne .Values.uninstall.cleanup "none") (not (hasKey $on "runtime-ctl")) -}}
{{- include "kagenti.finding" (dict "ctx" $ctx "text" "uninstall.cleanup=unenroll is the work of runtime-ctl: set runtime-ctl.enabled=true or uninstall.cleanup=none") -}}
{{- end -}}
{{- range include "suite.components" . | fromYamlArray -}}
{{- $values := get $.Values . -}}
{{- if $values.platformConfig -}}
{{- if $values.platformConfig.create -}}
{{- include "kagenti.finding" (dict "ctx" $ctx "text" (printf "%s.platformConfig.create=true: in the umbrella the ConfigMaps are made from `defaults` and `featureGates`; remove it" .)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with get $on "kagenti-crds-agent" -}}
{{- $crds := dict -}}
{{- include "kagenti.own" (dict "root" . "into" $crds) -}}
{{- if and (not $crds.keep) (ne $.Values.uninstall.cleanup "unenroll") -}}
{{- include "kagenti.finding" (dict "ctx" $ctx "text" "kagenti-crds-agent.keep=false deletes every agent on uninstall and needs uninstall.cleanup=unenroll, so that their workloads are released first: set it too, or leave keep at true") -}}
{{- end -}}
{{- end -}}
{{- range $name := list "agent-ctl" "tekton-build-ctl" "gateway-ctl" "kagent-ctl" "bundle-service" "kagenti-crds-gateway" "kagenti-crds-kagent" -}}
{{- with get $.Values $name -}}
{{- if or (not (kindIs "map" .)) .enabled -}}
{{- include "kagenti.finding" (dict "ctx" $ctx "text" (printf "%s: this release does not have it; set %s.enabled=false or remove the key" $name $name)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.prometheusRule.enabled (not $ctx.s.prometheus.skipApiCheck) (not (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1")) -}}
{{- include "kagenti.finding" (dict "ctx" $ctx "text" "prometheusRule.enabled=true, but the cluster does not serve monitoring.coreos.com/v1: install the CRDs of the Prometheus operator first, or set global.prometheus.skipApiCheck=true") -}}
{{- end -}}
{{- if .Chart.IsRoot }}{{ include "kagenti.checkGlobal" $ctx }}{{ end -}}
{{- include "suite.legacy" $ctx -}}
{{- include "kagenti.report" $ctx -}}
{{- end -}}
