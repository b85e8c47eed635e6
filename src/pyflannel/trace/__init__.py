"""Where a packet ends on its way from one container to another, and why.

``facts`` are what a host says of a packet, ``gather`` asks it, ``walk`` judges, ``remote`` carries the questions for
another host's half, and ``follow`` puts the two halves together, there and back.
"""
