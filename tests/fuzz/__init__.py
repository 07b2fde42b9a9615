"""Fuzzing: hostile bytes for everything that reads what others wrote (docs/FUZZING.md).

`targets` has what is called with them, `corpus` what they are made from, `mutation` how. The tests beside replay all that
ever failed and try a little more; `make fuzz` searches on, led by coverage.
"""
