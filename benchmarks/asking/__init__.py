"""Parts of the benchmarks of the teacher-call layer."""
