"""Which hosts answer: agents ask one another through the overlay and the underlay, and say what they find out.

``prober`` does the asking, ``book`` knows who is asked when, ``track`` what came of it, ``verdict`` what that means.
Loaded when a running agent begins to ask, not before.
"""
