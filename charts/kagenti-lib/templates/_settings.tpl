{{/*
How a value is found: own value, else global value, else the built-in default below, leaf by leaf through objects.
Set means present and not null, so false, 0, "" and [] are values. That is why no values.yaml names these keys and
why Sprig's functions with "default" semantics are not used here.
*/}}

{{/* The suite-wide keys and their built-in defaults. Keys that are missing here are found out in kagenti.prepare. */}}
{{- define "kagenti.defaults" -}}
registry: ghcr.io
imagePrefix: kagenti/kagenti-operator
tag: ""
pullPolicy: IfNotPresent
pullSecrets: []
digests: {}
watchNamespaces: []
namespaceExclusions: []
rbac: {create: true, mode: ""}
serviceAccount: {annotations: {}}
podLabels: {}
extraEnv: []
logging: {level: info, format: json}
otel: {endpoint: "", protocol: http/protobuf, sampleRatio: 0.1, headersSecret: ""}
metrics: {enabled: true}
prometheus:
  enabled: false
  kind: ServiceMonitor
  interval: 30s
  scrapeTimeout: 10s
  labels: {}
  relabelings: []
  metricRelabelings: []
  skipApiCheck: false
networkPolicy: {enabled: false}
trustedCA: {configMapName: "", key: ca-bundle.crt, openshiftInject: false}
openshift: {}
spireTrustDomain: ""
clusterDomain: cluster.local
namePrefix: kagenti
fullnameOverride: ""
commonLabels: {}
commonAnnotations: {}
priorityClassName: ""
tolerations: []
nodeSelector: {}
{{- end -}}

{{/* Puts every key of `src` that is not null into `dst`; objects are walked, lists replaced. Keeps `src` as it is. */}}
{{- define "kagenti.overlay" -}}
{{- $dst := .dst -}}
{{- range $key, $value := .src -}}
{{- if kindIs "map" $value -}}
{{- if not (kindIs "map" (get $dst $key)) }}{{ $_ := set $dst $key dict }}{{ end -}}
{{- include "kagenti.overlay" (dict "dst" (get $dst $key) "src" $value) -}}
{{- else if not (kindIs "invalid" $value) -}}
{{- $_ := set $dst $key $value -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/*
Puts the own values of a chart (`root` is its scope) into the dict `into`. Helm takes a key that is null out of the values,
its default with it; of settings of ours the default is read again from a copy of values.yaml, which templates cannot read.
*/}}
{{- define "kagenti.own" -}}
{{- with .root.Files.Get "files/defaults.json" }}{{ include "kagenti.overlay" (dict "dst" $.into "src" (fromJson .)) }}{{ end -}}
{{- include "kagenti.overlay" (dict "dst" .into "src" (omit .root.Values "global" "kagenti-lib" "enabled")) -}}
{{- end -}}

{{/* Where `path` (dotted) leads in `map`, as JSON; nothing when it is absent or null. */}}
{{- define "kagenti.at" -}}
{{- $node := .map -}}
{{- $found := true -}}
{{- range splitList "." .path -}}
{{- if and $found (kindIs "map" $node) (hasKey $node .) -}}
{{- $node = get $node . -}}
{{- else -}}
{{- $found = false -}}
{{- end -}}
{{- end -}}
{{- if and $found (not (kindIs "invalid" $node)) }}{{ toJson $node }}{{ end -}}
{{- end -}}

{{/*
Fills the dict it is given with what all other templates use. It needs `root` (the scope of the component's chart); the
umbrella also says `as` which component it speaks and with what `own` values.
  component, name (Deployment), wide (cluster-scoped objects), fullname (Existing's name), labels, selector,
  s (the settings in force), namespaces, namespaced, secure, metricsPort, metricsTls, openshift, serviceAccount,
  leaseSuffix, and empty lists for the component to fill: args, env, volumes, volumeMounts, ports, egress, ingress,
  findings; renames (resourceNames in files/rbac.yaml -> theirs here), named (namespaces there -> here),
  explicit (named namespaces that the user named), withoutVerbs (resource -> verbs that these values do not need),
  extraRoles (name, namespace, rules), foreignGroups (API groups in which a role of somebody else is bound, too), notes.
*/}}
{{- define "kagenti.prepare" -}}
{{- $ctx := . -}}
{{- $root := .root -}}
{{- $s := include "kagenti.defaults" $ctx | fromYaml -}}
{{- $known := dict -}}
{{- range $key, $_ := $s -}}
{{- if and $root.Values.global (hasKey $root.Values.global $key) -}}
{{- $_ := set $known $key (get $root.Values.global $key) -}}
{{- end -}}
{{- end -}}
{{- include "kagenti.overlay" (dict "dst" $s "src" $known) -}}
{{- $component := $root.Chart.Name -}}
{{- with $ctx.as }}{{ $component = . }}{{ end -}}
{{- $_ := set $ctx "component" $component -}}
{{- $_ := set $ctx "prefix" $s.namePrefix -}}
{{- $_ := set $ctx "fullname" (include "kagenti.fullname" (dict "root" $root "override" $s.fullnameOverride)) -}}
{{- $_ := unset $s "fullnameOverride" -}}
{{- $image := dict "registry" $s.registry "repository" (printf "%s/%s" $s.imagePrefix $component | trimPrefix "/") "tag" $s.tag "digest" "" -}}
{{- $_ := set $image "pullPolicy" $s.pullPolicy -}}
{{- $_ := set $image "pullSecrets" $s.pullSecrets -}}
{{- if hasKey $s.digests $component }}{{ $_ := set $image "digest" (get $s.digests $component) }}{{ end -}}
{{- $_ := set $s "image" $image -}}
{{- $sharedEnv := $s.extraEnv -}}
{{- $own := dict -}}
{{- if hasKey $ctx "own" }}{{ $own = $ctx.own }}{{ else }}{{ include "kagenti.own" (dict "root" $root "into" $own) }}{{ end -}}
{{- include "kagenti.overlay" (dict "dst" $s "src" $own) -}}
{{- if $own.extraEnv }}{{ $_ := set $s "extraEnv" (concat $sharedEnv $own.extraEnv) }}{{ end -}}
{{- $_ := set $ctx "s" $s -}}

{{- $namespaces := $s.watchNamespaces | uniq | sortAlpha -}}
{{- $_ := set $ctx "namespaces" $namespaces -}}
{{- $_ := set $ctx "namespaced" (not (empty $namespaces)) -}}
{{- $_ := set $ctx "leaseSuffix" (ternary (printf "-%s" (join "," $namespaces | sha256sum | trunc 8)) "" $ctx.namespaced) -}}

{{- $_ := set $ctx "name" (printf "%s-%s" $ctx.prefix $component) -}}
{{- with $s.fullnameOverride }}{{ $_ := set $ctx "name" . }}{{ end -}}
{{- $_ := set $ctx "wide" (include "kagenti.wide" (dict "root" $root "stem" (printf "%s-%s" $ctx.prefix $component))) -}}
{{- $_ := set $ctx "serviceAccount" $ctx.name -}}
{{- with $s.serviceAccount.name }}{{ $_ := set $ctx "serviceAccount" . }}{{ end -}}

{{- $selector := dict "app.kubernetes.io/name" "kagenti-operator-chart" "app.kubernetes.io/instance" $root.Release.Name -}}
{{- $_ := set $selector "app.kubernetes.io/component" $component -}}
{{- $_ := set $ctx "selector" $selector -}}

{{- $_ := set $ctx "secure" (not $ctx.namespaced) -}}
{{- if hasKey $s.metrics "secure" }}{{ $_ := set $ctx "secure" $s.metrics.secure }}{{ end -}}
{{- $_ := set $ctx "metricsPort" (ternary 8443 8080 $ctx.secure) -}}
{{- if hasKey $s.metrics "port" }}{{ $_ := set $ctx "metricsPort" $s.metrics.port }}{{ end -}}
{{- $_ := set $ctx "openshift" ($root.Capabilities.APIVersions.Has "security.openshift.io/v1") -}}
{{- if hasKey $s.openshift "enabled" }}{{ $_ := set $ctx "openshift" $s.openshift.enabled }}{{ end -}}

{{- range list "args" "env" "volumes" "volumeMounts" "ports" "egress" "ingress" "findings" "explicit" "notes" "extraRoles" "foreignGroups" -}}
{{- $_ := set $ctx . list -}}
{{- end -}}
{{- $_ := set $ctx "named" dict -}}
{{- $_ := set $ctx "withoutVerbs" dict -}}
{{- $_ := set $ctx "renames" (dict (printf "%s.kagenti.dev" $component) (printf "%s.kagenti.dev%s" $component $ctx.leaseSuffix)) -}}
{{- include "kagenti.metricsTls" $ctx -}}
{{- include "kagenti.commonFlags" $ctx -}}
{{- include "kagenti.trustedCA" $ctx -}}
{{- end -}}

{{/* Appends `--name=value` to args for every entry of `flags` that is set. "" and [] leave the program's default. */}}
{{- define "kagenti.flags" -}}
{{- $ctx := .ctx -}}
{{- range $name, $value := .flags -}}
{{- if or (kindIs "bool" $value) (kindIs "int" $value) -}}
{{- $_ := set $ctx "args" (append $ctx.args (printf "--%s=%v" $name $value)) -}}
{{- else if kindIs "float64" $value -}}
{{- /* Numbers of YAML are floats; 1048576 must not be printed as 1.048576e+06. */ -}}
{{- $_ := set $ctx "args" (append $ctx.args (printf "--%s=%s" $name (ternary (int64 $value | toString) (toString $value) (eq (floor $value) $value)))) -}}
{{- else if kindIs "slice" $value -}}
{{- if $value }}{{ $_ := set $ctx "args" (append $ctx.args (printf "--%s=%s" $name (join "," $value))) }}{{ end -}}
{{- else if $value -}}
{{- $_ := set $ctx "args" (append $ctx.args (printf "--%s=%s" $name $value)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The flags every program has. */}}
{{- define "kagenti.commonFlags" -}}
{{- $s := .s -}}
{{- $flags := dict "health-probe-bind-address" ":8081" "log-level" $s.logging.level "log-format" $s.logging.format -}}
{{- $_ := set $flags "watch-namespaces" .namespaces -}}
{{- $_ := set $flags "metrics-bind-address" (ternary (printf ":%d" (int .metricsPort)) "0" $s.metrics.enabled) -}}
{{- if $s.metrics.enabled -}}
{{- $_ := set $flags "metrics-secure" .secure -}}
{{- if .metricsTls.secret }}{{ $_ := set $flags "metrics-cert-path" "/etc/kagenti/metrics-cert" }}{{ end -}}
{{- end -}}
{{- with $s.leaderElection -}}
{{- $_ := set $flags "leader-elect" .enabled -}}
{{- if .enabled -}}
{{- $_ := set $flags "leader-elect-lease-duration" .leaseDuration -}}
{{- $_ := set $flags "leader-elect-renew-deadline" .renewDeadline -}}
{{- $_ := set $flags "leader-elect-retry-period" .retryPeriod -}}
{{- end -}}
{{- end -}}
{{- include "kagenti.flags" (dict "ctx" . "flags" $flags) -}}
{{- end -}}

{{/* The ConfigMap of a private CA, for the programs that call servers outside Kubernetes. */}}
{{- define "kagenti.trustedCA" -}}
{{- $ca := .s.trustedCA -}}
{{- $name := $ca.configMapName -}}
{{- if and (not $name) $ca.openshiftInject }}{{ $name = printf "%s-trusted-ca" .name }}{{ end -}}
{{- $_ := set . "caConfigMap" $name -}}
{{- end -}}

{{/* Mounts that ConfigMap; the component calls it and passes the file to its flag. */}}
{{- define "kagenti.mountTrustedCA" -}}
{{- if .caConfigMap -}}
{{- $_ := set . "volumes" (append .volumes (dict "name" "trusted-ca" "configMap" (dict "name" .caConfigMap))) -}}
{{- $_ := set . "volumeMounts" (append .volumeMounts (dict "name" "trusted-ca" "mountPath" "/etc/kagenti/trusted-ca" "readOnly" true)) -}}
{{- end -}}
{{- end -}}
