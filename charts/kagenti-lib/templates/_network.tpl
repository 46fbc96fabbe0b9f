{{/* A NetworkPolicy per component: deny both directions, then what its process does. */}}

{{- define "kagenti.networkPolicy" -}}
{{- $policy := .s.networkPolicy -}}
{{- if $policy.enabled }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "kagenti.metadata" (dict "ctx" . "name" .name "namespace" .root.Release.Namespace) | nindent 2 }}
spec:
  podSelector:
    matchLabels: {{- toYaml .selector | nindent 6 }}
  policyTypes: [Ingress, Egress]
  ingress:
  # Probes come from the kubelet, whose address is no Pod's.
  - ports:
    - port: 8081
      protocol: TCP
  {{- /* No sources are nobody; to Kubernetes an empty list would be everybody. */}}
  {{- if and .s.metrics.enabled $policy.metricsFrom }}
  - ports:
    - port: {{ int .metricsPort }}
      protocol: TCP
    from: {{- toYaml $policy.metricsFrom | nindent 4 }}
  {{- end }}
  {{- with .ingress }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  egress:
  - ports:
    - port: 53
      protocol: UDP
    - port: 53
      protocol: TCP
  # The API server. Its address is that of no Pod, so only ports can be named unless the user knows more.
  - ports:
    - port: 443
      protocol: TCP
    - port: 6443
      protocol: TCP
    {{- with $policy.apiServer }}
    {{- with .cidrs }}
    to:
    {{- range . }}
    - ipBlock:
        cidr: {{ . }}
    {{- end }}
    {{- end }}
    {{- end }}
  {{- with .s.otel.endpoint }}
  - ports:
    - port: {{ include "kagenti.portOf" (dict "url" . "otherwise" 4318) }}
      protocol: TCP
  {{- end }}
  {{- with .egress }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with $policy.extraEgress }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* The port of a URL. */}}
{{- define "kagenti.portOf" -}}
{{- $url := urlParse .url -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{- if $port }}{{ $port }}{{ else if eq $url.scheme "https" }}443{{ else }}{{ .otherwise }}{{ end -}}
{{- end -}}
