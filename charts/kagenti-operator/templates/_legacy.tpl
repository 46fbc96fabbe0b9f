{{- define "suite.legacy" -}}{{- end -}}
