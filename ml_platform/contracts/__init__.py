"""Frozen values that cross files, processes and networks, their canonical bytes and their digests."""
