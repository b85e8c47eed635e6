/* What the product is measured against: the wire format of flannel's udp backend, one read and one sendto per packet.
 *
 *     cc -O2 -o tunnel_plain tunnel_plain.c && tunnel_plain TUN-FD SOCKET-FD PEER-ADDRESS
 *
 * The device has no virtio header.  poll, then each side is drained in turn, as a careful C program of this kind does.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static unsigned char packet[65536];

/* One off the TTL, and the header checksum adjusted for it (RFC 1624); 0 if the packet goes no further. */
static int age(ssize_t size)
{
    if (size < 20 || packet[0] >> 4 != 4 || packet[8] <= 1)
        return 0;
    uint32_t sum = (packet[10] << 8 | packet[11]) + 0x100;
    sum += sum >= 0xffff;
    packet[8]--;
    packet[10] = sum >> 8;
    packet[11] = sum;
    return 1;
}

int main(int count, char **words)
{
    if (count != 4)
        return 2;
    int tun = atoi(words[1]), sock = atoi(words[2]);
    struct sockaddr_in peer = {.sin_family = AF_INET, .sin_port = htons(8285)};
    if (!inet_aton(words[3], &peer.sin_addr))
        return 2;
    struct pollfd sides[] = {{.fd = tun, .events = POLLIN}, {.fd = sock, .events = POLLIN}};
    for (;;) {
        if (poll(sides, 2, -1) < 0 && errno != EINTR)
            return 1;
        for (int busy = 1; busy;) {
            busy = 0;
            ssize_t size = read(tun, packet, sizeof packet);
            if (size > 0) {
                busy = 1;
                if (age(size))
                    (void)!sendto(sock, packet, size, 0, (struct sockaddr *)&peer, sizeof peer);
            }
            size = recv(sock, packet, sizeof packet, 0);
            if (size > 0) {
                busy = 1;
                if (age(size))
                    (void)!write(tun, packet, size);
            }
        }
    }
}
