"""Continuous training and safe release of fine-tuned models, as a library without an orchestrator."""

__version__ = "0.1.0"
