"""From sources to an immutable, validated extract, and the checks that nothing leaks."""
