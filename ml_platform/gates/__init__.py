"""Policy and measurements in, verdicts with reasons out; pure."""
