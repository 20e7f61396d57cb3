"""Weights trained by others: the frozen networks behind the losses and measures, and the authors' released ISPs."""
