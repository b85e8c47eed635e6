"""The wire format of flannel's udp backend with nothing added: one read, one send; one receive, one write.

    python tests/support/tunnel_naive.py TUN-FD SOCKET-FD PEER-ADDRESS

An independent witness: it shares no code with what it is to interoperate with.  The device has no virtio header.
"""

from __future__ import annotations

import os
import select
import socket
import sys


def aged(packet: bytes) -> bytes | None:
    """The IPv4 packet with its TTL one lower, its header checksum computed anew; None if it goes no further."""
    if len(packet) < 20 or packet[0] >> 4 != 4 or packet[8] <= 1:
        return None
    size = (packet[0] & 15) * 4
    header = bytearray(packet[:size])
    header[8] -= 1
    header[10:12] = b"\0\0"
    number = sum(header[at] << 8 | header[at + 1] for at in range(0, size, 2))
    while number >> 16:
        number = (number & 0xFFFF) + (number >> 16)
    header[10:12] = (number ^ 0xFFFF).to_bytes(2, "big")
    return bytes(header) + packet[size:]


def main(tun: int, sock: socket.socket, peer: tuple[str, int]) -> None:
    """Until killed."""
    poll = select.poll()
    poll.register(tun, select.POLLIN)
    poll.register(sock, select.POLLIN)
    os.set_blocking(tun, True)
    sock.setblocking(True)
    while True:
        for fd, _ in poll.poll():
            packet = aged(os.read(tun, 65535) if fd == tun else sock.recv(65535))
            if packet is None:
                continue
            if fd == tun:
                sock.sendto(packet, peer)
            else:
                os.write(tun, packet)


if __name__ == "__main__":
    main(int(sys.argv[1]), socket.socket(fileno=int(sys.argv[2])), (sys.argv[3], 8285))
