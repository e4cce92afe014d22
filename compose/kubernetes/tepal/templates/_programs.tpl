{{/* Environment, volumes and mounts of each program. The Deployments and the pods of `helm test` share them. */}}

{{- define "tepal.proxyEnv" -}}
{{- $proxy := .Values.proxy }}
{{- $tls := $proxy.tls }}
{{- include "tepal.redis" (list . .Values.redis.proxy) }}
{{- if and .Values.models.volume .Values.models.proxy }}
- { name: MODELS_DIR, value: /etc/tepal/models }
{{- end }}
- { name: LISTEN_ADDR, value: "0.0.0.0:8000" }
{{- if $proxy.grpc.enabled }}
- { name: GRPC_LISTEN_ADDR, value: "0.0.0.0:8001" }
{{- end }}
- { name: SHUTDOWN_DELAY_MS, value: {{ include "tepal.text" $proxy.shutdownDelayMs | quote }} }
- { name: DRAIN_TIMEOUT_SECONDS, value: {{ include "tepal.text" $proxy.drainTimeoutSeconds | quote }} }
- { name: WORKERS_EXPECTED, value: {{ include "tepal.workersExpected" . | quote }} }
{{- if $proxy.apiKeys.existingSecret }}
- { name: API_KEYS_FILE, value: /run/api-keys/{{ $proxy.apiKeys.key }} }
{{- end }}
{{- if $tls.existingSecret }}
- { name: TLS_CERT_FILE, value: /run/tls/tls.crt }
- { name: TLS_KEY_FILE, value: /run/tls/tls.key }
{{- if $tls.clientCaSecret }}
- { name: TLS_CLIENT_CA_FILE, value: /run/tls-clients/{{ $tls.clientCaKey }} }
- { name: TLS_CLIENT_AUTH, value: optional }
{{- end }}
{{- end }}
{{- include "tepal.settings" $proxy.settings }}
{{- with $proxy.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "tepal.proxyVolumes" -}}
{{- $proxy := .Values.proxy }}
{{- include "tepal.volumes" (list . .Values.models.proxy) }}
{{- with $proxy.apiKeys.existingSecret }}
- name: api-keys
  secret: { secretName: {{ . }} }
{{- end }}
{{- with $proxy.tls }}
{{- if .existingSecret }}
- name: tls
  secret: { secretName: {{ .existingSecret }}, defaultMode: 0440 }
{{- if .clientCaSecret }}
- name: tls-clients
  secret: { secretName: {{ .clientCaSecret }} }
{{- end }}
{{- end }}
{{- end }}
{{- with $proxy.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Folders, not files: a mounted file would never be renewed, and the proxy reads these files again when they change. */}}
{{- define "tepal.proxyVolumeMounts" -}}
{{- $proxy := .Values.proxy }}
{{- include "tepal.volumeMounts" (list . .Values.models.proxy) }}
{{- if $proxy.apiKeys.existingSecret }}
- { name: api-keys, mountPath: /run/api-keys, readOnly: true }
{{- end }}
{{- if $proxy.tls.existingSecret }}
- { name: tls, mountPath: /run/tls, readOnly: true }
{{- if $proxy.tls.clientCaSecret }}
- { name: tls-clients, mountPath: /run/tls-clients, readOnly: true }
{{- end }}
{{- end }}
{{- with $proxy.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Arguments: context, the values of the group. */}}
{{- define "tepal.workerEnv" -}}
{{- $context := index . 0 }}
{{- $group := index . 1 }}
{{- $inProcess := hasPrefix "onnx" $group.backend }}
{{- $cpu := ($group.resources.requests).cpu }}
{{- include "tepal.redis" (list $context $context.Values.redis.worker) }}
{{- if $context.Values.models.volume }}
- { name: MODELS_DIR, value: /etc/tepal/models }
{{- end }}
- { name: METRICS_ADDR, value: "0.0.0.0:9100" }
- { name: MODEL_BACKEND, value: {{ $group.backend }} }
{{- with $group.models }}
- { name: MODELS, value: {{ join "," . | quote }} }
{{- end }}
- { name: DRAIN_TIMEOUT_SECONDS, value: {{ include "tepal.text" $group.drainTimeoutSeconds | quote }} }
{{- /* A pod sees all cores of its node. */}}
{{- range list "NUM_WORKERS" (ternary "ONNXRUNTIME_THREADS" "" (eq $group.backend "onnxruntime")) }}
{{- if and . $inProcess $cpu (not (hasKey $group.settings .)) }}
- name: {{ . }}
  valueFrom: { resourceFieldRef: { resource: requests.cpu, divisor: "1" } }
{{- end }}
{{- end }}
{{- include "tepal.settings" $group.settings }}
{{- with $group.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "tepal.workerVolumes" -}}
{{- include "tepal.volumes" (list (index . 0) true) }}
{{- with (index . 1).extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "tepal.workerVolumeMounts" -}}
{{- include "tepal.volumeMounts" (list (index . 0) true) }}
{{- with (index . 1).extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "tepal.workerImage" -}}
{{- $image := (index . 1).image }}
{{- $default := ternary "tepal-worker-onnxruntime" "tepal-worker" (eq (index . 1).backend "onnxruntime") }}
{{- include "tepal.image" (list (index . 0) $image (default $default $image.repository)) }}
{{- end -}}
