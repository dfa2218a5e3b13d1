"""Claims, intervals and verdicts."""
