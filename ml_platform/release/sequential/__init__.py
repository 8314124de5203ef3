"""Statistics that may be looked at as often as one likes: every bound and every proof holds at all looks at once."""
