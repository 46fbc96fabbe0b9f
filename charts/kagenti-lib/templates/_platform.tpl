{{/*
The two ConfigMaps of the suite. Their text goes into the configuration hash of every enrolled workload: toYaml sorts
the keys, and a release may not add any, so an upgrade that changes nothing restarts nobody. `defaults`, `featureGates`.
*/}}
{{- define "kagenti.platformConfig" -}}
{{- $release := .ctx.root.Release.Namespace }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  {{- include "kagenti.metadata" (dict "ctx" .ctx "name" "kagenti-platform-config" "namespace" $release "labels" (dict "app.kubernetes.io/component" "platform-defaults")) | nindent 2 }}
data:
  config.yaml: |
    {{- toYaml .defaults | nindent 4 }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  {{- include "kagenti.metadata" (dict "ctx" .ctx "name" "kagenti-feature-gates" "namespace" $release "labels" (dict "app.kubernetes.io/component" "feature-gates")) | nindent 2 }}
data:
  feature-gates.yaml: |
    {{- toYaml .featureGates | nindent 4 }}
{{- end -}}

{{/* The same for a component that is installed alone with platformConfig.create=true. */}}
{{- define "kagenti.ownPlatformConfig" -}}
{{- with .s.platformConfig -}}
{{- if .create }}{{ include "kagenti.platformConfig" (dict "ctx" $ "defaults" .defaults "featureGates" .featureGates) }}{{ end -}}
{{- end -}}
{{- end -}}
