"""Moving releases between slots; the controller is the only code that does."""
