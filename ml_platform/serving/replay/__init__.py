"""Real traffic of past days, played to a gateway in the order in which it happened."""
