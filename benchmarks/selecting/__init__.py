"""Parts of the benchmarks of the selectors."""
