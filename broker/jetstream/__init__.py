"""The session log over NATS JetStream: the only package that imports `nats`."""
