"""A run on disk: its folder, state, checkpoints, lock and progress."""
