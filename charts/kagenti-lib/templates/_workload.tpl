{{/* The process: its account, its Deployment, and what keeps enough of its Pods. */}}

{{- define "kagenti.serviceAccount" -}}
{{- if .s.serviceAccount.create }}
---
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "kagenti.metadata" (dict "ctx" . "name" .serviceAccount "namespace" .root.Release.Namespace "annotations" .s.serviceAccount.annotations) | nindent 2 }}
# The Pods say that they want a token; nothing else that runs as this account gets one unasked.
automountServiceAccountToken: false
{{- end }}
{{- end -}}

{{/* PodSecurity `restricted`. No runAsUser and no fsGroup: the image names its user, and OpenShift may assign one. */}}
{{- define "kagenti.podSecurity" -}}
runAsNonRoot: true
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "kagenti.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
readOnlyRootFilesystem: true
{{- end -}}

{{/* What every process reads from its environment. */}}
{{- define "kagenti.env" -}}
{{- $otel := .s.otel -}}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
{{- if $otel.endpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ $otel.endpoint | quote }}
- name: OTEL_EXPORTER_OTLP_PROTOCOL
  value: {{ $otel.protocol | quote }}
- name: OTEL_TRACES_SAMPLER
  value: parentbased_traceidratio
- name: OTEL_TRACES_SAMPLER_ARG
  value: {{ $otel.sampleRatio | quote }}
{{- with $otel.headersSecret }}
- name: OTEL_EXPORTER_OTLP_HEADERS
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: headers
{{- end }}
{{- end }}
{{- with .env }}
{{ toYaml . }}
{{- end }}
{{- with .s.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Own volumes of the component, the metrics certificate, and what the user adds. */}}
{{- define "kagenti.volumes" -}}
{{- $volumes := .volumes -}}
{{- with .metricsTls.secret -}}
{{- $volumes = append $volumes (dict "name" "metrics-cert" "secret" (dict "secretName" .)) -}}
{{- end -}}
{{- with .s.extraVolumes }}{{ $volumes = concat $volumes . }}{{ end -}}
{{- with $volumes }}{{ toYaml . }}{{ end -}}
{{- end -}}

{{- define "kagenti.volumeMounts" -}}
{{- $mounts := .volumeMounts -}}
{{- if .metricsTls.secret -}}
{{- $mounts = append $mounts (dict "name" "metrics-cert" "mountPath" "/etc/kagenti/metrics-cert" "readOnly" true) -}}
{{- end -}}
{{- with .s.extraVolumeMounts }}{{ $mounts = concat $mounts . }}{{ end -}}
{{- with $mounts }}{{ toYaml . }}{{ end -}}
{{- end -}}

{{/* Where Pods of the release may run; the same for its Deployments, Jobs and tests. */}}
{{- define "kagenti.placement" -}}
{{- with .s.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{- with .s.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .s.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .s.tolerations }}
tolerations: {{- toYaml . | nindent 0 }}
{{- end }}
{{- end -}}

{{- define "kagenti.deployment" -}}
{{- $s := .s -}}
{{- $annotations := dict "kubectl.kubernetes.io/default-container" .component -}}
{{- with $s.podAnnotations }}{{ include "kagenti.overlay" (dict "dst" $annotations "src" .) }}{{ end -}}
{{- $labels := dict "control-plane" "controller-manager" -}}
{{- $podLabels := deepCopy $s.podLabels -}}
{{- include "kagenti.overlay" (dict "dst" $podLabels "src" $labels) }}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "kagenti.metadata" (dict "ctx" . "name" .name "namespace" .root.Release.Namespace "labels" $labels) | nindent 2 }}
spec:
  {{- /* With an autoscaler the number is its own. */}}
  {{- if not (and $s.autoscaling $s.autoscaling.enabled) }}
  {{- if hasKey $s "replicas" }}
  replicas: {{ int $s.replicas }}
  {{- end }}
  {{- end }}
  {{- with $s.updateStrategy }}
  strategy: {{- toYaml . | nindent 4 }}
  {{- end }}
  selector:
    matchLabels: {{- toYaml .selector | nindent 6 }}
  template:
    metadata:
      {{- include "kagenti.metadata" (dict "ctx" . "labels" $podLabels "annotations" $annotations) | nindent 6 }}
    spec:
      serviceAccountName: {{ .serviceAccount }}
      automountServiceAccountToken: true
      {{- if hasKey $s "terminationGracePeriodSeconds" }}
      terminationGracePeriodSeconds: {{ int $s.terminationGracePeriodSeconds }}
      {{- end }}
      securityContext: {{- include "kagenti.podSecurity" . | nindent 8 }}
      {{- with include "kagenti.placement" . | trim }}
      {{- . | nindent 6 }}
      {{- end }}
      {{- with $s.affinity }}
      affinity: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $s.topologySpreadConstraints }}
      topologySpreadConstraints:
      {{- range . }}
      {{- $constraint := deepCopy . }}
      {{- /* Values cannot know the release, so a constraint without selector is about these Pods. */}}
      {{- if not (hasKey $constraint "labelSelector") }}{{ $_ := set $constraint "labelSelector" (dict "matchLabels" $.selector) }}{{ end }}
      - {{- toYaml $constraint | nindent 8 }}
      {{- end }}
      {{- end }}
      containers:
      - name: {{ .component }}
        image: {{ include "kagenti.image" . | quote }}
        imagePullPolicy: {{ $s.image.pullPolicy }}
        args: {{- concat .args $s.extraArgs | toYaml | nindent 8 }}
        env: {{- include "kagenti.env" . | nindent 8 }}
        ports:
        - name: probes
          containerPort: 8081
        {{- if $s.metrics.enabled }}
        - name: metrics
          containerPort: {{ int .metricsPort }}
        {{- end }}
        {{- with .ports }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        {{- range $part := list "livenessProbe" "readinessProbe" "startupProbe" "resources" }}
        {{- with get $s $part }}
        {{ $part }}: {{- toYaml . | nindent 10 }}
        {{- end }}
        {{- end }}
        securityContext: {{- include "kagenti.containerSecurity" . | nindent 10 }}
        {{- with include "kagenti.volumeMounts" . }}
        volumeMounts: {{- . | nindent 8 }}
        {{- end }}
      {{- with include "kagenti.volumes" . }}
      volumes: {{- . | nindent 6 }}
      {{- end }}
{{- end -}}

{{/* How many replicas there are at least. */}}
{{- define "kagenti.replicas" -}}
{{- if and .s.autoscaling .s.autoscaling.enabled }}{{ int .s.autoscaling.minReplicas -}}
{{- else if hasKey .s "replicas" }}{{ int .s.replicas }}{{ else }}1{{ end -}}
{{- end -}}

{{/* Only where one Pod may go while another serves: for a single replica a drain would never end. */}}
{{- define "kagenti.disruption" -}}
{{- $s := .s -}}
{{- $replicas := include "kagenti.replicas" . | int -}}
{{- if and $s.pdb $s.pdb.enabled (gt $replicas 1) }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "kagenti.metadata" (dict "ctx" . "name" .name "namespace" .root.Release.Namespace) | nindent 2 }}
spec:
  {{- omit $s.pdb "enabled" | toYaml | nindent 2 }}
  selector:
    matchLabels: {{- toYaml .selector | nindent 6 }}
{{- end }}
{{- end -}}

{{- define "kagenti.autoscaler" -}}
{{- with .s.autoscaling }}
{{- if .enabled }}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  {{- include "kagenti.metadata" (dict "ctx" $ "name" $.name "namespace" $.root.Release.Namespace) | nindent 2 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {{ $.name }}
  minReplicas: {{ int .minReplicas }}
  maxReplicas: {{ int .maxReplicas }}
  metrics:
  - type: Resource
    resource:
      name: cpu
      target:
        type: Utilization
        averageUtilization: {{ int .targetCPU }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The headless Service that names every Pod. */}}
{{- define "kagenti.replicasAt" -}}
{{- printf "%s-%s" .name (ternary "metrics" "probes" .s.metrics.enabled) -}}
{{- end -}}

{{/*
`helm test`: the program itself, with its own flags and account, looks whether the installation works. Its Pod stays until the
next test: `helm test --logs` reads it afterwards. Helm 3.18 and later print the table of a failure without being asked.
*/}}
{{- define "kagenti.testPod" -}}
{{- $told := list (printf "--replicas-at=%s" (include "kagenti.replicasAt" .)) (printf "--replicas=%s" (include "kagenti.replicas" .)) -}}
{{- $told = append $told (printf "--expected-rights=%s" (include "kagenti.expectedRights" .)) -}}
{{- if not .s.metrics.enabled }}
---
# The addresses of all Pods for the test, which asks each whether it is ready: where metrics are on, their Service has them.
apiVersion: v1
kind: Service
metadata:
  {{- include "kagenti.metadata" (dict "ctx" . "name" (include "kagenti.replicasAt" .) "namespace" .root.Release.Namespace) | nindent 2 }}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector: {{- toYaml .selector | nindent 4 }}
  ports:
  - name: probes
    port: 8081
    targetPort: probes
{{- end }}
{{- $annotations := dict "helm.sh/hook" "test" "helm.sh/hook-delete-policy" "before-hook-creation" "helm.sh/hook-output-log-policy" "hook-failed" }}
---
apiVersion: v1
kind: Pod
metadata:
  {{- include "kagenti.metadata" (dict "ctx" . "name" (printf "%s-test" .name) "namespace" .root.Release.Namespace "labels" (dict "app.kubernetes.io/component" "test") "annotations" $annotations) | nindent 2 }}
spec:
  restartPolicy: Never
  serviceAccountName: {{ .serviceAccount }}
  automountServiceAccountToken: true
  securityContext: {{- include "kagenti.podSecurity" . | nindent 4 }}
  {{- with include "kagenti.placement" . | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  containers:
  - name: selftest
    image: {{ include "kagenti.image" . | quote }}
    imagePullPolicy: {{ .s.image.pullPolicy }}
    args: {{- concat .args .s.extraArgs (list "selftest" "--in-cluster") $told | toYaml | nindent 4 }}
    env: {{- include "kagenti.env" . | nindent 4 }}
    resources:
      requests: {cpu: 10m, memory: 32Mi}
      limits: {memory: 128Mi}
    securityContext: {{- include "kagenti.containerSecurity" . | nindent 6 }}
    {{- with include "kagenti.volumeMounts" . }}
    volumeMounts: {{- . | nindent 4 }}
    {{- end }}
  {{- with include "kagenti.volumes" . }}
  volumes: {{- . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* OpenShift puts its bundle into a ConfigMap that carries the label. */}}
{{- define "kagenti.trustedCAConfigMap" -}}
{{- if and .s.trustedCA.openshiftInject (not .s.trustedCA.configMapName) .usesTrustedCA }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  {{- include "kagenti.metadata" (dict "ctx" . "name" .caConfigMap "namespace" .root.Release.Namespace "labels" (dict "config.openshift.io/inject-trusted-cabundle" "true")) | nindent 2 }}
{{- end }}
{{- end -}}

{{/*
The Job that makes a component clean up: netpol-ctl deletes its policies, client-registration-ctl takes finalizers off. Used by
their charts and, once netpol-ctl is off, by the umbrella.
*/}}
{{- define "kagenti.cleanupJob" -}}
{{- $ctx := .ctx -}}
backoffLimit: 3
activeDeadlineSeconds: 300
template:
  metadata:
    {{- include "kagenti.metadata" (dict "ctx" $ctx "labels" (dict "app.kubernetes.io/component" "cleanup")) | nindent 4 }}
  spec:
    restartPolicy: Never
    serviceAccountName: {{ .serviceAccount }}
    automountServiceAccountToken: true
    securityContext: {{- include "kagenti.podSecurity" $ctx | nindent 6 }}
    {{- with include "kagenti.placement" $ctx | trim }}
    {{- . | nindent 4 }}
    {{- end }}
    containers:
    - name: cleanup
      image: {{ include "kagenti.image" $ctx | quote }}
      imagePullPolicy: {{ $ctx.s.image.pullPolicy }}
      args: {{- append $ctx.args "--cleanup-and-exit=true" | toYaml | nindent 6 }}
      env: {{- include "kagenti.env" $ctx | nindent 6 }}
      resources:
        requests: {cpu: 10m, memory: 32Mi}
        limits: {memory: 256Mi}
      securityContext: {{- include "kagenti.containerSecurity" $ctx | nindent 8 }}
      {{- with include "kagenti.volumeMounts" $ctx }}
      volumeMounts: {{- . | nindent 6 }}
      {{- end }}
    {{- with include "kagenti.volumes" $ctx }}
    volumes: {{- . | nindent 4 }}
    {{- end }}
{{- end -}}
