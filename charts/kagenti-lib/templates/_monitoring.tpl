{{/* Metrics: the Service, its certificate, and who scrapes it. */}}

{{/* Sets metricsTls: secret ("" = the program makes its own certificate at start), certificate (cert-manager makes it). */}}
{{- define "kagenti.metricsTls" -}}
{{- $tls := dict -}}
{{- if .s.metrics.tls }}{{ $tls = .s.metrics.tls }}{{ end -}}
{{- $result := dict "secret" "" "certificate" false -}}
{{- if and .secure .s.metrics.enabled -}}
{{- if $tls.existingSecret -}}
{{- $_ := set $result "secret" $tls.existingSecret -}}
{{- else -}}
{{- $wanted := and .s.prometheus.enabled (.root.Capabilities.APIVersions.Has "cert-manager.io/v1") -}}
{{- if hasKey $tls "certManager" }}{{ $wanted = $tls.certManager }}{{ end -}}
{{- if $wanted -}}
{{- $_ := set $result "secret" (printf "%s-metrics-cert" .name) -}}
{{- $_ := set $result "certificate" true -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $_ := set . "metricsTls" $result -}}
{{- end -}}

{{- define "kagenti.metricsService" -}}
{{- if .s.metrics.enabled }}
---
apiVersion: v1
kind: Service
metadata:
  {{- include "kagenti.metadata" (dict "ctx" . "name" (printf "%s-metrics" .name) "namespace" .root.Release.Namespace "labels" (dict "kagenti.io/service" "metrics")) | nindent 2 }}
spec:
  clusterIP: None
  # A process that is not ready is the one to look at; and `helm test` finds every replica here.
  publishNotReadyAddresses: true
  selector: {{- toYaml .selector | nindent 4 }}
  ports:
  - name: {{ ternary "https" "http" .secure }}
    port: {{ int .metricsPort }}
    targetPort: metrics
{{- end }}
{{- end -}}

{{- define "kagenti.metricsCertificate" -}}
{{- if .metricsTls.certificate }}
{{- $service := printf "%s-metrics.%s.svc" .name .root.Release.Namespace }}
---
apiVersion: cert-manager.io/v1
kind: Issuer
metadata:
  {{- include "kagenti.metadata" (dict "ctx" . "name" (printf "metrics-selfsigned-%s-%s" .component .root.Release.Name) "namespace" .root.Release.Namespace) | nindent 2 }}
spec:
  selfSigned: {}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata:
  {{- include "kagenti.metadata" (dict "ctx" . "name" (printf "metrics-certs-%s-%s" .component .root.Release.Name) "namespace" .root.Release.Namespace) | nindent 2 }}
spec:
  secretName: {{ .metricsTls.secret }}
  dnsNames:
  - {{ $service }}
  - {{ $service }}.{{ .s.clusterDomain }}
  issuerRef:
    kind: Issuer
    name: {{ printf "metrics-selfsigned-%s-%s" .component .root.Release.Name }}
  privateKey:
    algorithm: ECDSA
    size: 256
    rotationPolicy: Always
{{- end }}
{{- end -}}

{{/* One ServiceMonitor or PodMonitor for this component alone. */}}
{{- define "kagenti.monitor" -}}
{{- $prometheus := .s.prometheus -}}
{{- if and $prometheus.enabled .s.metrics.enabled }}
{{- $pods := eq $prometheus.kind "PodMonitor" }}
---
apiVersion: monitoring.coreos.com/v1
kind: {{ $prometheus.kind }}
metadata:
  {{- include "kagenti.metadata" (dict "ctx" . "name" .name "namespace" .root.Release.Namespace "labels" $prometheus.labels) | nindent 2 }}
spec:
  jobLabel: app.kubernetes.io/component
  selector:
    matchLabels: {{- toYaml .selector | nindent 6 }}
      {{- if not $pods }}
      kagenti.io/service: metrics
      {{- end }}
  {{ ternary "podMetricsEndpoints" "endpoints" $pods }}:
  - port: {{ ternary "metrics" (ternary "https" "http" .secure) $pods }}
    path: /metrics
    interval: {{ $prometheus.interval }}
    scrapeTimeout: {{ $prometheus.scrapeTimeout }}
    {{- if .secure }}
    scheme: https
    bearerTokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token
    tlsConfig:
      {{- if .metricsTls.secret }}
      serverName: {{ .name }}-metrics.{{ .root.Release.Namespace }}.svc
      ca:
        secret:
          name: {{ .metricsTls.secret }}
          key: ca.crt
      {{- else }}
      # The program made its certificate itself; nobody else knows it.
      insecureSkipVerify: true
      {{- end }}
    {{- end }}
    {{- with $prometheus.relabelings }}
    relabelings: {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- with $prometheus.metricRelabelings }}
    metricRelabelings: {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
{{- end -}}
