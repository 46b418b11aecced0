"""The loader: one module a kind of file, each checking sizes and structure before anything is allocated."""
