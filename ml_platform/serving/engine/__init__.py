"""The embedded engine: one base model, many adapters in one batch, behind vLLM's HTTP protocol."""
