"""Features as they were known: built from a snapshot, joined at a point in time, read online."""
