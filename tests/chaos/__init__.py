"""The suite of faults: a cluster under load, a nemesis that breaks it, and a checker of what everybody has seen."""
