{{/* What belongs to no single component. */}}

{{/* The components this release has. */}}
{{- define "suite.components" -}}
- runtime-ctl
- card-ctl
- netpol-ctl
- mlflow-ctl
- authbridge-webhook
- client-registration-ctl
{{- end -}}

{{/* Fills the dict it is given for objects of the suite: global values only, component `suite`. */}}
{{- define "suite.prepare" -}}
{{- $_ := set . "as" "suite" -}}
{{- $_ := set . "own" dict -}}
{{- include "kagenti.prepare" . -}}
{{- end -}}

{{/*
A ClusterRole that tools know by its bare name: that name while nobody else owns it, else with release and namespace.
`ctx`, `name`.
*/}}
{{- define "suite.knownName" -}}
{{- $root := .ctx.root -}}
{{- $live := lookup "rbac.authorization.k8s.io/v1" "ClusterRole" "" .name -}}
{{- $free := not $live -}}
{{- if $live -}}
{{- with $live.metadata.annotations -}}
{{- $free = and (eq (get . "meta.helm.sh/release-name") $root.Release.Name) (eq (get . "meta.helm.sh/release-namespace") $root.Release.Namespace) -}}
{{- end -}}
{{- end -}}
{{- if $free }}{{ .name }}{{ else }}{{ include "kagenti.wide" (dict "root" $root "stem" .name) }}{{ end -}}
{{- end -}}
