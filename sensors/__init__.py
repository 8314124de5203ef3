"""Triggers: read a small report, return a RunRequest or a SkipReason."""
