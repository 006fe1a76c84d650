"""The computations underneath: pooling with switches, selection, the Lanczos process."""
