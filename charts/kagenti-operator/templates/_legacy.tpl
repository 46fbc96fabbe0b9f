{{/*
Values of the previous chart. A key at its old default is accepted silently, so that a whole old values.yaml still
renders; another value fails with its new key. The table is files/legacy-values.yaml, which `kubectl kagenti values convert`
(crates/kubectl-kagenti) reads too: what is done here by `as` is done there alike. Called last, so that the command stands last.
*/}}
{{- define "suite.legacy" -}}
{{- $ctx := . -}}
{{- $values := .root.Values -}}
{{- $table := .root.Files.Get "files/legacy-values.yaml" | fromYaml -}}
{{- $paths := dict -}}
{{- $before := len $ctx.findings -}}
{{- range $row := $table.rows -}}
{{- $_ := set $paths $row.old true -}}
{{- $found := include "kagenti.at" (dict "map" $values "path" $row.old) -}}
{{- if $found -}}
{{- $value := (printf `{"v":%s}` $found | fromJson).v -}}
{{- if $row.any -}}
{{- if not (and (kindIs "map" $value) (empty $value)) -}}
{{- $_ := set $ctx "notes" (append $ctx.notes (printf "Without effect: %s (%s)." $row.old $row.any)) -}}
{{- end -}}
{{- else if include "suite.isDefault" (dict "value" $value "row" $row) -}}
{{- /* As it was. */ -}}
{{- else if $row.refuse -}}
{{- include "kagenti.finding" (dict "ctx" $ctx "text" (printf "%s=%s: %s; remove it" $row.old $found $row.refuse)) -}}
{{- else if and (eq (toString $row.as) "args") (kindIs "slice" $value) -}}
{{- include "suite.legacyArgs" (dict "ctx" $ctx "args" $value "flags" $table.flags) -}}
{{- else -}}
{{- include "kagenti.finding" (dict "ctx" $ctx "text" (printf "%s=%s is now: %s" $row.old $found (include "suite.legacySettings" (dict "ctx" $ctx "row" $row "value" $value "json" $found)))) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range list "controllerManager" "rbac" "metrics" "prometheus" "networkPolicy" "webhook" "certmanager" "crd" "keycloak" "authbridgeConfig" "mlflow" "verifiedFetch" "signatureVerification" "sigstore" "kuadrant" "otelBootstrap" "spiffe" -}}
{{- include "suite.legacyUnknown" (dict "ctx" $ctx "paths" $paths "path" . "value" (get $values .)) -}}
{{- end -}}
{{- if gt (len $ctx.findings) $before -}}
{{- include "kagenti.finding" (dict "ctx" $ctx "text" "these are values of the previous chart. All at once, with kubectl-kagenti of this release (docs/kubectl-kagenti.md): kubectl kagenti values convert -f old.yaml > new.yaml") -}}
{{- end -}}
{{- end -}}

{{/* `yes` when the value is that of the old default; objects leaf by leaf, so that a part of them may be given. */}}
{{- define "suite.isDefault" -}}
{{- if hasKey .row "default" -}}
{{- include "suite.within" (dict "value" .value "of" .row.default) -}}
{{- end -}}
{{- end -}}

{{- define "suite.within" -}}
{{- if and (kindIs "map" .value) (kindIs "map" .of) -}}
{{- $all := true -}}
{{- range $key, $value := .value -}}
{{- if not (or (kindIs "invalid" $value) (and (hasKey $.of $key) (include "suite.within" (dict "value" $value "of" (get $.of $key))))) }}{{ $all = false }}{{ end -}}
{{- end -}}
{{- if $all }}yes{{ end -}}
{{- else if or (eq (toJson .value) (toJson .of)) (and (empty .value) (kindIs "slice" .value) (empty .of)) -}}
yes
{{- end -}}
{{- end -}}

{{/* The settings that an old value becomes, separated by commas. */}}
{{- define "suite.legacySettings" -}}
{{- $ctx := .ctx -}}
{{- $row := .row -}}
{{- $json := .json -}}
{{- $settings := list -}}
{{- if $row.values -}}
{{- with get $row.values (toString .value) }}{{ $settings = . }}{{ else }}{{ $settings = list "(no such value)" }}{{ end -}}
{{- else if eq (toString $row.as) "image" -}}
{{- $parts := splitList "/" .value -}}
{{- if and (eq (last $parts) "kagenti-operator") (or (gt (len $parts) 2) (regexMatch "[.:]|^localhost$" (first $parts))) -}}
{{- $settings = list (printf "global.registry=%s" (first $parts)) (printf "global.imagePrefix=%s" (rest $parts | initial | join "/")) -}}
{{- else -}}
{{- $images := include "suite.components" . | fromYamlArray | join ", " -}}
{{- $settings = list (printf "global.registry and global.imagePrefix of your mirror, with the images %s" $images) -}}
{{- end -}}
{{- else if eq (toString $row.as) "env" -}}
{{- $variables := .value -}}
{{- if kindIs "map" .value -}}
{{- $variables = list -}}
{{- range $name, $text := .value -}}
{{- if not (kindIs "invalid" $text) -}}
{{- if not (kindIs "string" $text) }}{{ $text = toJson $text }}{{ end -}}
{{- $variables = append $variables (dict "name" $name "value" $text) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $settings = list (printf "global.extraEnv=%s" (toJson $variables)) -}}
{{- else if eq (toString $row.as) "args" -}}
{{- $settings = list "(no list of flags)" -}}
{{- else -}}
{{- range $row.new -}}
{{- if contains "<" . -}}
{{- $skip := ternary "authbridge-webhook" "" (contains "<controller>" .) -}}
{{- $path := . | replace "<controller>" "" | replace "<component>" "" -}}
{{- range include "suite.components" $ctx | fromYamlArray -}}
{{- if and (hasKey $ctx.root.Subcharts .) (ne . $skip) }}{{ $settings = append $settings (printf "%s%s=%s" . $path $json) }}{{ end -}}
{{- end -}}
{{- else -}}
{{- $settings = append $settings (printf "%s=%s" . $json) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- join ", " $settings -}}
{{- end -}}

{{/* Every flag of the old argument list: dropped, or what it became. `--flag value` counts as `--flag=value`. */}}
{{- define "suite.legacyArgs" -}}
{{- $ctx := .ctx -}}
{{- $flags := .flags -}}
{{- $joined := list -}}
{{- range .args -}}
{{- $arg := toString . -}}
{{- if or (hasPrefix "-" $arg) (empty $joined) -}}
{{- $joined = append $joined $arg -}}
{{- else -}}
{{- $joined = append (initial $joined) (printf "%s=%s" (last $joined) $arg) -}}
{{- end -}}
{{- end -}}
{{- range $joined -}}
{{- $parts := splitn "=" 2 . -}}
{{- $name := trimPrefix "-" $parts._0 | trimPrefix "-" -}}
{{- $value := "true" -}}
{{- if contains "=" . }}{{ $value = $parts._1 }}{{ end -}}
{{- $dropped := false -}}
{{- range $flags.dropped -}}
{{- if or (eq . $name) (and (hasSuffix "*" .) (hasPrefix (trimSuffix "*" .) $name)) }}{{ $dropped = true }}{{ end -}}
{{- end -}}
{{- $text := "" -}}
{{- if $dropped -}}
{{- else if hasKey $flags.keys $name -}}
{{- $text = printf "is now: %s=%s" (get $flags.keys $name) $value -}}
{{- else if hasKey $flags.owners $name -}}
{{- $text = printf "is now: %s.extraArgs={--%s=%s}" (get $flags.owners $name) $name $value -}}
{{- else if has $name $flags.refused -}}
{{- if ne $value "false" }}{{ $text = "is not built; remove it" }}{{ end -}}
{{- else -}}
{{- $text = "is not known; remove it" -}}
{{- end -}}
{{- if $text -}}
{{- include "kagenti.finding" (dict "ctx" $ctx "text" (printf "controllerManager.container.args: %s %s" . $text)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A key below an old top-level key that the previous chart did not have either. */}}
{{- define "suite.legacyUnknown" -}}
{{- $path := .path -}}
{{- if kindIs "map" .value -}}
{{- if not (hasKey .paths $path) -}}
{{- range $key, $value := .value -}}
{{- include "suite.legacyUnknown" (dict "ctx" $.ctx "paths" $.paths "path" (printf "%s.%s" $path $key) "value" $value) -}}
{{- end -}}
{{- end -}}
{{- else if not (or (kindIs "invalid" .value) (hasKey .paths $path) (and (kindIs "string" .value) (empty .value))) -}}
{{- include "kagenti.finding" (dict "ctx" .ctx "text" (printf "%s: there is no such value; remove it" $path)) -}}
{{- end -}}
{{- end -}}
