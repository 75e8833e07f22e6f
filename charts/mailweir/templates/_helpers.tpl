{{- define "mailweir.name" -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}-mailweir
{{- end -}}

{{- define "mailweir.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "mailweir.labels" -}}
{{ include "mailweir.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{/* Half as much again as the journal may take: a pod that overruns its emptyDir is evicted. */}}
{{- define "mailweir.volumeSize" -}}
{{ div (mul (int64 .Values.journal.maxMiB) 3) 2 }}Mi
{{- end -}}

{{/*
The native sidecar: an item of initContainers. It needs the volumes of mailweir.volumes and an fsGroup of 65532.
The probes say, in this order: the application may start; a restart would cure something; the pod may get
traffic. None depends on the relay.
*/}}
{{- define "mailweir.sidecar" -}}
name: mailweir
image: {{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
restartPolicy: Always
env:
  - name: MAILWEIR_UPSTREAM
    value: {{ .Values.upstream.url | quote }}
  - name: MAILWEIR_UPSTREAM_MAX_CONNECTIONS
    value: {{ .Values.upstream.maxConnections | quote }}
  {{- if .Values.upstream.username }}
  - name: MAILWEIR_UPSTREAM_USERNAME
    value: {{ .Values.upstream.username | quote }}
  - name: MAILWEIR_UPSTREAM_PASSWORD_FILE
    value: /run/secrets/mailweir/password
  {{- end }}
  - name: MAILWEIR_JOURNAL_MAX_BYTES
    value: {{ int64 .Values.journal.maxMiB }}MiB
  {{- range $name, $value := .Values.env }}
  - name: {{ $name }}
    {{- /* Helm reads numbers as floats, and quote would write a million as 1e+06. */}}
    value: {{ kindIs "string" $value | ternary $value (toJson $value) | quote }}
  {{- end }}
ports:
  - name: mailweir-probe
    containerPort: 9025
startupProbe:
  httpGet:
    path: /readyz
    port: mailweir-probe
  periodSeconds: 1
  failureThreshold: 120
livenessProbe:
  httpGet:
    path: /healthz
    port: mailweir-probe
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
readinessProbe:
  httpGet:
    path: /readyz
    port: mailweir-probe
  periodSeconds: 5
  timeoutSeconds: 5
{{- with .Values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
  seccompProfile:
    type: RuntimeDefault
volumeMounts:
  - name: mailweir-journal
    mountPath: /var/lib/mailweir
  {{- if .Values.upstream.username }}
  - name: mailweir-upstream
    mountPath: /run/secrets/mailweir
    readOnly: true
  {{- end }}
{{- end -}}

{{/* The volumes the sidecar mounts, but for the claim, which is the StatefulSet's to make. */}}
{{- define "mailweir.volumes" -}}
{{- if eq .Values.journal.volume "emptyDir" }}
- name: mailweir-journal
  emptyDir:
    sizeLimit: {{ include "mailweir.volumeSize" . }}
{{- end }}
{{- if .Values.upstream.username }}
- name: mailweir-upstream
  secret:
    secretName: {{ .Values.upstream.passwordSecret.name | quote }}
    defaultMode: 0440
    items:
      - key: {{ .Values.upstream.passwordSecret.key | quote }}
        path: password
{{- end }}
{{- end -}}
