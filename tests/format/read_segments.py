#!/usr/bin/env python3
"""Reads the records of a Seawall log, written from docs/FORMAT.md alone.

    read_segments.py DIR

prints a line for each record: LSN, kind, key and value in hexadecimal ("-" for empty), and the time of
writing and the TTL in milliseconds, or "-". A packed value is printed as "lz4:" or "zstd:" and its packed
bytes. Every checksum is verified; the end of the log is where no frame stands. Only segments with CRC32C
are read. Exit status 1 with a message where a file is not as the page says.
"""

import os
import struct
import sys

TABLE = []
for index in range(256):
    value = index
    for _ in range(8):
        value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    TABLE.append(value)


def crc32c(data):
    state = 0xFFFFFFFF
    for byte in data:
        state = (state >> 8) ^ TABLE[(state ^ byte) & 0xFF]
    return state ^ 0xFFFFFFFF


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7


def fail(message):
    sys.exit("read_segments: " + message)


def manifest(folder):
    with open(os.path.join(folder, "MANIFEST"), "rb") as file:
        data = file.read()
    slots = []
    for at in (0, 4096):
        slot = data[at:at + 128]
        if slot[:8] == b"SEAMANIF" and crc32c(slot[:124]) == struct.unpack_from("<I", slot, 124)[0]:
            slots.append(slot)
    if not slots:
        fail("MANIFEST has no whole slot")
    newest = max(slots, key=lambda slot: struct.unpack_from("<Q", slot, 32)[0])
    first_segment = struct.unpack_from("<Q", newest, 40)[0]
    cap_segment, cap_lsn, cap_resume = struct.unpack_from("<QQQ", newest, 88)
    return newest[16:32], first_segment, cap_segment, cap_lsn, cap_resume


def header(name, data):
    """Log id, segment, salt, and the link: first LSN, previous segment and its end, or None."""
    if data[:8] != b"SEAWALL\n":
        fail(name + " is no segment")
    if crc32c(data[:68]) != struct.unpack_from("<I", data, 68)[0]:
        fail(name + " has a bad header checksum")
    version, algorithm = struct.unpack_from("<HB", data, 8)
    if version != 1 or struct.unpack_from("<I", data, 12)[0] != 0 or algorithm != 1:
        fail(name + " needs what this reader does not know")
    segment, _, salt = struct.unpack_from("<QQQ", data, 40)
    link = data[72:128].ljust(56, b"\0")
    if not any(link):
        return data[24:40], segment, salt, None
    if crc32c(data[:72] + link[:52]) != struct.unpack_from("<I", link, 52)[0]:
        fail(name + " has a bad link checksum")
    return data[24:40], segment, salt, struct.unpack_from("<QQQ", link, 8)


def record(flags, data, at):
    """A record whose key length is at `at`: kind, key, value, times, and where it ends."""
    key_bytes, at = varint(data, at)
    value_bytes, at = varint(data, at)
    times = "-"
    if flags & 0x10:
        written, at = varint(data, at)
        ttl, at = varint(data, at)
        times = "%d %d" % (written, ttl)
    codec = flags >> 5 & 3
    if codec:
        _, at = varint(data, at)
    key = data[at:at + key_bytes]
    value = data[at + key_bytes:at + key_bytes + value_bytes]
    text = ["", "lz4:", "zstd:"][codec] + (value.hex() or "-")
    kind = "delete" if flags & 8 else "put"
    return (kind, key.hex() or "-", text, times), at + key_bytes + value_bytes


def frames(data, segment, salt, lsn, end):
    """Yields LSN and record of every record up to `end`, or up to where no frame stands."""
    at = 128
    while at + 10 <= end:
        flags = data[at]
        kind = flags & 7
        if kind == 0:
            return
        try:
            sum_, low = struct.unpack_from("<IH", data, at + 1)
            _, head = varint(data, at + 7)
            if kind == 1:
                _, stop = record(flags, data, head)
                count = 1
            else:
                count, body = varint(data, head)
                body_bytes, body = varint(data, body)
                stop = body + body_bytes
        except (IndexError, struct.error):
            return
        place = struct.pack("<QQQQ", salt, segment, at, lsn)
        whole = stop <= end and low == lsn & 0xFFFF
        if not whole or crc32c(data[at:at + 1] + data[at + 5:stop] + place) != sum_:
            return
        if kind == 1:
            yield lsn, record(flags, data, head)[0]
        elif kind == 2:
            here = body
            for number in range(count):
                item, here = record(data[here], data, here + 1)
                yield lsn + number, item
        elif kind > 4 and not flags & 0x80:
            fail("a frame of an unknown kind that may not be passed over")
        lsn += count
        at = stop


def main(folder):
    log, first_segment, cap_segment, cap_lsn, cap_resume = manifest(folder)
    live = []
    for name in sorted(os.listdir(folder)):
        if not name.endswith(".wal") or len(name) != 24:
            continue
        with open(os.path.join(folder, name), "rb") as file:
            data = file.read()
        of_log, segment, salt, link = header(name, data)
        if of_log != log or segment != int(name[:20]):
            fail(name + " is of another log, or misnamed")
        retired = segment < first_segment or cap_segment < segment < cap_resume
        if not retired and link is not None:
            live.append((segment, salt, link, data))
    # Follow the links from the newest segment: what they pass over was truncated away.
    chain = []
    ends = None
    for segment, salt, link, data in reversed(live):
        if ends is not None and segment != ends[0]:
            continue
        stop, last = len(data), None
        if ends is not None:
            _, stop, next_lsn = ends
            last = next_lsn - 1
        elif segment == cap_segment:
            last = cap_lsn
        chain.append((segment, salt, link[0], data, stop, last))
        ends = (link[1], link[2], link[0])
    for segment, salt, lsn, data, stop, last in reversed(chain):
        for number, item in frames(data, segment, salt, lsn, min(stop, len(data))):
            if last is not None and number > last:
                break
            print(number, *item)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
