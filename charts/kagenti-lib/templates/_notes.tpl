{{/* What a component that was installed alone says at the end. */}}
{{- define "kagenti.notes" -}}
{{ .component }} {{ .root.Chart.AppVersion }} runs as Deployment {{ .name }} in namespace {{ .root.Release.Namespace }}.
{{- if .namespaced }}
It works in {{ join ", " .namespaces }} only, with Roles and without any right on the cluster.
{{- else }}
It works in the whole cluster.
{{- end }}
{{- range .notes }}
{{ . }}
{{- end }}

  kubectl -n {{ .root.Release.Namespace }} rollout status deployment/{{ .name }}
  helm test {{ .root.Release.Name }} -n {{ .root.Release.Namespace }}
{{- end -}}
