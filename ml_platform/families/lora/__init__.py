"""LoRA adapters on small language models."""
