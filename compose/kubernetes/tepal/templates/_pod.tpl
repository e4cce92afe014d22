{{/* Settings as environment variables. Argument: a map of names to values. */}}
{{- define "tepal.settings" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ include "tepal.text" $value | quote }}
{{- end }}
{{- end -}}

{{/* Where Redis is and who logs in. Arguments: context, the values of the user. */}}
{{- define "tepal.redis" -}}
{{- $context := index . 0 -}}
{{- $user := index . 1 -}}
{{- with $context.Values.redis.urlSecret }}
{{- if .name }}
- name: REDIS_URL
  valueFrom: { secretKeyRef: { name: {{ .name }}, key: {{ .key }} } }
{{- end }}
{{- end }}
{{- with $user.username }}
- name: REDIS_USERNAME
  value: {{ . | quote }}
{{- end }}
{{- if $user.existingSecret }}
- name: REDIS_PASSWORD
  valueFrom: { secretKeyRef: { name: {{ $user.existingSecret }}, key: {{ $user.passwordKey }} } }
{{- end }}
{{- with $context.Values.redis.sentinel }}
{{- with .username }}
- name: SENTINEL_USERNAME
  value: {{ . | quote }}
{{- end }}
{{- if .existingSecret }}
- name: SENTINEL_PASSWORD
  valueFrom: { secretKeyRef: { name: {{ .existingSecret }}, key: {{ .passwordKey }} } }
{{- end }}
{{- end }}
{{- end -}}

{{/* The ConfigMap that proxies and workers share. */}}
{{- define "tepal.shared" -}}
- configMapRef: { name: {{ include "tepal.fullname" . }} }
{{- end -}}

{{/* Volumes of both programs. Arguments: context, whether the models are mounted. */}}
{{- define "tepal.volumes" -}}
{{- $context := index . 0 -}}
{{- if and $context.Values.models.volume (index . 1) }}
- name: models
  {{- toYaml $context.Values.models.volume | nindent 2 }}
{{- end }}
{{- with $context.Values.redis.tls.existingSecret }}
- name: redis-tls
  secret: { secretName: {{ . }} }
{{- end }}
{{- end -}}

{{- define "tepal.volumeMounts" -}}
{{- $context := index . 0 -}}
{{- if and $context.Values.models.volume (index . 1) }}
- { name: models, mountPath: /etc/tepal/models, readOnly: true }
{{- end }}
{{- if $context.Values.redis.tls.existingSecret }}
- { name: redis-tls, mountPath: /run/redis-tls, readOnly: true }
{{- end }}
{{- end -}}

{{/* What every pod has. Arguments: context, the values of the program. */}}
{{- define "tepal.podBasics" -}}
{{- $context := index . 0 -}}
serviceAccountName: {{ include "tepal.serviceAccount" $context }}
automountServiceAccountToken: false
# A Service named redis would set REDIS_PORT to an address.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile: { type: RuntimeDefault }
{{- with $context.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with index . 1 }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Spreads the pods over nodes. Arguments: context, the values of the program, component, group. */}}
{{- define "tepal.spread" -}}
topologySpreadConstraints:
{{- with (index . 1).topologySpreadConstraints }}
  {{- toYaml . | nindent 2 }}
{{- else }}
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    # Pods of the version before do not count.
    matchLabelKeys: [pod-template-hash]
    labelSelector:
      matchLabels: {{ include "tepal.selector" (list (index . 0) (index . 2) (index . 3)) | nindent 8 }}
{{- end }}
{{- end -}}

{{- define "tepal.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end -}}
