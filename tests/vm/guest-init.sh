#!/bin/busybox sh
# The first program of the machine: goes from the initramfs to the file system of the host.
# A failure ends it, whereupon the kernel panics, and the machine stops.
set -e
alias mount='/bin/busybox mount' mkdir='/bin/busybox mkdir'

for module in /modules/*; do
    /bin/busybox insmod "$module"
done
share=trans=virtio,version=9p2000.L,msize=512000

mkdir -p /host /changes /root
mount -t 9p -o "$share,ro,cache=loose" root /host
mount -t tmpfs changes /changes
mkdir /changes/upper /changes/work
mount -t overlay -o lowerdir=/host,upperdir=/changes/upper,workdir=/changes/work root /root
mount -t tmpfs run /root/run
mkdir /root/run/job /root/run/lock
mount -t 9p -o "$share" job /root/run/job
exec /bin/busybox switch_root /root /bin/sh /run/job/start
