"""Webhooks: telling systems of others what happened in sessions, so that a user who is away can be told."""
