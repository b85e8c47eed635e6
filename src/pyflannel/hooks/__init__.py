"""Running the commands of the extension backend: for this host, and as a ``Holder`` of hooks for its peers."""
