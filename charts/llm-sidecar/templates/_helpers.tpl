{{- define "llm-sidecar.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* Short enough for the longest suffix that is put behind it. */}}
{{- define "llm-sidecar.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "llm-sidecar.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "llm-sidecar.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "llm-sidecar.controllerName" -}}
{{ include "llm-sidecar.fullname" . }}-controller
{{- end }}

{{- define "llm-sidecar.webhookName" -}}
{{ include "llm-sidecar.fullname" . }}-webhook
{{- end }}

{{- define "llm-sidecar.redisName" -}}
{{ include "llm-sidecar.fullname" . }}-redis
{{- end }}

{{/* Labels of an object: (dict "root" $ "component" NAME), and for a pod "extra". Nobody's extra label replaces ours. */}}
{{- define "llm-sidecar.labels" -}}
{{- $ours := dict
  "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-")
  "app.kubernetes.io/version" .root.Chart.AppVersion
  "app.kubernetes.io/managed-by" .root.Release.Service
  "app.kubernetes.io/part-of" "llm-sidecar"
}}
{{- $selected := include "llm-sidecar.selectorLabels" . | fromYaml }}
{{- toYaml (merge (dict) $selected $ours (.extra | default dict) .root.Values.commonLabels) }}
{{- end }}

{{/* What never changes, because a Deployment's selector cannot: (dict "root" $ "component" NAME). */}}
{{- define "llm-sidecar.selectorLabels" -}}
app.kubernetes.io/name: {{ include "llm-sidecar.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* An image by its digest, else by its tag: (dict "image" VALUES "root" $). */}}
{{- define "llm-sidecar.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end }}
{{- end }}

{{- define "llm-sidecar.operatorImage" -}}
{{ include "llm-sidecar.image" (dict "root" . "image" .Values.image) }}
{{- end }}

{{- define "llm-sidecar.sidecarImage" -}}
{{ include "llm-sidecar.image" (dict "root" . "image" .Values.sidecar.image) }}
{{- end }}

{{/* Namespaces whose providers serve others, with commas between. */}}
{{- define "llm-sidecar.providerNamespaces" -}}
{{- .Values.providerNamespaces | default (list .Release.Namespace) | uniq | sortAlpha | join "," }}
{{- end }}

{{/* The names of the webhook's Service, as a list; the API server calls it by the first. */}}
{{- define "llm-sidecar.webhookServiceNames" -}}
{{- $name := printf "%s.%s.svc" (include "llm-sidecar.webhookName" .) .Release.Namespace -}}
- {{ $name }}
- {{ $name }}.cluster.local
{{- end }}

{{/* The Secret that holds the webhook's certificate. */}}
{{- define "llm-sidecar.certificateSecret" -}}
{{- if eq .Values.webhook.certificates.mode "existingSecret" -}}
{{ .Values.webhook.certificates.existingSecret.name }}
{{- else -}}
{{ include "llm-sidecar.webhookName" . }}-certificate
{{- end }}
{{- end }}

{{/* What the restricted PodSecurity profile asks of a pod. */}}
{{- define "llm-sidecar.podSecurityContext" -}}
runAsNonRoot: true
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* What it asks of a container, and a file system that nobody writes to. */}}
{{- define "llm-sidecar.securityContext" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* Where a pod runs: the values of a component. */}}
{{- define "llm-sidecar.scheduling" -}}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Egress to the cluster's DNS, wherever that runs. */}}
{{- define "llm-sidecar.dnsEgress" -}}
- ports:
  - {protocol: UDP, port: 53}
  - {protocol: TCP, port: 53}
{{- end }}

{{/* Only where the certificate is the user's own. Else whoever makes it writes caBundle, and the chart has no opinion. */}}
{{- define "llm-sidecar.caBundle" -}}
{{- if eq .Values.webhook.certificates.mode "existingSecret" }}
caBundle: {{ .Values.webhook.certificates.existingSecret.caBundle | b64enc }}
{{- end }}
{{- end }}
