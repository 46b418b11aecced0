"""What stands between a data set and an honest score."""
