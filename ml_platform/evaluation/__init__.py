"""What a candidate is worth: metrics, slices, paired comparison, safety, cost, latency, the report."""
