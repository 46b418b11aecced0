"""The app's jobs: uploads, checks and predictions that outlive a page, and the endpoints they may ask."""
