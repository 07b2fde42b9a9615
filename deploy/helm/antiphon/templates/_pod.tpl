{{/*
What all Pods have in common: how they reach NATS, and how they are confined.

`root`; `c`: the values of the component; `component`; `name` of its ServiceAccount.
*/}}

{{- define "antiphon.natsSecret" -}}
{{- $own := .c.natsCredentials -}}
{{- if $own.secretName -}}
{{- dict "name" $own.secretName "key" $own.key | toJson -}}
{{- else -}}
{{- dict "name" .root.Values.connection.credentials.secretName "key" .root.Values.connection.credentials.key | toJson -}}
{{- end -}}
{{- end -}}

{{/* What a part is to NATS: docs/SECURITY-NATS.md. */}}
{{- define "antiphon.natsRole" -}}
{{- if eq .component "topology" }}provisioner{{ else }}{{ .component }}{{ end -}}
{{- end -}}

{{- define "antiphon.sharedEnv" -}}
{{- $connection := .root.Values.connection -}}
- name: ANTIPHON_NATS_URL
  {{- if $connection.urlSecret.name }}
  valueFrom:
    secretKeyRef: {name: {{ $connection.urlSecret.name }}, key: {{ $connection.urlSecret.key }}}
  {{- else }}
  value: {{ tpl $connection.url .root | quote }}
  {{- end }}
{{- $secret := include "antiphon.natsSecret" . | fromJson }}
{{- if $connection.users.secretName }}
{{- $role := include "antiphon.natsRole" . }}
- name: ANTIPHON_NATS_USER
  value: {{ $role }}
- name: ANTIPHON_NATS_PASSWORD_FILE
  value: /etc/antiphon/nats-password/{{ $role }}
- name: ANTIPHON_NATS_INBOX
  value: _INBOX_{{ $role }}
{{- else if $secret.name }}
- name: ANTIPHON_NATS_CREDENTIALS
  value: /etc/antiphon/nats-credentials/{{ $secret.key }}
{{- end }}
{{- if or $connection.tls.caConfigMap $connection.tls.caSecret }}
- name: ANTIPHON_NATS_CA_FILE
  value: /etc/antiphon/nats-ca/{{ $connection.tls.caKey }}
{{- end }}
{{- if $connection.tls.clientSecret }}
- name: ANTIPHON_NATS_CERT_FILE
  value: /etc/antiphon/nats-client/tls.crt
- name: ANTIPHON_NATS_KEY_FILE
  value: /etc/antiphon/nats-client/tls.key
{{- end }}
{{- range $name, $value := merge (dict) .c.settings .root.Values.settings }}
- name: {{ $name }}
  value: {{ include "antiphon.text" $value | quote }}
{{- end }}
{{- with .c.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "antiphon.sharedMounts" -}}
- {name: tmp, mountPath: /tmp}
{{- if .root.Values.connection.users.secretName }}
- {name: nats-password, mountPath: /etc/antiphon/nats-password, readOnly: true}
{{- else if (include "antiphon.natsSecret" . | fromJson).name }}
- {name: nats-credentials, mountPath: /etc/antiphon/nats-credentials, readOnly: true}
{{- end }}
{{- with .root.Values.connection.tls }}
{{- if or .caConfigMap .caSecret }}
- {name: nats-ca, mountPath: /etc/antiphon/nats-ca, readOnly: true}
{{- end }}
{{- if .clientSecret }}
- {name: nats-client, mountPath: /etc/antiphon/nats-client, readOnly: true}
{{- end }}
{{- end }}
{{- with .c.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Secrets can be read by the group, which is the Pod's fsGroup, and by nobody else. */}}
{{- define "antiphon.sharedVolumes" -}}
- name: tmp
  emptyDir: {sizeLimit: {{ .root.Values.tmpSize }}}
{{- $secret := include "antiphon.natsSecret" . | fromJson }}
{{- if .root.Values.connection.users.secretName }}
- name: nats-password
  secret:
    secretName: {{ .root.Values.connection.users.secretName }}
    defaultMode: 0440
    items: [{key: {{ include "antiphon.natsRole" . }}, path: {{ include "antiphon.natsRole" . }}}]
{{- else if $secret.name }}
- name: nats-credentials
  secret:
    secretName: {{ $secret.name }}
    defaultMode: 0440
    items: [{key: {{ $secret.key }}, path: {{ $secret.key }}}]
{{- end }}
{{- with .root.Values.connection.tls }}
{{- if .caConfigMap }}
- name: nats-ca
  configMap:
    name: {{ .caConfigMap }}
    items: [{key: {{ .caKey }}, path: {{ .caKey }}}]
{{- else if .caSecret }}
- name: nats-ca
  secret:
    secretName: {{ .caSecret }}
    defaultMode: 0440
    items: [{key: {{ .caKey }}, path: {{ .caKey }}}]
{{- end }}
{{- if .clientSecret }}
- name: nats-client
  secret:
    secretName: {{ .clientSecret }}
    defaultMode: 0440
{{- end }}
{{- end }}
{{- with .c.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What stands before the containers. */}}
{{- define "antiphon.podHead" -}}
serviceAccountName: {{ include "antiphon.serviceAccountName" (dict "account" .c.serviceAccount "name" .name) }}
automountServiceAccountToken: false
# A Service named `antiphon` would set ANTIPHON_PORT.
enableServiceLinks: false
securityContext:
  {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .c.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .c.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .c.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .c.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .c.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .c.initContainers }}
initContainers:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "antiphon.spread" -}}
topologySpreadConstraints:
{{- if .c.topologySpreadConstraints }}
  {{- toYaml .c.topologySpreadConstraints | nindent 2 }}
{{- else }}
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "antiphon.selector" $ | nindent 8 }}
    # The Pods of a rollout among themselves.
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end }}
{{- end -}}

{{/* A probe: `probe` (its values), `path`, `port`. */}}
{{- define "antiphon.probe" -}}
httpGet: {path: {{ .path }}, port: {{ .port }}}
{{ toYaml .probe }}
{{- end -}}

{{- define "antiphon.pdb" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "antiphon.metadata" . | nindent 2 }}
spec:
  # Never `minAvailable`: with one replica it would hold up the draining of a node for ever.
  maxUnavailable: {{ .c.pdb.maxUnavailable }}
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "antiphon.selector" . | nindent 6 }}
{{- end -}}
