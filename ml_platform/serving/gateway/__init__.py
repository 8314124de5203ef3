"""The gateway's edge: HTTP in OpenAI's format, keys, limits, and everything that is said of answers later."""
