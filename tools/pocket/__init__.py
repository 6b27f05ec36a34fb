"""Everything that makes the pocket teacher and the base student: generators, tokenizer, training, measuring."""
