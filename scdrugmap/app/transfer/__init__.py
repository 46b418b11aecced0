"""Trained on one data set, tested on another, for every pair."""
