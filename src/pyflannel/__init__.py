"""pyflannel: flannel, the container overlay network, as a drop-in in Python."""

__version__ = "0.1.0"
