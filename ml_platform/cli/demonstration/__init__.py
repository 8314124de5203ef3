"""The demonstration: nine months of a product, played faster than life by the real processes."""
