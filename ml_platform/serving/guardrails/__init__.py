"""Guardrails: what is checked before and after the model, by rules and by a served judge."""
