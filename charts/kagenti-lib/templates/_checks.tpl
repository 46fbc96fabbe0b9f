{{/* Rules between values that a schema cannot say. All findings of a chart are shown together. */}}

{{- define "kagenti.finding" -}}
{{- $_ := set .ctx "findings" (append .ctx.findings .text) -}}
{{- end -}}

{{/* Ends the rendering when there are findings. */}}
{{- define "kagenti.report" -}}
{{- if .findings -}}
{{- fail (printf "\n\n%s cannot be rendered with these values:\n  - %s\n" .component (join "\n  - " .findings)) -}}
{{- end -}}
{{- end -}}

{{/* The path of a key of this component, as the user writes it: alone without the component's name. */}}
{{- define "kagenti.key" -}}
{{- ternary "" (printf "%s." .ctx.component) .ctx.root.Chart.IsRoot }}{{ .key -}}
{{- end -}}

{{- define "kagenti.checks" -}}
{{- $s := .s -}}
{{- $own := ternary "" (printf "%s." .component) .root.Chart.IsRoot -}}
{{- if and $s.pdb $s.pdb.enabled -}}
{{- $limits := list -}}
{{- range list "minAvailable" "maxUnavailable" }}{{ if hasKey $s.pdb . }}{{ $limits = append $limits . }}{{ end }}{{ end -}}
{{- if ne (len $limits) 1 -}}
{{- include "kagenti.finding" (dict "ctx" . "text" (printf "%spdb: set exactly one of minAvailable and maxUnavailable (set the other one to null), or %spdb.enabled=false" $own $own)) -}}
{{- end -}}
{{- end -}}
{{- with $s.autoscaling -}}
{{- if and .enabled (lt (int .maxReplicas) (int .minReplicas)) -}}
{{- include "kagenti.finding" (dict "ctx" $ "text" (printf "%sautoscaling.maxReplicas=%d is below %sautoscaling.minReplicas=%d: raise it" $own (int .maxReplicas) $own (int .minReplicas))) -}}
{{- end -}}
{{- end -}}
{{- if and .namespaced .secure $s.metrics.enabled -}}
{{- include "kagenti.finding" (dict "ctx" . "text" (printf "%smetrics.secure=true needs reviews by the API server, which no Role grants: with watchNamespaces leave metrics.secure unset or false" $own)) -}}
{{- end -}}
{{- if and (eq $s.rbac.mode "namespaced") (not .namespaced) -}}
{{- include "kagenti.finding" (dict "ctx" . "text" (printf "%srbac.mode=namespaced without namespaces: list them in %swatchNamespaces or global.watchNamespaces" $own $own)) -}}
{{- end -}}
{{- if and (eq $s.rbac.mode "cluster") .namespaced -}}
{{- include "kagenti.finding" (dict "ctx" . "text" (printf "%srbac.mode=cluster contradicts watchNamespaces: leave rbac.mode unset, or set %swatchNamespaces to []" $own $own)) -}}
{{- end -}}
{{- if and $s.prometheus.enabled (not $s.prometheus.skipApiCheck) (not (.root.Capabilities.APIVersions.Has "monitoring.coreos.com/v1")) -}}
{{- include "kagenti.finding" (dict "ctx" . "text" "prometheus.enabled=true, but the cluster does not serve monitoring.coreos.com/v1: install the CRDs of the Prometheus operator first, or set prometheus.skipApiCheck=true") -}}
{{- end -}}
{{- if and $s.prometheus.enabled $s.metrics.enabled .secure (eq $s.prometheus.kind "PodMonitor") -}}
{{- include "kagenti.finding" (dict "ctx" . "text" "prometheus.kind=PodMonitor cannot send the token that secure metrics ask for: use ServiceMonitor, or set metrics.secure=false") -}}
{{- end -}}
{{- if and $s.otel.endpoint (ne $s.otel.protocol "http/protobuf") -}}
{{- include "kagenti.finding" (dict "ctx" . "text" (printf "otel.protocol=%s is not built into the programs: use http/protobuf (port 4318 of most collectors)" $s.otel.protocol)) -}}
{{- end -}}
{{- if .root.Chart.IsRoot }}{{ include "kagenti.checkGlobal" . }}{{ end -}}
{{- end -}}

{{/* A key of `global` that nobody knows, when nobody above can have meant another chart by it. */}}
{{- define "kagenti.checkGlobal" -}}
{{- $ctx := . -}}
{{- $known := include "kagenti.defaults" . | fromYaml -}}
{{- range $key, $_ := .root.Values.global -}}
{{- if not (hasKey $known $key) -}}
{{- $nearest := "" -}}
{{- $best := 0 -}}
{{- range $name, $_ := $known -}}
{{- $score := include "kagenti.likeness" (list (lower $key) (lower $name)) | int -}}
{{- if gt $score $best }}{{ $best = $score }}{{ $nearest = $name }}{{ end -}}
{{- end -}}
{{- $hint := ternary (printf ": did you mean global.%s?" $nearest) ": remove it" (gt $best 2) -}}
{{- include "kagenti.finding" (dict "ctx" $ctx "text" (printf "global.%s is not known%s" $key $hint)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* How many letters two words share at their beginnings and ends. */}}
{{- define "kagenti.likeness" -}}
{{- $a := index . 0 -}}{{- $b := index . 1 -}}
{{- $shorter := min (len $a) (len $b) | int -}}
{{- $score := 0 -}}
{{- range $n := untilStep 1 (add $shorter 1 | int) 1 -}}
{{- if hasPrefix (trunc $n $a) $b }}{{ $score = $n }}{{ end -}}
{{- end -}}
{{- $front := $score -}}
{{- range $n := untilStep 1 (add (sub $shorter $front) 1 | int) 1 -}}
{{- if hasSuffix (trunc (mul -1 $n | int) $a) $b }}{{ $score = add $front $n }}{{ end -}}
{{- end -}}
{{- $score -}}
{{- end -}}
