"""The leaderboard, the views beside it, and the card of each model."""
