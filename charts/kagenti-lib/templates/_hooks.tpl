{{/* Jobs of Helm's hooks: an account of their own with the few rights that one task takes, gone with the Job. */}}

{{/*
Annotations of a hook. `hook`: when; `first`: what the Job needs before it. A Job that failed stays, with its log, until
the next try; newer Helms print that log.
*/}}
{{- define "kagenti.hook" -}}
helm.sh/hook: {{ .hook }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- if .first }}
helm.sh/hook-weight: "-5"
{{- else }}
helm.sh/hook-output-log-policy: hook-failed
{{- end }}
{{- end -}}

{{/* The account of a hook. `ctx`, `name`, `hook`. */}}
{{- define "kagenti.hookAccount" -}}
---
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "kagenti.metadata" (dict "ctx" .ctx "name" .name "namespace" .ctx.root.Release.Namespace "annotations" (include "kagenti.hook" (dict "hook" .hook "first" true) | fromYaml)) | nindent 2 }}
automountServiceAccountToken: false
{{- end -}}

{{/* A role of that account and its binding. `ctx`, `name`, `hook`, `account`, `rules`; without `namespace` of the cluster. */}}
{{- define "kagenti.hookRole" -}}
{{- $namespace := "" -}}
{{- with .namespace }}{{ $namespace = . }}{{ end -}}
{{- $metadata := include "kagenti.metadata" (dict "ctx" .ctx "name" .name "namespace" $namespace "annotations" (include "kagenti.hook" (dict "hook" .hook "first" true) | fromYaml)) -}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ ternary "ClusterRole" "Role" (empty $namespace) }}
metadata:
  {{- $metadata | nindent 2 }}
rules: {{- toYaml .rules | nindent 0 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ ternary "ClusterRoleBinding" "RoleBinding" (empty $namespace) }}
metadata:
  {{- $metadata | nindent 2 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ ternary "ClusterRole" "Role" (empty $namespace) }}
  name: {{ .name }}
subjects:
- kind: ServiceAccount
  name: {{ .account }}
  namespace: {{ .ctx.root.Release.Namespace }}
{{- end -}}

{{/*
The Job. `ctx`, `name` (also of its account), `hook`, `component` (its label), `args`, `seconds`. It is not tried again:
the program itself waits and repeats, and whoever reads its list decides what to do next.
*/}}
{{- define "kagenti.hookJob" -}}
{{- $ctx := .ctx -}}
---
apiVersion: batch/v1
kind: Job
metadata:
  {{- include "kagenti.metadata" (dict "ctx" $ctx "name" .name "namespace" $ctx.root.Release.Namespace "annotations" (include "kagenti.hook" (dict "hook" .hook) | fromYaml)) | nindent 2 }}
spec:
  backoffLimit: 0
  activeDeadlineSeconds: {{ .seconds }}
  template:
    metadata:
      {{- include "kagenti.metadata" (dict "ctx" $ctx "labels" (dict "app.kubernetes.io/component" .component)) | nindent 6 }}
    spec:
      restartPolicy: Never
      serviceAccountName: {{ .name }}
      automountServiceAccountToken: true
      # The program is process 1 and ends by itself; there is nothing to wait for when somebody deletes the Job.
      terminationGracePeriodSeconds: 1
      securityContext: {{- include "kagenti.podSecurity" $ctx | nindent 8 }}
      {{- with include "kagenti.placement" $ctx | trim }}
      {{- . | nindent 6 }}
      {{- end }}
      containers:
      - name: {{ .component }}
        image: {{ include "kagenti.image" $ctx | quote }}
        imagePullPolicy: {{ $ctx.s.image.pullPolicy }}
        args: {{- toYaml .args | nindent 8 }}
        env: {{- include "kagenti.env" $ctx | nindent 8 }}
        # The end of the log is what `kubectl describe` shows.
        terminationMessagePolicy: FallbackToLogsOnError
        resources:
          requests: {cpu: 10m, memory: 32Mi}
          limits: {memory: 256Mi}
        securityContext: {{- include "kagenti.containerSecurity" $ctx | nindent 10 }}
{{- end -}}

{{/* A duration such as `1h30m` in whole seconds. */}}
{{- define "kagenti.seconds" -}}
{{- $start := toDate "2006-01-02" "2000-01-01" -}}
{{- sub (dateModify . $start | unixEpoch) (unixEpoch $start) -}}
{{- end -}}
