"""The questions, a module each: ``cases(bench)`` yields one situation after another, with everybody ready to run."""
