"""The safe door for files: one module a container, each checking sizes and structure before anything is allocated."""
