"""The loss terms of section 3, and Dynamic Loss Adaptation.

A loss is a small callable: constants in `__init__`, formula in `__call__`. It gets features or images, on whatever
device they are, and returns a scalar. No loss loads a weight.
"""
