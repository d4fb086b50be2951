"""Judging stored results and annotations: figures, agreement. No torch, no window."""
