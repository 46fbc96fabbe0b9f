{{/* What only mlflow-ctl has. */}}
{{- define "mlflow-ctl.prepare" -}}
{{- include "kagenti.prepare" . -}}
{{- $s := .s -}}
{{- $flags := dict "enable-mlflow" true "mlflow-workspace" $s.workspace "mlflow-experiment-name" $s.experimentName -}}
{{- $_ := set $flags "mlflow-tracking-uri" $s.trackingUri -}}
{{- if $s.caConfigMap -}}
{{- $_ := set . "volumes" (append .volumes (dict "name" "mlflow-ca" "configMap" (dict "name" $s.caConfigMap))) -}}
{{- $_ := set . "volumeMounts" (append .volumeMounts (dict "name" "mlflow-ca" "mountPath" "/etc/kagenti/mlflow-ca" "readOnly" true)) -}}
{{- $_ := set $flags "mlflow-ca-file" (printf "/etc/kagenti/mlflow-ca/%s" $s.caKey) -}}
{{- else -}}
{{- $_ := set . "usesTrustedCA" true -}}
{{- include "kagenti.mountTrustedCA" . -}}
{{- if .caConfigMap }}{{ $_ := set $flags "mlflow-ca-file" (printf "/etc/kagenti/trusted-ca/%s" $s.trustedCA.key) }}{{ end -}}
{{- end -}}
{{- include "kagenti.flags" (dict "ctx" . "flags" $flags) -}}
{{- /* integration.yaml binds a role of the MLflow operator. */ -}}
{{- if and $s.clusterRole (not .namespaced) }}{{ $_ := set . "foreignGroups" (append .foreignGroups "mlflow.kubeflow.org") }}{{ end -}}
{{- /* The MLflow server, wherever it is. */ -}}
{{- $port := 5000 -}}
{{- with $s.trackingUri }}{{ $port = include "kagenti.portOf" (dict "url" . "otherwise" 80) | int }}{{ end -}}
{{- $ports := list (dict "port" $port "protocol" "TCP") -}}
{{- $_ := set . "egress" (append .egress (dict "ports" $ports)) -}}
{{- end -}}
