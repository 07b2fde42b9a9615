{{/* Names. The longest that is made of it is that of the topology Job, which must not have more than 63 characters. */}}
{{- define "antiphon.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 43 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 43 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 43 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What selects the Pods of a component: `root`, `component`, and for workers `worker`. */}}
{{- define "antiphon.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- with .worker }}
antiphon-worker: {{ . }}
{{- end }}
{{- end -}}

{{- define "antiphon.labels" -}}
{{ include "antiphon.selector" . }}
app.kubernetes.io/part-of: antiphon
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels of Pods. Nothing of versions: a chart that is new in nothing else must not move clients. */}}
{{- define "antiphon.podLabels" -}}
{{ include "antiphon.selector" . }}
app.kubernetes.io/part-of: antiphon
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- with .c.podLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The metadata of an object: `root`, `component`, `name`; perhaps `worker`, `labels`, `annotations`. */}}
{{- define "antiphon.metadata" -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "antiphon.labels" . | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) (.annotations | default dict) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "antiphon.image" -}}
{{- $repository := .image.repository -}}
{{- with .root.Values.image.registry -}}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) $repository -}}
{{- end -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (.image.tag | default .root.Values.image.tag | default .root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* The label of a worker's version: `root`, `c`. */}}
{{- define "antiphon.workerVersion" -}}
{{- if .c.version -}}
{{- .c.version -}}
{{- else if .c.image.digest -}}
{{- .c.image.digest | trimPrefix "sha256:" | trunc 12 -}}
{{- else -}}
{{- .c.image.tag | default .root.Values.image.tag | default .root.Chart.AppVersion -}}
{{- end -}}
{{- end -}}

{{/* The name of a component's ServiceAccount: `root`, `account` (its values), `name`. */}}
{{- define "antiphon.serviceAccountName" -}}
{{- if .account.create -}}
{{- default .name .account.name -}}
{{- else -}}
{{- default "default" .account.name -}}
{{- end -}}
{{- end -}}

{{- define "antiphon.serviceAccount" -}}
{{- if .account.create }}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "antiphon.metadata" (dict "root" .root "component" .component "worker" .worker "name" (default .name .account.name) "annotations" .account.annotations) | nindent 2 }}
automountServiceAccountToken: false
{{- end }}
{{- end -}}

{{/* The workers, each with the defaults, as JSON: {"workers": [...]}. */}}
{{- define "antiphon.workers" -}}
{{- $found := list -}}
{{- range .Values.workers -}}
{{- $worker := mustMergeOverwrite (deepCopy $.Values.workerDefaults) (deepCopy .) -}}
{{- $_ := set $worker "pool" ($worker.pool | default $worker.name) -}}
{{- $found = append $found $worker -}}
{{- end -}}
{{- dict "workers" $found | toJson -}}
{{- end -}}

{{/* ANTIPHON_POOLS: the first is the default. */}}
{{- define "antiphon.pools" -}}
{{- $pools := list -}}
{{- range (include "antiphon.workers" . | fromJson).workers -}}
{{- $pools = append $pools .pool -}}
{{- end -}}
{{- concat $pools .Values.log.extraPools | uniq | join "," -}}
{{- end -}}

{{/* The ports of NATS, separated by commas. */}}
{{- define "antiphon.natsPorts" -}}
{{- $ports := list -}}
{{- range .Values.networkPolicy.natsPorts -}}
{{- $ports = append $ports (int . | toString) -}}
{{- end -}}
{{- if not $ports -}}
{{- range splitList "," (tpl .Values.connection.url .) -}}
{{- $ports = append $ports (regexFind "[0-9]+$" (regexFind ":[0-9]+/?$" (trim .) | trimSuffix "/") | default "4222") -}}
{{- end -}}
{{- end -}}
{{- $ports | uniq | join "," -}}
{{- end -}}

{{/* How long a cloud's balancer waits for a gateway that leaves. None of them waits for more than an hour. */}}
{{- define "antiphon.balancerDrain" -}}
{{- with .Values.gateway.drain -}}
{{- min 3600 (add .preStopSeconds .delaySeconds .seconds) -}}
{{- end -}}
{{- end -}}

{{/* The value of an environment variable. Numbers of YAML are floats, and large ones would be written as 1e+06. */}}
{{- define "antiphon.text" -}}
{{- if kindIs "float64" . -}}
{{- if eq (floor .) . -}}{{ int64 . }}{{- else -}}{{ . }}{{- end -}}
{{- else -}}
{{- toString . -}}
{{- end -}}
{{- end -}}
