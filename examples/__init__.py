"""Agents to begin with: each file runs as it is (see README.md)."""
