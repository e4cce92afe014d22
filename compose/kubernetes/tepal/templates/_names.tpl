{{/* The name of the release's objects. 30 characters leave room for "-worker-", a group's name, and the prefix "keda-hpa-". */}}
{{- define "tepal.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | trunc 30 | trimSuffix "-" -}}
{{- end -}}

{{/* The labels by which a Service finds its pods. Arguments: context, component, group or "". */}}
{{- define "tepal.selector" -}}
{{- $context := index . 0 -}}
app.kubernetes.io/name: {{ default $context.Chart.Name $context.Values.nameOverride }}
app.kubernetes.io/instance: {{ $context.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- with index . 2 }}
tepal-group: {{ . }}
{{- end }}
{{- end -}}

{{/* All labels of an object. Arguments as above. */}}
{{- define "tepal.labels" -}}
{{- $context := index . 0 -}}
{{ include "tepal.selector" . }}
app.kubernetes.io/version: {{ $context.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: tepal
app.kubernetes.io/managed-by: {{ $context.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $context.Chart.Name $context.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "tepal.serviceAccount" -}}
{{- $own := ternary (include "tepal.fullname" .) "default" .Values.serviceAccount.create -}}
{{- default $own .Values.serviceAccount.name -}}
{{- end -}}

{{/* The reference of an image. Arguments: context, its values, the repository. */}}
{{- define "tepal.image" -}}
{{- $context := index . 0 -}}
{{- $own := index . 1 -}}
{{- with $context.Values.image.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{- index . 2 -}}
{{- if $own.digest -}}
@{{ $own.digest }}
{{- else -}}
:{{ coalesce $own.tag $context.Values.image.tag $context.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* A value as text. Helm reads numbers as floating-point, and would print 1048576 as 1.048576e+06. */}}
{{- define "tepal.text" -}}
{{- if and (kindIs "float64" .) (eq . (floor .)) }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- end -}}

{{/* "0" if an autoscaler may stop all workers of a group, else "1". */}}
{{- define "tepal.workersExpected" -}}
{{- $expected := 1 -}}
{{- range .Values.worker.groups -}}
{{- $group := mergeOverwrite (deepCopy (omit $.Values.worker "groups")) . -}}
{{- if and (eq $group.autoscaling.mode "keda") (eq (int $group.autoscaling.minReplicas) 0) }}{{ $expected = 0 }}{{ end -}}
{{- end -}}
{{- $expected -}}
{{- end -}}
