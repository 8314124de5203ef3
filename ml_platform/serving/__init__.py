"""Serving: routing, breakers and guardrails as pure decisions; the gateway and the engine that act on them."""
