"""Parameters between our names and a checkpoint's files, in both directions."""

from triarch.weights.table import Layout, Stored

__all__ = ["Layout", "Stored"]
