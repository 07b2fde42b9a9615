"""Sessions for pages that use the AI SDK: its UI messages, and the stream protocol of its default transport (ADR 21)."""
