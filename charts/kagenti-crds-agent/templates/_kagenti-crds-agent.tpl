{{/* The Job runs the program of runtime-ctl, which brings the definitions. */}}
{{- define "kagenti-crds-agent.prepare" -}}
{{- include "kagenti.prepare" . -}}
{{- $_ := set . "wide" (include "kagenti.wide" (dict "root" .root "stem" "kagenti-crds-agent")) -}}
{{- $image := dict -}}
{{- if .root.Values.image }}{{ $image = .root.Values.image }}{{ end -}}
{{- if not $image.repository }}{{ $_ := set .s.image "repository" (.s.image.repository | trimSuffix "kagenti-crds-agent" | printf "%sruntime-ctl") }}{{ end -}}
{{- if and (not $image.digest) (hasKey .s.digests "runtime-ctl") }}{{ $_ := set .s.image "digest" (get .s.digests "runtime-ctl") }}{{ end -}}
{{- $key := ternary "keep" "kagenti-crds-agent.keep" .root.Chart.IsRoot -}}
{{- if not .s.keep -}}
{{- include "kagenti.finding" (dict "ctx" . "text" (printf "%s=false: this release does not delete definitions on uninstall; leave it true and delete them by hand" $key)) -}}
{{- end -}}
{{- if .root.Chart.IsRoot }}{{ include "kagenti.checkGlobal" . }}{{ end -}}
{{- end -}}
