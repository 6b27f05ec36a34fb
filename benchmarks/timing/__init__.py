"""What the timed benchmarks share: how a contestant is measured, how pairs are compared, what a result records."""
