"""Changing a running tree: what differs, the steps that get there, and carrying them out.

stage.py         what is there and what runs, and what each step makes of it; pure
rollout.py       the order of the steps; pure
difference.py    what two trees have not in common; pure
items.py         what a difference is made of, and how it is shown; pure
source.py        where a plan comes from, and how it is read again
executor.py      carries the steps out on the tree, and takes them back when one fails
"""
