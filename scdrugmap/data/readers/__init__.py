"""Readers of what users bring: one module a container, each checking sizes and structure before it reads."""
