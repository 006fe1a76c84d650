"""Speed by ratios in one run, each figure after a check that all ways give the same numbers."""
