"""Weights that others trained: the frozen networks behind the losses, and the authors' released ISPs."""
