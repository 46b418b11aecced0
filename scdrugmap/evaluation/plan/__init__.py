"""What to run, what it lacks and what it costs, before anything runs."""
