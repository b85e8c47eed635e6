"""The userspace udp path (compat §5.1): inner packets in UDP datagrams, one each, without a header of our own."""
