{{/* What the schema cannot say. */}}
{{- define "antiphon.validate" -}}
{{- include "antiphon.validateConnection" . -}}
{{- include "antiphon.validateAuth" . -}}
{{- include "antiphon.validateGateway" . -}}
{{- include "antiphon.validateWorkers" . -}}
{{- if and .Values.webhooks.enabled (not .Values.webhooks.endpoints.secretName) -}}
{{- fail "\n\nwebhooks.endpoints.secretName: name the Secret with the file of endpoints (docs/WEBHOOKS.md)\n" -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{- fail "\n\ningress.hosts: name the hosts that clients connect to\n" -}}
{{- end -}}
{{- if and .Values.gatewayApi.enabled (not .Values.gatewayApi.parentRefs) -}}
{{- fail "\n\ngatewayApi.parentRefs: name the Gateway that clients come through\n" -}}
{{- end -}}
{{- end -}}

{{- define "antiphon.validateConnection" -}}
{{- with .Values.connection -}}
{{- if and (not .url) (not .urlSecret.name) -}}
{{- fail "\n\nconnection.url: say where NATS is, e.g. nats://nats.nats:4222 (or name a Secret in connection.urlSecret)\n" -}}
{{- end -}}
{{- if and .url .urlSecret.name -}}
{{- fail "\n\nconnection: set url or urlSecret, not both\n" -}}
{{- end -}}
{{- if contains "@" .url -}}
{{- fail "\n\nconnection.url: a user and password could be read by everybody here; put the URL into a Secret and name that in connection.urlSecret\n" -}}
{{- end -}}
{{- if .url -}}
{{- range splitList "," .url -}}
{{- if not (regexMatch "^(nats|tls)://" (trim .)) -}}
{{- fail (printf "\n\nconnection.url: %q must begin with nats:// or tls://\n" (trim .)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .tls.caConfigMap .tls.caSecret -}}
{{- fail "\n\nconnection.tls: set caConfigMap or caSecret, not both\n" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "antiphon.validateAuth" -}}
{{- with .Values.auth -}}
{{- $public := or .publicKeys.configMap .publicKeys.secret -}}
{{- if and .publicKeys.configMap .publicKeys.secret -}}
{{- fail "\n\nauth.publicKeys: set configMap or secret, not both\n" -}}
{{- end -}}
{{- if and $public (not .publicKeys.keys) -}}
{{- fail "\n\nauth.publicKeys.keys: name the keys that hold PEM files, e.g. [token.pem]\n" -}}
{{- end -}}
{{- $published := or (index $.Values.settings "ANTIPHON_JWKS") (index $.Values.gateway.settings "ANTIPHON_JWKS") -}}
{{- if not (or $public .jwtSecret.name $published) -}}
{{- fail "\n\nauth: a gateway does not start without a key to check tokens with; name a Secret in auth.jwtSecret.name, public keys in auth.publicKeys, or key sets in gateway.settings.ANTIPHON_JWKS\n" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "antiphon.validateGateway" -}}
{{- with .Values.gateway -}}
{{- include "antiphon.validateStrategy" (dict "where" "gateway.strategy" "strategy" .strategy) -}}
{{- if .autoscaling.enabled -}}
{{- if gt (int .autoscaling.minReplicas) (int .autoscaling.maxReplicas) -}}
{{- fail "\n\ngateway.autoscaling: minReplicas is above maxReplicas\n" -}}
{{- end -}}
{{- if not (or .autoscaling.connections .autoscaling.cpu) -}}
{{- fail "\n\ngateway.autoscaling: scale by connections, by cpu, or by both\n" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "antiphon.validateStrategy" -}}
{{- $zero := list "0" "0%" -}}
{{- if and (has (toString .strategy.maxSurge) $zero) (has (toString .strategy.maxUnavailable) $zero) -}}
{{- fail (printf "\n\n%s: maxSurge and maxUnavailable cannot both be 0\n" .where) -}}
{{- end -}}
{{- end -}}

{{- define "antiphon.validateWorkers" -}}
{{- $seen := list -}}
{{- range (include "antiphon.workers" . | fromJson).workers -}}
{{- $where := printf "workers, %q" .name -}}
{{- if has .name $seen -}}
{{- fail (printf "\n\n%s: there are two of this name\n" $where) -}}
{{- end -}}
{{- $seen = append $seen .name -}}
{{- if not .agent -}}
{{- fail (printf "\n\n%s: say which agent it runs, e.g. agent: my_agents:helper\n" $where) -}}
{{- end -}}
{{- include "antiphon.validateStrategy" (dict "where" (printf "%s, strategy" $where) "strategy" .strategy) -}}
{{- with .autoscaling -}}
{{- if ne .kind "none" -}}
{{- if gt (int .minReplicas) (int .maxReplicas) -}}
{{- fail (printf "\n\n%s, autoscaling: minReplicas is above maxReplicas\n" $where) -}}
{{- end -}}
{{- if and (eq .kind "hpa") (eq (int .minReplicas) 0) -}}
{{- fail (printf "\n\n%s, autoscaling: a HorizontalPodAutoscaler does not scale to 0; minReplicas must be 1 or more, or kind keda\n" $where) -}}
{{- end -}}
{{- end -}}
{{- if eq .kind "keda" -}}
{{- if and (eq .source "prometheus") (not .prometheusUrl) -}}
{{- fail (printf "\n\n%s, autoscaling.prometheusUrl: say where Prometheus is, e.g. http://prometheus.monitoring:9090\n" $where) -}}
{{- end -}}
{{- if and (eq .source "nats-jetstream") (not .natsMonitoring) -}}
{{- fail (printf "\n\n%s, autoscaling.natsMonitoring: say where NATS's monitoring is, e.g. nats-headless.nats:8222\n" $where) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
