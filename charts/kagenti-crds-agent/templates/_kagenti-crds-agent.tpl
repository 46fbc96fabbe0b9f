{{/* The Job runs the program of runtime-ctl, which brings the definitions. */}}
{{- define "kagenti-crds-agent.prepare" -}}
{{- include "kagenti.prepare" . -}}
{{- $_ := set . "wide" (include "kagenti.wide" (dict "root" .root "stem" "kagenti-crds-agent")) -}}
{{- $image := dict -}}
{{- if .root.Values.image }}{{ $image = .root.Values.image }}{{ end -}}
{{- if not $image.repository }}{{ $_ := set .s.image "repository" (.s.image.repository | trimSuffix "kagenti-crds-agent" | printf "%sruntime-ctl") }}{{ end -}}
{{- if and (not $image.digest) (hasKey .s.digests "runtime-ctl") }}{{ $_ := set .s.image "digest" (get .s.digests "runtime-ctl") }}{{ end -}}
{{- $key := ternary "keep" "kagenti-crds-agent.keep" .root.Chart.IsRoot -}}
{{- if and (not .s.keep) .namespaced -}}
{{- include "kagenti.finding" (dict "ctx" . "text" (printf "%s=false deletes definitions of the whole cluster, which a release with watchNamespaces has no right to: leave it true" $key)) -}}
{{- end -}}
{{- if .root.Chart.IsRoot }}{{ include "kagenti.checkGlobal" . }}{{ end -}}
{{- end -}}
