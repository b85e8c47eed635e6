#!/bin/sh
# The first program on the host's file system: completes it, runs the command, and switches the machine off.
# Nobody waits for what it leaves running.
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm /dev/net /lib/modules
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose modules /lib/modules
# Its module is loaded by whoever opens it.
[ -e /dev/net/tun ] || mknod /dev/net/tun c 10 200
ip link set lo up

setsid --wait sh /run/job/command </dev/null >>/run/job/output 2>&1
echo $? >/run/job/status
exec busybox poweroff -f
