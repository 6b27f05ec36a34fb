"""One file per kind of held-out task: prompts and a grader; data by path."""
