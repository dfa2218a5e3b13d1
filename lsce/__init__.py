"""lsce: the reproducible report on label smoothing cross entropy."""
