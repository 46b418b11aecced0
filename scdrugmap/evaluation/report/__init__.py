"""A report of runs as Markdown and as one HTML file."""
