"""The kernel proper out of the file that boot loaders are given.

A bzImage unpacks itself, which under emulation takes longer than all the rest of the boot.  qemu starts an unpacked
kernel as well, where that was built with CONFIG_PVH, as Debian's are.  Offsets are those of "The Linux/x86 Boot
Protocol", section "The Real-Mode Kernel Header".
"""

from __future__ import annotations

import lzma
import struct
import zlib

SECTOR = 512
_MAGIC = slice(0x202, 0x206)
_SETUP_SECTORS = 0x1F1
_PAYLOAD = 0x248


def unpacked(image: bytes) -> bytes:
    """What qemu starts soonest: the kernel inside ``image``, or ``image`` itself if its packing is none of Python's."""
    packed = _payload(image)
    # The unpackers stop at the end of the stream: behind it stands its length.
    if packed.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMADecompressor().decompress(packed)
    if packed.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(packed)
    return image


def _payload(image: bytes) -> bytes:
    if image[_MAGIC] != b"HdrS":
        return b""
    offset, length = struct.unpack_from("<II", image, _PAYLOAD)
    # None stands for four, for the sake of boot loaders of the last century.
    start = ((image[_SETUP_SECTORS] or 4) + 1) * SECTOR + offset
    return image[start : start + length]
