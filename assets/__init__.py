"""The asset chain of a product: each asset loads, calls one function of the domain, and says what came out."""
