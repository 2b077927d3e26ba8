{{/* Combinations of values that cannot work. Each says what to set instead. */}}
{{- define "llm-sidecar.checks" -}}
{{- $redis := .Values.redis }}
{{- $ways := list }}
{{- if $redis.url }}{{ $ways = append $ways "redis.url" }}{{ end }}
{{- if $redis.existingSecret.name }}{{ $ways = append $ways "redis.existingSecret.name" }}{{ end }}
{{- if $redis.bundled.enabled }}{{ $ways = append $ways "redis.bundled.enabled" }}{{ end }}
{{- if gt (len $ways) 1 }}
{{- $hint := "" }}
{{- if $redis.bundled.enabled }}{{ $hint = ": with a Redis of your own, set redis.bundled.enabled=false" }}{{ end }}
{{- fail (printf "redis: %s are both set, and there can be only one Redis%s" (join " and " $ways) $hint) }}
{{- end }}
{{- if not $ways }}
{{- fail "redis: no Redis is named, and limits are counted there: set redis.url, redis.existingSecret.name, or for a trial redis.bundled.enabled=true" }}
{{- end }}
{{- if $redis.ca.secretName }}
{{- if $redis.bundled.enabled }}
{{- fail "redis.ca.secretName: the bundled Redis speaks no TLS: remove it, or name a Redis of your own and set redis.bundled.enabled=false" }}
{{- end }}
{{- if and $redis.url (not (hasPrefix "rediss" $redis.url)) }}
{{- fail "redis.ca.secretName is set, but redis.url means no TLS: begin it with rediss, or remove redis.ca.secretName" }}
{{- end }}
{{- end }}
{{- $certificates := .Values.webhook.certificates }}
{{- $existing := $certificates.existingSecret }}
{{- if eq $certificates.mode "existingSecret" }}
{{- if not (and $existing.name $existing.caBundle) }}
{{- fail "webhook.certificates: mode existingSecret needs both existingSecret.name and existingSecret.caBundle, by which the API server knows the webhook" }}
{{- end }}
{{- else if or $existing.name $existing.caBundle }}
{{- fail (printf "webhook.certificates: existingSecret is set, but mode is %s: set webhook.certificates.mode=existingSecret, or remove it" $certificates.mode) }}
{{- end }}
{{- if and $certificates.certManager.issuerRef (ne $certificates.mode "certManager") }}
{{- fail (printf "webhook.certificates: certManager.issuerRef is set, but mode is %s: set webhook.certificates.mode=certManager, or remove it" $certificates.mode) }}
{{- end }}
{{- if has .Release.Namespace (list "kube-system" "default" "kube-public" "kube-node-lease") }}
{{- fail (printf "the release's namespace is %s: choose one of its own, such as --namespace llm-system --create-namespace, because the webhook leaves its own namespace alone and the controller's provider keys lie in it" .Release.Namespace) }}
{{- end }}
{{- if has .Values.tests.namespace (list .Release.Namespace "kube-system") }}
{{- fail (printf "tests.namespace: the webhook leaves %s alone, so nothing can be tested there: name another" .Values.tests.namespace) }}
{{- end }}
{{- end }}
