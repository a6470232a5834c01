"""engine.weights: the weights that the site serves are the inventory's, on every node and since the last good run.

A path and a name say nothing of what lies there. Two witnesses do: samples of the model's files on every node, and the
log probabilities that each running engine gives to the tokens of a fixed prompt (asked for by engine.logprobs), for an
engine that was started before its files were swapped. Both are compared with what this site recorded for the model's
name and revision when its engines were last well, and with each other where there is no record yet.
"""

from kvstrata.verify.weights.layer import checks

__all__ = ["checks"]
