"""From an upload to a judged prediction."""
