"""Monitoring: windows of live traffic, labels, drift, quality, and when to train again."""
