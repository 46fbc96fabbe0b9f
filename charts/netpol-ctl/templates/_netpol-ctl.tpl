{{/* What only netpol-ctl has. */}}
{{- define "netpol-ctl.prepare" -}}
{{- include "kagenti.prepare" . -}}
{{- $s := .s -}}
{{- $flags := dict "enforce-network-policies" $s.enforceNetworkPolicies "verified-peers" $s.verifiedPeers -}}
{{- $_ := set $flags "allow-ingress-namespaces" $s.allowIngressNamespaces -}}
{{- $_ := set $flags "restrictive-allow-dns" $s.restrictiveAllowDns -}}
{{- $_ := set $flags "apiserver-cidrs" $s.apiServerCidrs -}}
{{- include "kagenti.flags" (dict "ctx" . "flags" $flags) -}}
{{- if and .namespaced (not $s.apiServerCidrs) -}}
{{- $_ := set . "notes" (append .notes "Set apiServerCidrs: with watchNamespaces it may not read the address of the API server, so agents that are isolated cannot reach it.") -}}
{{- end -}}
{{- end -}}
