"""What assets need from outside: the home of all state, the artifact store, manifests, and where training runs."""
