{{/* What only runtime-ctl has. */}}
{{- define "runtime-ctl.prepare" -}}
{{- include "kagenti.prepare" . -}}
{{- /* It only ever binds the SCC of the sidecars. */ -}}
{{- $_ := set . "openshiftOnly" (list "rolebindings") -}}
{{- end -}}
