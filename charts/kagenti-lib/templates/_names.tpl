{{/* Names and labels. Objects of the cluster always carry release and namespace, so that two releases never collide. */}}

{{/* The prefix that the previous chart gave its Service and its webhook configurations. */}}
{{- define "kagenti.fullname" -}}
{{- if .override -}}
{{- .override | trunc 63 | trimSuffix "-" -}}
{{- else if contains "kagenti-operator-chart" .root.Release.Name -}}
{{- .root.Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-kagenti-operator-chart" .root.Release.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* `<stem>-<release>.<namespace>`; beyond 253 characters its end becomes a hash. */}}
{{- define "kagenti.wide" -}}
{{- $name := printf "%s-%s.%s" .stem .root.Release.Name .root.Release.Namespace -}}
{{- if gt (len $name) 253 -}}
{{- $name = printf "%s-%s" ($name | trunc 240) ($name | sha256sum | trunc 8) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{/* The body of `metadata`. `name`; `namespace` (none = of the cluster); `labels` and `annotations` of this object. */}}
{{- define "kagenti.metadata" -}}
{{- $ctx := .ctx -}}
{{- $labels := deepCopy $ctx.s.commonLabels -}}
{{- $chart := printf "%s-%s" $ctx.root.Chart.Name $ctx.root.Chart.Version | replace "+" "_" | trunc 63 -}}
{{- include "kagenti.overlay" (dict "dst" $labels "src" $ctx.selector) -}}
{{- $ours := dict "app.kubernetes.io/version" $ctx.root.Chart.AppVersion "app.kubernetes.io/managed-by" $ctx.root.Release.Service -}}
{{- $_ := set $ours "app.kubernetes.io/part-of" "kagenti-operator" -}}
{{- $_ := set $ours "helm.sh/chart" $chart -}}
{{- include "kagenti.overlay" (dict "dst" $labels "src" $ours) -}}
{{- with .labels }}{{ include "kagenti.overlay" (dict "dst" $labels "src" .) }}{{ end -}}
{{- $annotations := deepCopy $ctx.s.commonAnnotations -}}
{{- with .annotations }}{{ include "kagenti.overlay" (dict "dst" $annotations "src" .) }}{{ end -}}
{{- with .name -}}
name: {{ . }}
{{ end -}}
{{- with .namespace -}}
namespace: {{ . }}
{{ end -}}
labels: {{- toYaml $labels | nindent 2 }}
{{- with $annotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end -}}

{{/* `<registry>/<repository>:<tag>`, or `@<digest>`; without a tag the version of the chart. */}}
{{- define "kagenti.image" -}}
{{- $image := .s.image -}}
{{- $path := $image.repository -}}
{{- if $image.registry }}{{ $path = printf "%s/%s" $image.registry $image.repository }}{{ end -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $path $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $path (ternary $image.tag .root.Chart.AppVersion (not (empty $image.tag))) -}}
{{- end -}}
{{- end -}}
