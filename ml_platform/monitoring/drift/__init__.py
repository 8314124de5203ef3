"""Drift: what moved between what production's release learnt from and the days since."""
