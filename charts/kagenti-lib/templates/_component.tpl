{{/*
Everything a component consists of. A component's chart fills a dict with its `<component>.prepare`, which begins with
kagenti.prepare, and hands it to this template.
*/}}
{{- define "kagenti.component" -}}
{{- include "kagenti.checks" . -}}
{{- include "kagenti.report" . -}}
{{- include "kagenti.serviceAccount" . }}
{{- include "kagenti.rbac" . }}
{{- include "kagenti.deployment" . }}
{{- include "kagenti.disruption" . }}
{{- include "kagenti.autoscaler" . }}
{{- include "kagenti.metricsService" . }}
{{- include "kagenti.metricsCertificate" . }}
{{- include "kagenti.monitor" . }}
{{- include "kagenti.networkPolicy" . }}
{{- include "kagenti.trustedCAConfigMap" . }}
{{- if .root.Chart.IsRoot }}{{ include "kagenti.testPod" . }}{{ end }}
{{- end -}}
