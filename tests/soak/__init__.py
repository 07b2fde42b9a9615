"""`make soak`: real processes under a steady load for long, and whether anything grows, or is lost in the sums."""
