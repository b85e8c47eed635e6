"""The only door to the host: netlink, processes, systemd."""
