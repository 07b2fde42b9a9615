"""Runs agents: takes lanes that have work, folds their sessions, runs the author's function, writes under a fence."""
