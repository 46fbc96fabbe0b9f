{{/* What only authbridge-webhook has: a port of its own, certificates, two configurations. */}}
{{- define "authbridge-webhook.prepare" -}}
{{- include "kagenti.prepare" . -}}
{{- $s := .s -}}
{{- $own := ternary "" "authbridge-webhook." .root.Chart.IsRoot -}}
{{- $served := .root.Capabilities.APIVersions.Has "cert-manager.io/v1" -}}
{{- $mode := $s.tls.mode -}}
{{- if eq $mode "auto" }}{{ $mode = ternary "cert-manager" "self-signed" $served }}{{ end -}}
{{- $_ := set . "tlsMode" $mode -}}
{{- $secret := "kagenti-operator-webhook-server-cert" -}}
{{- if eq $mode "files" }}{{ $secret = $s.tls.existingSecret }}{{ end -}}
{{- $_ := set . "tlsSecret" $secret -}}
{{- $configurations := not .namespaced -}}
{{- if hasKey $s "createConfigurations" }}{{ $configurations = $s.createConfigurations }}{{ end -}}
{{- $_ := set . "configurations" $configurations -}}
{{- if gt (len .fullname) 47 -}}
{{- include "kagenti.finding" (dict "ctx" . "text" (printf "%s-webhook-service is longer than the 63 characters of a Service's name: install under a release name of at most 24 characters, or set global.fullnameOverride to one of at most 47" .fullname)) -}}
{{- end -}}
{{- if and (eq $mode "self-signed") .namespaced $configurations -}}
{{- include "kagenti.finding" (dict "ctx" . "text" (printf "%screateConfigurations=true with watchNamespaces: the webhook has no right to publish its own authority, so every call of the API server would fail; set %stls.mode=files with %stls.caBundle, or tls.mode=cert-manager" $own $own $own)) -}}
{{- end -}}
{{- if and (eq $mode "cert-manager") (not $served) (not $s.tls.skipApiCheck) -}}
{{- include "kagenti.finding" (dict "ctx" . "text" (printf "%stls.mode=cert-manager, but the cluster does not serve cert-manager.io/v1: install cert-manager first, set %stls.mode=self-signed, or %stls.skipApiCheck=true" $own $own $own)) -}}
{{- end -}}
{{- if and (eq $mode "files") (not $s.tls.existingSecret) -}}
{{- include "kagenti.finding" (dict "ctx" . "text" (printf "%stls.mode=files needs the Secret in %stls.existingSecret" $own $own)) -}}
{{- end -}}
{{- range $key, $of := dict "agents" "agent-ctl" "agentBuilds" "tekton-build-ctl" "gateway" "gateway-ctl" -}}
{{- if get $s.validators $key -}}
{{- include "kagenti.finding" (dict "ctx" $ "text" (printf "%svalidators.%s=true: this release has no %s" $own $key $of)) -}}
{{- end -}}
{{- end -}}

{{- $flags := dict "webhook-bind-address" (printf ":%d" (int $s.port)) "webhook-fullname" .fullname -}}
{{- $_ := set $flags "enable-http2" $s.http2 -}}
{{- $_ := set $flags "cluster-domain" $s.clusterDomain -}}
{{- $_ := set $flags "config-path" "/etc/kagenti/config.yaml" -}}
{{- $_ := set $flags "feature-gates-path" "/etc/kagenti/feature-gates/feature-gates.yaml" -}}
{{- if eq $mode "self-signed" -}}
{{- $_ := set $flags "webhook-cert-secret" $secret -}}
{{- $_ := set $flags "webhook-publish-ca" $configurations -}}
{{- $_ := set $flags "webhook-ca-lifetime" $s.tls.selfSigned.caLifetime -}}
{{- $_ := set $flags "webhook-cert-lifetime" $s.tls.selfSigned.certLifetime -}}
{{- $_ := set $flags "webhook-ca-overlap" $s.tls.selfSigned.caOverlap -}}
{{- else -}}
{{- $_ := set $flags "webhook-cert-path" "/tmp/k8s-webhook-server/serving-certs" -}}
{{- $_ := set . "volumes" (append .volumes (dict "name" "serving-cert" "secret" (dict "secretName" $secret))) -}}
{{- $_ := set . "volumeMounts" (append .volumeMounts (dict "name" "serving-cert" "mountPath" "/tmp/k8s-webhook-server/serving-certs" "readOnly" true)) -}}
{{- end -}}
{{- include "kagenti.flags" (dict "ctx" . "flags" $flags) -}}

{{- /* Optional: without the ConfigMaps what is compiled in holds. The process watches the files, nothing restarts. */ -}}
{{- range $name, $path := dict "kagenti-platform-config" "/etc/kagenti" "kagenti-feature-gates" "/etc/kagenti/feature-gates" -}}
{{- $_ := set $ "volumes" (append $.volumes (dict "name" $name "configMap" (dict "name" $name "optional" true))) -}}
{{- $_ := set $ "volumeMounts" (append $.volumeMounts (dict "name" $name "mountPath" $path "readOnly" true)) -}}
{{- end -}}
{{- $_ := set . "ports" (append .ports (dict "name" "webhook-server" "containerPort" (int $s.port))) -}}

{{- $_ := set .renames "kagenti-operator-mutating-webhook-configuration" (printf "%s-mutating-webhook-configuration" .fullname) -}}
{{- $_ := set .renames "kagenti-operator-validating-webhook-configuration" (printf "%s-validating-webhook-configuration" .fullname) -}}
{{- if $s.critical }}{{ $_ := set $s "priorityClassName" "system-cluster-critical" }}{{ end -}}
{{- if not $s.affinity -}}
{{- $term := dict "topologyKey" "kubernetes.io/hostname" "labelSelector" (dict "matchLabels" .selector) -}}
{{- $preferred := list (dict "weight" 100 "podAffinityTerm" $term) -}}
{{- $_ := set $s "affinity" (dict "podAntiAffinity" (dict "preferredDuringSchedulingIgnoredDuringExecution" $preferred)) -}}
{{- end -}}
{{- /* The port of the Pod, not that of the Service: policies are about Pods. */ -}}
{{- $rule := dict "ports" (list (dict "port" (int $s.port) "protocol" "TCP")) -}}
{{- with $s.networkPolicy.webhookFrom }}{{ $_ := set $rule "from" . }}{{ end -}}
{{- $_ := set . "ingress" (append .ingress $rule) -}}
{{- $_ := set . "notes" (append .notes (printf "Its certificate: mode %s, Secret %s." $mode $secret)) -}}
{{- if not $configurations -}}
{{- $_ := set . "notes" (append .notes "It serves, but registers nothing: an administrator applies the two webhook configurations (docs/namespaced.md).") -}}
{{- end -}}
{{- if has .root.Release.Namespace .namespaces -}}
{{- $_ := set . "notes" (append .notes (printf "Pods in %s get no sidecars, because it is the webhook's own namespace: install it in another one." .root.Release.Namespace)) -}}
{{- end -}}
{{- end -}}

{{/* How the API server reaches the webhook: `path`. */}}
{{- define "authbridge-webhook.client" -}}
clientConfig:
  service:
    name: {{ .ctx.fullname }}-webhook-service
    namespace: {{ .ctx.root.Release.Namespace }}
    path: {{ .path }}
    port: 443
  {{- if eq .ctx.tlsMode "files" }}
  {{- with .ctx.s.tls.caBundle }}
  caBundle: {{ . }}
  {{- end }}
  {{- end }}
{{- end -}}
