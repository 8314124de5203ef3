"""The console: pages for people that show what serves, what the controller sees and what it waits for."""
