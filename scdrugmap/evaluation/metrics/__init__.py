"""What a score is: metrics, their constants, bootstrap intervals, reliability."""
