"""The session log: events, their codec, the fold, and the log itself over NATS JetStream.

Everything directly in this package is pure (no asyncio, clock or network). `broker.jetstream` is the one
part that talks to NATS; only composition roots import it.
"""
