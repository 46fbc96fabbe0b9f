{{/* What only card-ctl has. */}}
{{- define "card-ctl.prepare" -}}
{{- include "kagenti.prepare" . -}}
{{- $s := .s -}}
{{- $own := ternary "" "card-ctl." .root.Chart.IsRoot -}}
{{- $fetch := $s.verifiedFetch -}}
{{- $signatures := $s.signatureVerification -}}
{{- /* Always said, both ways: the program's own default is on. */ -}}
{{- $flags := dict "enable-verified-fetch" $fetch.enabled "cluster-domain" $s.clusterDomain -}}
{{- if $fetch.enabled -}}
{{- $_ := set $flags "verified-fetch-spiffe-socket" $fetch.spiffeEndpointSocket -}}
{{- $_ := set $flags "verified-fetch-required" $fetch.required -}}
{{- $_ := set . "volumes" (append .volumes (dict "name" "spiffe-workload-api" "csi" (dict "driver" "csi.spiffe.io" "readOnly" true))) -}}
{{- $_ := set . "volumeMounts" (append .volumeMounts (dict "name" "spiffe-workload-api" "mountPath" "/spiffe-workload-api" "readOnly" true)) -}}
{{- end -}}
{{- $_ := set $flags "require-a2a-signature" $signatures.enabled -}}
{{- $bundle := $signatures.spireTrustBundle -}}
{{- if $signatures.enabled -}}
{{- $_ := set $flags "signature-audit-mode" $signatures.auditMode -}}
{{- $_ := set $flags "svid-expiry-grace-period" $signatures.svidExpiryGracePeriod -}}
{{- $_ := set $flags "spire-trust-bundle-configmap" $bundle.configMapName -}}
{{- $_ := set $flags "spire-trust-bundle-configmap-namespace" $bundle.configMapNamespace -}}
{{- $_ := set $flags "spire-trust-bundle-configmap-key" $bundle.configMapKey -}}
{{- $_ := set $flags "spire-trust-bundle-refresh-interval" $bundle.refreshInterval -}}
{{- if not (and $bundle.configMapName $bundle.configMapNamespace) -}}
{{- include "kagenti.finding" (dict "ctx" . "text" (printf "%ssignatureVerification.enabled=true needs %ssignatureVerification.spireTrustBundle.configMapName and .configMapNamespace" $own $own)) -}}
{{- end -}}
{{- end -}}
{{- if $s.sigstore.enabled -}}
{{- if not (and $s.sigstore.certificateIdentity $s.sigstore.certificateOidcIssuer) -}}
{{- include "kagenti.finding" (dict "ctx" . "text" (printf "%ssigstore.enabled=true needs %ssigstore.certificateIdentity and .certificateOidcIssuer" $own $own)) -}}
{{- end -}}
{{- include "kagenti.finding" (dict "ctx" . "text" (printf "%ssigstore.enabled=true: this release does not verify Sigstore bundles; use %ssignatureVerification or %sverifiedFetch" $own $own $own)) -}}
{{- end -}}
{{- $_ := set $flags "identity-binding-scope" $s.identityBindingScope -}}
{{- $_ := set $flags "verified-label-mode" $s.verifiedLabelMode -}}
{{- include "kagenti.flags" (dict "ctx" . "flags" $flags) -}}
{{- with $s.spireTrustDomain }}{{ $_ := set $ "env" (append $.env (dict "name" "KAGENTI_SPIRE_TRUST_DOMAIN" "value" .)) }}{{ end -}}
{{- with $bundle.configMapName }}{{ $_ := set $.renames "spire-bundle" . }}{{ end -}}
{{- /* In namespaced mode the bundle in another namespace is read by name, with a Role there. */ -}}
{{- $where := $bundle.configMapNamespace -}}
{{- if and $signatures.enabled .namespaced (ne $where .root.Release.Namespace) (not (has $where .namespaces)) -}}
{{- $rules := list -}}
{{- range (.root.Files.Get "files/rbac.yaml" | fromYaml).release -}}
{{- if has "spire-bundle" .resourceNames }}{{ $rules = append $rules . }}{{ end -}}
{{- end -}}
{{- $_ := set . "extraRoles" (append .extraRoles (dict "name" .wide "namespace" $where "rules" $rules)) -}}
{{- end -}}
{{- /* Agents listen where they like. */ -}}
{{- $_ := set . "egress" (append .egress (dict "to" (list (dict "namespaceSelector" dict)))) -}}
{{- end -}}
