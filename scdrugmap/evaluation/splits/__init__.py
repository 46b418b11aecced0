"""Which cells train and which test, and the loop over the folds."""
