"""A benchmark of training steps as values: its statistics, its results and what follows from them. No torch."""
