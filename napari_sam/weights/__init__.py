"""Weights: which exist, how they come onto this machine, how a network gets them.

`table` knows facts and imports nothing heavy, so that a command can list the weights
at once; `download` brings files here and proves them; `recognise` tells the network
from the names and shapes of parameters; `load` joins these; `device` chooses where
and how precisely to compute.
"""
