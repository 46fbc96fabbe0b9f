{{/*
The rules are in the chart's files/rbac.yaml, the only place for them; here they become roles.
  cluster mode:    a ClusterRole with `scoped` and `cluster`, a Role in the release namespace with `release`, and a Role
                   with each list of `named` in its namespace
  namespaced mode: a Role with `scoped` in every watched namespace, a Role with `release`; nothing of the cluster
*/}}
{{- define "kagenti.rbac" -}}
{{- if .s.rbac.create -}}
{{- $ctx := . -}}
{{- range include "kagenti.roles" . | fromJsonArray }}
{{- include "kagenti.role" (dict "ctx" $ctx "name" .name "namespace" .namespace "rules" .rules) }}
{{- end }}
{{- end -}}
{{- end -}}

{{/* The roles of a component as a JSON list of name, namespace (empty = of the cluster) and rules. */}}
{{- define "kagenti.roles" -}}
{{- $ctx := . -}}
{{- $rules := .root.Files.Get "files/rbac.yaml" | fromYaml -}}
{{- $roles := list -}}
{{- if .namespaced -}}
{{- range .namespaces -}}
{{- $roles = append $roles (dict "name" $ctx.name "namespace" . "rules" $rules.scoped) -}}
{{- end -}}
{{- else -}}
{{- $roles = append $roles (dict "name" .wide "namespace" "" "rules" (concat $rules.scoped $rules.cluster)) -}}
{{- end -}}
{{- $roles = append $roles (dict "name" (printf "%s-release" .name) "namespace" .root.Release.Namespace "rules" $rules.release) -}}
{{- range $known, $list := $rules.named -}}
{{- $namespace := $known -}}
{{- if hasKey $ctx.named $known }}{{ $namespace = get $ctx.named $known }}{{ end -}}
{{- if include "kagenti.hasNamed" (dict "ctx" $ctx "namespace" $namespace) -}}
{{- $roles = append $roles (dict "name" $ctx.wide "namespace" $namespace "rules" $list) -}}
{{- end -}}
{{- end -}}
{{- $roles = concat $roles .extraRoles -}}
{{- range $roles -}}
{{- $_ := set . "rules" (include "kagenti.rules" (dict "ctx" $ctx "rules" .rules) | fromJsonArray) -}}
{{- end -}}
{{- toJson $roles -}}
{{- end -}}

{{/*
What `selftest --expected-rights` is told: the rules of these roles and where they hold. One place per list of rules, however
many namespaces are watched; an argument may have 128 KiB.
*/}}
{{- define "kagenti.expectedRights" -}}
{{- $byRules := dict -}}
{{- range include "kagenti.roles" . | fromJsonArray -}}
{{- if .rules -}}
{{- $key := toJson .rules -}}
{{- $namespaces := list -}}
{{- if hasKey $byRules $key }}{{ $namespaces = get $byRules $key }}{{ end -}}
{{- $_ := set $byRules $key (append $namespaces .namespace) -}}
{{- end -}}
{{- end -}}
{{- $places := list -}}
{{- range $rules, $namespaces := $byRules -}}
{{- $places = append $places (dict "namespaces" $namespaces "rules" (fromJsonArray $rules)) -}}
{{- end -}}
{{- dict "places" $places "foreignGroups" .foreignGroups | toJson -}}
{{- end -}}

{{/*
May a Role go into this namespace? In cluster mode when it is there (or the user named it: then its absence shall be an
error). In namespaced mode only where this release has Roles anyway: a tenant could not install it otherwise.
*/}}
{{- define "kagenti.hasNamed" -}}
{{- $ctx := .ctx -}}
{{- if $ctx.namespaced -}}
{{- if or (has .namespace $ctx.namespaces) (eq .namespace $ctx.root.Release.Namespace) }}yes{{ end -}}
{{- else if or (has .namespace (list "default" $ctx.root.Release.Namespace)) (has .namespace $ctx.explicit) -}}
yes
{{- else if lookup "v1" "Namespace" "" .namespace -}}
yes
{{- end -}}
{{- end -}}

{{/* Rules of the file as they are under these values, as a JSON list. */}}
{{- define "kagenti.rules" -}}
{{- $ctx := .ctx -}}
{{- $rules := list -}}
{{- range .rules -}}
{{- if include "kagenti.ruleApplies" (dict "ctx" $ctx "rule" .) -}}
{{- $rule := deepCopy . -}}
{{- if hasKey $rule "resourceNames" -}}
{{- $names := list -}}
{{- range $rule.resourceNames -}}
{{- $names = append $names (hasKey $ctx.renames . | ternary (get $ctx.renames .) .) -}}
{{- end -}}
{{- $_ := set $rule "resourceNames" $names -}}
{{- end -}}
{{- range $resource, $verbs := $ctx.withoutVerbs -}}
{{- if and (has $resource $rule.resources) (not (hasKey $rule "resourceNames")) -}}
{{- $left := list -}}
{{- range $rule.verbs }}{{ if not (has . $verbs) }}{{ $left = append $left . }}{{ end }}{{ end -}}
{{- $_ := set $rule "verbs" $left -}}
{{- end -}}
{{- end -}}
{{- $rules = append $rules $rule -}}
{{- end -}}
{{- end -}}
{{- toJson $rules -}}
{{- end -}}

{{/* A role and its binding; nothing when it has no rule. Without namespace they are of the cluster. */}}
{{- define "kagenti.role" -}}
{{- $ctx := .ctx -}}
{{- if .rules }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .namespace | empty | ternary "ClusterRole" "Role" }}
metadata:
  {{- include "kagenti.metadata" (dict "ctx" $ctx "name" .name "namespace" .namespace) | nindent 2 }}
rules: {{- toYaml .rules | nindent 0 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .namespace | empty | ternary "ClusterRoleBinding" "RoleBinding" }}
metadata:
  {{- include "kagenti.metadata" (dict "ctx" $ctx "name" .name "namespace" .namespace) | nindent 2 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ .namespace | empty | ternary "ClusterRole" "Role" }}
  name: {{ .name }}
subjects:
- kind: ServiceAccount
  name: {{ $ctx.serviceAccount }}
  namespace: {{ $ctx.root.Release.Namespace }}
{{- end }}
{{- end -}}

{{/* Rights that only mean something on OpenShift, and reviews of metrics callers that nobody will make, are left out. */}}
{{- define "kagenti.ruleApplies" -}}
{{- $rule := .rule -}}
{{- $ctx := .ctx -}}
{{- $openshiftOnly := false -}}
{{- range $rule.apiGroups }}{{ if hasSuffix "openshift.io" . }}{{ $openshiftOnly = true }}{{ end }}{{ end -}}
{{- range $rule.resourceNames }}{{ if hasPrefix "system:openshift:" . }}{{ $openshiftOnly = true }}{{ end }}{{ end -}}
{{- range $ctx.openshiftOnly }}{{ if has . $rule.resources }}{{ $openshiftOnly = true }}{{ end }}{{ end -}}
{{- $reviews := or (has "tokenreviews" $rule.resources) (has "subjectaccessreviews" $rule.resources) -}}
{{- if and (or $ctx.openshift (not $openshiftOnly)) (or (not $reviews) (and $ctx.secure $ctx.s.metrics.enabled)) }}yes{{ end -}}
{{- end -}}
