"""How products learn: one folder a family, each able to prepare, train, load and predict."""
