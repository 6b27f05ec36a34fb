"""Does it learn? Each module is one experiment: recipes over seeds, what was expected of them, and a control that must fail."""
