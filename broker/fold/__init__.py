"""The parts of the fold, one for each thing that a session holds. `broker.session` says which event goes to which."""
