"""Peers of the overhead benchmark: each module builds the same training with another framework.

`epochs(row)` gives name -> a function that trains one epoch and waits for it; NEEDS names what has to be installed.
A peer is given its best case: device-resident or tensor-indexed data, no evaluation, no logging, float32, one Adam.
"""
