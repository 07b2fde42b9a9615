"""What Antiphon must be seen to do: one file for each behaviour, `test_bNN_*.py`, against real processes."""
