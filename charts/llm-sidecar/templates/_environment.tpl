{{/* What the two processes read. The names are those of their settings modules; a test compares them. */}}
{{- define "llm-sidecar.controllerEnvironment" -}}
- name: LLM_OPERATOR_NAMESPACE
  valueFrom:
    fieldRef: {fieldPath: metadata.namespace}
- name: LLM_OPERATOR_LOG_LEVEL
  value: {{ .Values.controller.logLevel | quote }}
- name: LLM_OPERATOR_PROVIDER_NAMESPACES
  value: {{ include "llm-sidecar.providerNamespaces" . | quote }}
- name: LLM_OPERATOR_ALL_SECRETS
  value: {{ .Values.credentials.allNamespaces | quote }}
- name: LLM_OPERATOR_REDIS_URL
  {{- if .Values.redis.bundled.enabled }}
  value: redis://{{ include "llm-sidecar.redisName" . }}.{{ .Release.Namespace }}.svc:6379/0
  {{- else }}
  valueFrom:
    secretKeyRef:
      {{- if .Values.redis.existingSecret.name }}
      name: {{ .Values.redis.existingSecret.name }}
      key: {{ .Values.redis.existingSecret.key }}
      {{- else }}
      name: {{ include "llm-sidecar.redisName" . }}
      key: url
      {{- end }}
  {{- end }}
{{- with .Values.redis.ca.secretName }}
- name: LLM_OPERATOR_REDIS_CA_BUNDLE
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: {{ $.Values.redis.ca.key }}
{{- end }}
- name: LLM_OPERATOR_REQUIRE_QUOTA
  value: {{ .Values.injection.requireQuota | quote }}
{{- if eq .Values.webhook.certificates.mode "operator" }}
# Only where the controller makes the certificate.
- name: LLM_OPERATOR_WEBHOOK_SECRET
  value: {{ include "llm-sidecar.certificateSecret" . }}
- name: LLM_OPERATOR_WEBHOOK_CONFIGURATION
  value: {{ include "llm-sidecar.webhookName" . }}
- name: LLM_OPERATOR_WEBHOOK_SERVICE_NAMES
  value: {{ include "llm-sidecar.webhookServiceNames" . | fromYamlArray | join "," | quote }}
{{- end }}
{{- end }}

{{- define "llm-sidecar.webhookEnvironment" -}}
- name: LLM_OPERATOR_LOG_LEVEL
  value: {{ .Values.webhook.logLevel | quote }}
- name: LLM_OPERATOR_REQUIRE_QUOTA
  value: {{ .Values.injection.requireQuota | quote }}
- name: LLM_OPERATOR_SIDECAR_IMAGE
  value: {{ include "llm-sidecar.sidecarImage" . }}
- name: LLM_OPERATOR_SIDECAR_IMAGE_PULL_POLICY
  value: {{ .Values.sidecar.image.pullPolicy }}
- name: LLM_OPERATOR_SIDECAR_LOG_LEVEL
  value: {{ .Values.sidecar.logLevel }}
{{- with .Values.sidecar.runAsUser }}
- name: LLM_OPERATOR_SIDECAR_RUN_AS_USER
  value: {{ . | int64 | quote }}
{{- end }}
- name: LLM_OPERATOR_SIDECAR_CPU_REQUEST
  value: {{ .Values.sidecar.resources.requests.cpu | quote }}
{{- with .Values.sidecar.resources.limits.cpu }}
- name: LLM_OPERATOR_SIDECAR_CPU_LIMIT
  value: {{ . | quote }}
{{- end }}
- name: LLM_OPERATOR_SIDECAR_MEMORY_REQUEST
  value: {{ .Values.sidecar.resources.requests.memory | quote }}
- name: LLM_OPERATOR_SIDECAR_MEMORY_LIMIT
  value: {{ .Values.sidecar.resources.limits.memory | quote }}
- name: LLM_OPERATOR_SIDECAR_GUARANTEED_CPU
  value: {{ .Values.sidecar.guaranteedCPU | quote }}
{{- end }}
