"""From scores to what a reader asks: rankings, tests, gaps, curves, transfer."""
