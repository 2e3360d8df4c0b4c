#!/usr/bin/env python3
"""Restores disks and files from a Backstay repository without Backstay.

    restore.py REPOSITORY list                        all restore points
    restore.py REPOSITORY show POINT                  the disks and files of one
    restore.py REPOSITORY restore POINT NAME OUTPUT   one disk (as a raw image) or file
    restore.py REPOSITORY restore-all POINT FOLDER    everything of a point
    restore.py selftest                               known answers of all that is computed here

POINT is an id, or the beginning or end of one, or "latest". The password is asked for, or taken from the
environment variable BACKSTAY_PASSWORD or the first line of --password-file.

Needs Python 3.8 and nothing else for repositories whose frames are stored. Frames compressed with zstd need one of:
Python 3.14, the module "zstandard", the library libzstd.so.1, the program "zstd" (every Linux has one of them, or
gets it with "apt install zstd"). The module "cryptography" makes encrypted repositories faster; without it this
program decrypts by itself (some MB a second) and takes minutes to open a password slot.

It reads only; index segments are not needed, packs are listed by their trailers, damaged ones are searched. Every
byte is checked against the point before it is written. Exit: 0 all restored, 1 error, 3 restored with damaged ranges
(which are named, and zero in the output). Written from docs/formats/store.md (RECOVER.md) alone, for format 1.
"""
import argparse
import array
import ctypes
import ctypes.util
import getpass
import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import uuid
from collections import OrderedDict
from datetime import datetime, timedelta, timezone

try:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
except ImportError:
    AESGCM = None
try:
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
except ImportError:
    Argon2id = None

BLOCKS_AT_ONCE = 2_000_000  # places held in memory: about 64 GiB of a disk, 1 GiB of memory


class Problem(Exception):
    """Something that ends the work; its text says what happened and what to do."""


class Unsupported(Problem):
    """Something newer than this program."""


class Damage(Exception):
    """Bytes that are not what they must be: costs a frame or a range, not all."""


def say(text):
    """Prints text that may come from a guest: nothing in it reaches the terminal as a command."""
    print("".join(c if c.isprintable() or c == "\n" else "?" for c in text), file=sys.stderr)


# ---- BLAKE3: many chunks at once, each a lane of 64 bits in one large integer -----------------------------------

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
CHUNK_START, CHUNK_END, PARENT, ROOT, KEYED, CONTEXT, MATERIAL = 1, 2, 4, 8, 16, 32, 64
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
SCHEDULE = [list(range(16))]
for _ in range(6):
    SCHEDULE.append([SCHEDULE[-1][i] for i in PERMUTATION])
MIXES = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
         (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))
ONES = {}


def ones(lanes):
    """1 in every lane."""
    if lanes not in ONES:
        ONES[lanes] = int.from_bytes(struct.pack("<Q", 1) * lanes, "little")
    return ONES[lanes]


def compress(cv, words, counter, length, flags, one):
    """BLAKE3's compression of one block in every lane; the new chaining value."""
    mask = one * 0xFFFFFFFF
    v = list(cv) + [one * IV[i] for i in range(4)]
    v += [counter & mask, (counter >> 32) & mask, one * length, one * flags]
    for order in SCHEDULE:
        for number, (a, b, c, d) in enumerate(MIXES):
            va, vb, vc, vd = v[a], v[b], v[c], v[d]
            va = (va + vb + words[order[2 * number]]) & mask
            x = vd ^ va
            vd = (x >> 16 | x << 16) & mask
            vc = (vc + vd) & mask
            x = vb ^ vc
            vb = (x >> 12 | x << 20) & mask
            va = (va + vb + words[order[2 * number + 1]]) & mask
            x = vd ^ va
            vd = (x >> 8 | x << 24) & mask
            vc = (vc + vd) & mask
            x = vb ^ vc
            vb = (x >> 7 | x << 25) & mask
            v[a], v[b], v[c], v[d] = va, vb, vc, vd
    return [v[i] ^ v[i + 8] for i in range(8)]


def blake3_run(data, key, flags):
    count = max(1, (len(data) + 1023) // 1024)
    level = [array.array("Q") for _ in range(8)]
    view = memoryview(data)
    whole = count if count > 1 and len(data) % 1024 == 0 else count - 1
    for first in range(0, whole, 512):
        lanes = min(512, whole - first)
        one, mask = ones(lanes), ones(lanes) * 0xFFFFFFFF
        pairs = view[first * 1024:(first + lanes) * 1024].cast("Q")
        counter = int.from_bytes(struct.pack("<%dQ" % lanes, *range(first, first + lanes)), "little")
        cv = [one * word for word in key]
        for step in range(16):
            words = []
            for pair in range(8):
                both = int.from_bytes(pairs[step * 8 + pair::128].tobytes(), "little")
                words += [both & mask, (both >> 32) & mask]
            edge = (CHUNK_START if step == 0 else 0) | (CHUNK_END if step == 15 else 0)
            cv = compress(cv, words, counter, 64, flags | edge, one)
        for word, lane in zip(level, cv):
            word.extend(words_of(lane, lanes))
    last, cv = bytes(view[whole * 1024:]), list(key)
    blocks = max(1, (len(last) + 63) // 64) if whole < count else 0
    for step in range(blocks):
        part = last[step * 64:step * 64 + 64]
        edge = CHUNK_START if step == 0 else 0
        if step == blocks - 1:
            edge |= CHUNK_END | (ROOT if count == 1 else 0)
        words = struct.unpack("<16I", part.ljust(64, b"\0"))
        cv = compress(cv, words, count - 1, len(part), flags | edge, 1)
    for word, value in zip(level, cv if blocks else ()):
        word.append(value)
    while len(level[0]) > 1:  # pairs of neighbours; an odd one goes up as it is
        pairs, odd = len(level[0]) // 2, len(level[0]) % 2
        words = [lanes_of(word[0:2 * pairs:2]) for word in level] + [lanes_of(word[1:2 * pairs:2]) for word in level]
        root = ROOT if pairs == 1 and not odd else 0
        cv = compress([ones(pairs) * word for word in key], words, 0, 64, flags | PARENT | root, ones(pairs))
        tail = [word[-1:] if odd else array.array("Q") for word in level]
        level = [array.array("Q", words_of(lane, pairs)) + rest for lane, rest in zip(cv, tail)]
    return struct.pack("<8I", *(word[0] for word in level))


def lanes_of(words):
    return int.from_bytes(struct.pack("<%dQ" % len(words), *words), "little")


def words_of(lanes, count):
    return struct.unpack("<%dQ" % count, lanes.to_bytes(8 * count, "little"))


def blake3(data):
    return blake3_run(data, IV, 0)


def keyed(key, data):
    return blake3_run(data, struct.unpack("<8I", key), KEYED)


def derive(context, data):
    return blake3_run(data, struct.unpack("<8I", blake3_run(context.encode(), IV, CONTEXT)), MATERIAL)


# ---- CRC-32C ----------------------------------------------------------------------------------------------------

CRC_TABLE = []
for _byte in range(256):
    for _ in range(8):
        _byte = _byte >> 1 ^ (0x82F63B78 if _byte & 1 else 0)
    CRC_TABLE.append(_byte)


def crc32c(data):
    crc, table = 0xFFFFFFFF, CRC_TABLE
    for byte in data:
        crc = table[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


# ---- AES-256-GCM: all counter blocks at once, byte position by byte position ------------------------------------

def doubled(x):
    return (x << 1 ^ (0x11B if x & 0x80 else 0)) & 0xFF


def aes_tables():
    power, log, x = [0] * 255, [0] * 256, 1
    for i in range(255):
        power[i], log[x] = x, i
        x ^= doubled(x)
    box = bytearray(256)
    for value in range(256):
        inverse = power[-log[value] % 255] if value else 0
        out = 0x63
        for shift in range(5):
            out ^= (inverse << shift | inverse >> (8 - shift)) & 0xFF
        box[value] = out
    return bytes(box), bytes(map(doubled, box)), bytes(doubled(x) ^ x for x in box)


BOX, BOX2, BOX3 = aes_tables()


def aes_round_keys(key):
    words, constant = [key[i:i + 4] for i in range(0, 32, 4)], 1
    for i in range(8, 60):
        word = words[-1]
        if i % 8 == 0:
            word = bytes([BOX[word[1]] ^ constant]) + bytes(BOX[x] for x in (word[2], word[3], word[0]))
            constant = doubled(constant)
        elif i % 8 == 4:
            word = word.translate(BOX)
        words.append(bytes(a ^ b for a, b in zip(words[-8], word)))
    flat = b"".join(words)
    return [flat[i:i + 16] for i in range(0, 240, 16)]


def aes_counter_stream(rounds, nonce, first, count):
    """The encryption of `count` counter blocks from number `first` on."""
    one = int.from_bytes(b"\1" * count, "little")
    counters = struct.pack(">%dI" % count, *range(first, first + count))
    state = [nonce[i:i + 1] * count for i in range(12)] + [counters[i::4] for i in range(4)]
    state = [int.from_bytes(s, "little") ^ one * k for s, k in zip(state, rounds[0])]
    for number in range(1, 15):
        rows = [value.to_bytes(count, "little") for value in state]
        rows = [rows[(i + 4 * (i % 4)) % 16] for i in range(16)]
        s1 = [int.from_bytes(row.translate(BOX), "little") for row in rows]
        if number < 14:
            s2 = [int.from_bytes(row.translate(BOX2), "little") for row in rows]
            s3 = [int.from_bytes(row.translate(BOX3), "little") for row in rows]
            s1 = [s2[i] ^ s3[i & 12 | i + 1 & 3] ^ s1[i & 12 | i + 2 & 3] ^ s1[i & 12 | i + 3 & 3] for i in range(16)]
        state = [value ^ one * k for value, k in zip(s1, rounds[number])]
    stream = bytearray(16 * count)
    for i, value in enumerate(state):
        stream[i::16] = value.to_bytes(count, "little")
    return bytes(stream)


class PureGcm:
    """AES-256-GCM in plain Python, for decryption only."""

    def __init__(self, key):
        self.rounds = aes_round_keys(key)
        h = int.from_bytes(aes_counter_stream(self.rounds, bytes(12), 0, 1), "big")
        powers = []
        for _ in range(128):
            powers.append(h)
            h = h >> 1 ^ (0xE1 << 120 if h & 1 else 0)
        self.tables = []
        for place in range(16):
            table = [0] * 256
            for bit in range(8):
                low = 1 << bit
                for value in range(low):
                    table[low | value] = table[value] ^ powers[8 * place + 7 - bit]
            self.tables.append(table)

    def ghash(self, data):
        y, tables = 0, self.tables
        for at in range(0, len(data), 16):
            y ^= int.from_bytes(data[at:at + 16], "big")
            x, y = y.to_bytes(16, "big"), 0
            for table, byte in zip(tables, x):
                y ^= table[byte]
        return y

    def decrypt(self, nonce, sealed, associated):
        text, tag = sealed[:-16], sealed[-16:]
        stream = aes_counter_stream(self.rounds, nonce, 1, 1 + (len(text) + 15) // 16)
        lengths = struct.pack(">QQ", 8 * len(associated), 8 * len(text))
        covered = associated + bytes(-len(associated) % 16) + text + bytes(-len(text) % 16) + lengths
        if self.ghash(covered) ^ int.from_bytes(stream[:16], "big") != int.from_bytes(tag, "big"):
            raise ValueError("tag")
        mixed = int.from_bytes(text, "little") ^ int.from_bytes(stream[16:16 + len(text)], "little")
        return mixed.to_bytes(len(text), "little")


GCM_KEYS = OrderedDict()


def gcm_open(key, nonce, sealed, associated):
    """Opens; any failure is `Damage`."""
    if key not in GCM_KEYS:
        GCM_KEYS[key] = AESGCM(key) if AESGCM else PureGcm(key)
        if len(GCM_KEYS) > 64:
            GCM_KEYS.popitem(last=False)
    try:
        return GCM_KEYS[key].decrypt(nonce, sealed, associated)
    except Exception:  # InvalidTag of cryptography, ValueError of ours
        raise Damage("its seal is broken") from None


# ---- Argon2id ---------------------------------------------------------------------------------------------------

M64, M32 = (1 << 64) - 1, (1 << 32) - 1


def argon_long_hash(data, length):
    data = struct.pack("<I", length) + data
    if length <= 64:
        return hashlib.blake2b(data, digest_size=length).digest()
    v = hashlib.blake2b(data).digest()
    out = v[:32]
    while length - len(out) > 64:
        v = hashlib.blake2b(v).digest()
        out += v[:32]
    return out + hashlib.blake2b(v, digest_size=length - len(out)).digest()


def argon_permute(v, index):
    for i, j, k, m in MIXES:
        i, j, k, m = index[i], index[j], index[k], index[m]
        a, b, c, d = v[i], v[j], v[k], v[m]
        a = (a + b + 2 * (a & M32) * (b & M32)) & M64
        d ^= a
        d = (d >> 32 | d << 32) & M64
        c = (c + d + 2 * (c & M32) * (d & M32)) & M64
        b ^= c
        b = (b >> 24 | b << 40) & M64
        a = (a + b + 2 * (a & M32) * (b & M32)) & M64
        d ^= a
        d = (d >> 16 | d << 48) & M64
        c = (c + d + 2 * (c & M32) * (d & M32)) & M64
        b ^= c
        b = (b >> 63 | b << 1) & M64
        v[i], v[j], v[k], v[m] = a, b, c, d


ARGON_ROWS = [[16 * r + i for i in range(16)] for r in range(8)]
ARGON_COLUMNS = [[16 * (i // 2) + 2 * c + i % 2 for i in range(16)] for c in range(8)]


def argon_mix(x, y):
    r = [a ^ b for a, b in zip(x, y)]
    v = list(r)
    for index in ARGON_ROWS + ARGON_COLUMNS:
        argon_permute(v, index)
    return array.array("Q", [a ^ b for a, b in zip(v, r)])


def argon2id(password, salt, memory, passes, lanes):
    if Argon2id:
        try:
            return Argon2id(salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory).derive(password)
        except Exception:  # an OpenSSL that lacks it: go the long way
            pass
    say("opening the password slot without the module \"cryptography\": this takes a minute or two")
    start = struct.pack("<6I", lanes, 32, memory, passes, 0x13, 2)
    for part in (password, salt, b"", b""):
        start += struct.pack("<I", len(part)) + part
    start = hashlib.blake2b(start).digest()
    part = memory // (4 * lanes)
    row, zero = 4 * part, [0] * 128
    blocks = [[None] * row for _ in range(lanes)]
    for lane in range(lanes):
        for i in range(2):
            first = argon_long_hash(start + struct.pack("<II", i, lane), 1024)
            blocks[lane][i] = array.array("Q", struct.unpack("<128Q", first))
    for turn in range(passes):
        for piece in range(4):
            for lane in range(lanes):
                counter = 0
                for i in range(2 if turn == piece == 0 else 0, part):
                    at = piece * part + i
                    if turn == 0 and piece < 2:  # places that do not depend on the password
                        if counter <= i // 128:
                            counter = i // 128 + 1
                            seed = [turn, lane, piece, row * lanes, passes, 2, counter] + [0] * 121
                            places = argon_mix(zero, argon_mix(zero, seed))
                        word = places[i % 128]
                    else:
                        word = blocks[lane][at - 1][0]
                    other = lane if turn == piece == 0 else (word >> 32) % lanes
                    area = piece * part if turn == 0 else row - part
                    area += i - 1 if other == lane else (-1 if i == 0 else 0)
                    far = area - 1 - (area * ((word & M32) ** 2 >> 32) >> 32)
                    source = ((0 if turn == 0 else (piece + 1) * part) + far) % row
                    new = argon_mix(blocks[lane][at - 1], blocks[other][source])
                    if turn:
                        new = array.array("Q", [a ^ b for a, b in zip(new, blocks[lane][at])])
                    blocks[lane][at] = new
    last = blocks[0][-1]
    for lane in range(1, lanes):
        last = [a ^ b for a, b in zip(last, blocks[lane][-1])]
    return argon_long_hash(struct.pack("<128Q", *last), 32)


# ---- zstd -------------------------------------------------------------------------------------------------------

def find_zstd():
    """A function (packed, plain length) -> bytes, by whatever the system has."""
    try:
        from compression import zstd
        return lambda packed, length: zstd.ZstdDecompressor().decompress(packed, max_length=length + 1)
    except ImportError:
        pass
    try:
        import zstandard
        return lambda packed, length: zstandard.ZstdDecompressor().decompress(packed, max_output_size=length)
    except ImportError:
        pass
    name = ctypes.util.find_library("zstd") or "libzstd.so.1"
    try:
        library = ctypes.CDLL(name).ZSTD_decompress
    except (OSError, AttributeError):
        library = None
    if library:
        library.restype = ctypes.c_size_t
        library.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]

        def by_library(packed, length):
            buffer = ctypes.create_string_buffer(length)
            return buffer.raw if library(buffer, length, packed, len(packed)) == length else b""
        return by_library
    if shutil.which("zstd"):
        return lambda packed, _: subprocess.run(["zstd", "-dcq"], input=packed, stdout=subprocess.PIPE).stdout
    raise Problem("nothing here can decompress zstd\n  install the program: apt install zstd")


ZSTD = []


def decompress(packed, length):
    if not ZSTD:
        ZSTD.append(find_zstd())
    try:
        plain = ZSTD[0](packed, length)
    except Problem:
        raise
    except Exception as error:
        raise Damage("it does not decompress: %s" % error) from None
    if len(plain) != length:
        raise Damage("it does not decompress to its length")
    return plain


# ---- the repository ---------------------------------------------------------------------------------------------

def read_file(path, limit):
    if os.path.getsize(path) > limit:
        raise Damage("%s is larger than it may be" % path)
    with open(path, "rb") as file:
        return file.read(limit + 1)


def two_lines(data):
    lines = data.split(b"\n")
    if len(lines) != 3 or lines[2]:
        raise Damage("it is not two lines of text")
    return lines[0], lines[1].decode("ascii", "replace")


def parse_json(data):
    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        raise Damage("its text is not JSON") from None
    if not isinstance(value, dict):
        raise Damage("its text is no object")
    return value


def edition(about):
    number = about.get("edition", 0)
    return number if isinstance(number, int) else 0


def edition_of(data):
    try:
        return edition(parse_json(two_lines(data)[0]))
    except Damage:
        return 0


class Repository:
    """Opens a repository: description, keys, records, frames."""

    def __init__(self, folder, ask_password):
        self.folder, self.ask, self.password = folder, ask_password, None
        self.frames, self.sealing = OrderedDict(), {}
        copies, errors, refused = [], [], None
        for name in ("repository", "repository.copy"):
            path = os.path.join(folder, name)
            try:
                if os.path.exists(path):
                    data = read_file(path, 256 << 10)
                    copies.append((edition_of(data), name, data))
            except (Damage, OSError) as error:
                errors.append("%s: %s" % (name, error))
        for edition, name, data in sorted(copies, key=lambda copy: -copy[0]):  # stable: equal editions keep their order
            if refused and edition < refused[0]:
                break  # an older copy must not hide what is not understood
            try:
                return self.open_description(data)
            except Damage as damage:
                errors.append("%s: %s" % (name, damage))
            except Unsupported as unsupported:
                refused = edition, unsupported
        if refused:
            raise refused[1]
        raise Problem("the repository cannot be opened\n  " + "\n  ".join(errors) if errors else
                      "there is no repository in %s\n  give the folder that holds the file \"repository\"" % folder)

    def open_description(self, data):
        line, check = two_lines(data)
        about = parse_json(line)
        if about.get("magic") != "backstay repository":
            raise Damage("it is no description")
        if about.get("major") != 1 or about.get("must_understand"):
            raise Unsupported("the repository has format %s with features %s; this program knows format 1\n  use the "
                              "restore.py that lies in the repository, or a newer Backstay"
                              % (about.get("major"), about.get("must_understand")))
        try:
            self.id, self.cipher, self.window = uuid.UUID(about["id"]).bytes, about["cipher"], about["cut"]["window"]
        except (KeyError, TypeError, ValueError, AttributeError):
            raise Damage("a field is missing") from None
        if self.cipher not in ("none", "aes-256-gcm"):
            raise Unsupported("the cipher %s is unknown\n  use a newer Backstay" % self.cipher)
        keys = self.open_slots()
        try:
            self.secret = bytes.fromhex(keys["id"])
            self.epochs = {seal["epoch"]: bytes.fromhex(seal["key"]) for seal in keys["seal"]}
        except (KeyError, TypeError, ValueError):
            raise Damage("its key set is malformed") from None
        if keyed(derive("backstay store 1 repository mac", self.secret), line).hex() != check:
            raise Damage("it was changed, or its keys belong to another repository")
        self.block_key = derive("backstay store 1 data block id", self.secret)
        self.node_key = derive("backstay store 1 tree node id", self.secret)
        self.content_key = derive("backstay store 1 point content", self.secret)

    def open_slots(self):
        """The key set from the first slot that opens; of a slot and its copy the higher edition."""
        folder, slots, wrong = os.path.join(self.folder, "keys"), {}, []
        for name in sorted(os.listdir(folder)):
            try:
                line, check = two_lines(read_file(os.path.join(folder, name), 256 << 10))
                if blake3(line).hex() != check:
                    raise Damage("it is damaged")
                number, slot = name.split(".")[0], parse_json(line)
                if not name.endswith(".new") and (number not in slots or edition(slot) > edition(slots[number])):
                    slots[number] = slot
            except Damage as damage:
                wrong.append("key slot %s: %s" % (name, damage))
        for number in sorted(slots):
            try:
                return self.open_slot(slots[number])
            except Damage as damage:
                wrong.append("key slot %s: %s" % (number, damage))
        raise Problem("no key slot opens\n  " + "\n  ".join(wrong or ["the folder \"keys\" is empty"]))

    def open_slot(self, slot):
        try:
            if slot.get("kind") == "open":
                return slot["keys"]
            if slot.get("kind") != "password":
                raise Damage("it is of a kind this program does not know")
            memory, passes, lanes = (int(slot[name]) for name in ("memory_kib", "passes", "lanes"))
            salt, wrapped = bytes.fromhex(slot["salt"]), bytes.fromhex(slot["wrapped"])
        except (KeyError, TypeError, ValueError):
            raise Damage("it is malformed") from None
        if not (8 * lanes <= memory <= 1 << 20 and 1 <= passes <= 64 and 1 <= lanes <= 16):
            raise Damage("it asks for absurd amounts of memory or time")
        if self.password is None:
            self.password = self.ask()
        key = argon2id(self.password.encode("utf-8"), salt, memory, passes, lanes)
        try:
            plain = gcm_open(key, bytes(12), wrapped, b"backstay store 1 key slot" + self.id)
        except Damage:
            raise Damage("the password is wrong") from None
        return parse_json(plain)

    def unseal(self, purpose, epoch, salt, number, associated, sealed):
        key = self.sealing.get((purpose, epoch, salt))
        if key is None:
            if epoch not in self.epochs:
                raise Damage("the key of epoch %d is not in the key slots" % epoch)
            key = self.sealing[purpose, epoch, salt] = derive(purpose, self.epochs[epoch] + salt)
        if len(sealed) < 16:
            raise Damage("it is too short")
        if self.cipher == "aes-256-gcm":
            return gcm_open(key, struct.pack("<QI", number, 0), sealed, associated)
        text = sealed[:-16]
        if keyed(key, struct.pack("<QQ", number, len(associated)) + associated + text)[:16] != sealed[-16:]:
            raise Damage("its seal is broken")
        return text

    # points

    def points(self):
        """All points, oldest first, and what cannot be read."""
        good, bad = [], []
        for name in sorted(os.listdir(os.path.join(self.folder, "points"))):
            try:
                good.append(self.point(uuid.UUID(name)))
            except (Damage, ValueError, OSError) as error:
                bad.append((name, str(error)))
        return sorted(good, key=lambda point: (point["time"], point["id"])), bad

    def point(self, name):
        data = read_file(os.path.join(self.folder, "points", str(name)), 64 << 20)
        if len(data) < 144 or blake3(data[:-32]) != data[-32:]:
            raise Damage("its digest is wrong")
        (magic, major, _, kind, repository, record, epoch, salt, length) = struct.unpack("<8sHHB3x16s16sI4x32sI4x", data[:96])
        if magic == b"BKSTRECD" and major != 1:
            raise Unsupported("the point %s has format %d\n  use a newer Backstay" % (name, major))
        if (magic, kind, repository, record, length) != (b"BKSTRECD", 1, self.id, name.bytes, len(data) - 128):
            raise Damage("it is no point, or belongs elsewhere")
        text = self.unseal("backstay store 1 record key", epoch, salt, 0, b"backstay store 1 record" + data[:96], data[96:-32])
        point = parse_json(text)
        try:
            parts = [point["machine"]["id"], point["machine"]["name"]]
            for disk in point["disks"]:
                parts += ["disk", disk["name"], str(disk["size"]), disk["root"]]
            for file in point.setdefault("files", []):
                parts += ["file", file["path"], str(file["size"]), file["root"]]
            total = b"".join(struct.pack("<Q", len(part.encode())) + part.encode() for part in parts)
            fits = point["content"] == keyed(self.content_key, total).hex() and point["id"] == str(name)
            point["time"] + 0
        except (KeyError, TypeError, AttributeError):
            raise Damage("a field is missing") from None
        if not fits:
            raise Damage("its digest of content does not fit")
        return point

    # packs

    def packs(self, content):
        """Paths of all packs of a content."""
        top = os.path.join(self.folder, "packs", "data" if content == 1 else "tree")
        for part in sorted(os.listdir(top)):
            folder = os.path.join(top, part)
            for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
                if re.fullmatch("[0-9a-f]{64}", name) and name.startswith(part):
                    yield os.path.join(folder, name)

    def places(self, content, wanted=None):
        """id -> places (pack, offset, length); those of trailers before those that were searched for."""
        found, damaged = {}, []

        def note(pack, frames):
            for offset, length, rows in frames:
                for id in rows:
                    if wanted is None or id in wanted:
                        found.setdefault(id, []).append((pack, offset, length))
        for pack in self.packs(content):
            try:
                note(pack, trailer_of(pack))
            except (Damage, OSError) as error:
                damaged.append((pack, error))
        for pack, error in damaged:
            say("searching the pack %s, because %s" % (os.path.basename(pack)[:12], error))
            try:
                note(pack, search(pack))
            except OSError as error:
                say("  it cannot be read: %s" % error)
        return found

    def frame(self, content, place):
        """Blocks of a frame by id, each checked."""
        pack, offset, length = place
        try:
            with open(pack, "rb") as file:
                file.seek(offset)
                data = file.read(length)
        except OSError as error:
            raise Damage(str(error)) from None
        head = frame_header(data)
        if head["content"] != content or head["total"] != len(data):
            raise Damage("another frame lies there")
        start = head["total"] - head["sealed"]
        bound = b"backstay store 1 frame" + self.id + data[:64] + data[68:start - 4]
        packed = self.unseal("backstay store 1 frame key", head["epoch"], head["salt"], head["number"], bound, data[start:])
        plain = packed if head["codec"] == 0 else decompress(packed, head["plain"])
        key, blocks, at = self.block_key if content == 1 else self.node_key, {}, 0
        if len(plain) != head["plain"]:
            raise Damage("its length is wrong")
        for id, size in head["rows"]:
            block = plain[at:at + size]
            at += size
            if keyed(key, block) == id:  # a block that differs costs itself, not its neighbours
                blocks[id] = block
        return blocks


def frame_header(data):
    """What the header of a frame says; the bytes may be anything."""
    if len(data) < 72 or data[:4] != b"BKFR":
        raise Damage("no frame begins there")
    content, codec, rows, salt, epoch, domain, number, plain, sealed, crc = struct.unpack("<4xBBH32sIIQIII", data[:68])
    end = 68 + 36 * rows
    if not 1 <= rows <= 4096 or len(data) < end + 4 or crc32c(data[:end]) != struct.unpack("<I", data[end:end + 4])[0]:
        raise Damage("a frame's header is damaged")
    table = [struct.unpack("<32sI", data[at:at + 36]) for at in range(68, end, 36)]
    if codec > 1 or domain or content not in (1, 2):
        raise Damage("a frame has a codec, domain or content this program does not know")
    if sum(size for _, size in table) != plain or plain > 2 << 20 or not 16 <= sealed <= plain + 16:
        raise Damage("a frame's lengths do not fit")
    return {"content": content, "codec": codec, "rows": table, "salt": salt, "epoch": epoch, "number": number,
            "plain": plain, "sealed": sealed, "sealed_crc": crc, "total": end + 4 + sealed}


def trailer_of(pack):
    """(offset, length, ids) of each frame of a pack, from its trailer."""
    length = os.path.getsize(pack)
    with open(pack, "rb") as file:
        head = file.read(96)
        if length < 128:
            raise Damage("it is too short")
        if head[:8] == b"BKSTPACK" and head[8:10] != b"\1\0" and crc32c(head[:92]) == struct.unpack("<I", head[92:])[0]:
            raise Unsupported("the pack %s has another format\n  use a newer Backstay" % pack)
        file.seek(length - 32)
        foot = file.read(32)
        offset, size, count, crc, own, magic = struct.unpack("<QIIII8s", foot)
        if magic != b"BKPKEND1" or crc32c(foot[:20]) != own or offset + size + 32 != length or size > 64 << 20:
            raise Damage("its footer is damaged")
        file.seek(offset)
        data = file.read(size)
    if crc32c(data) != crc or data[:4] != b"BKTR":
        raise Damage("its trailer is damaged")
    frames, at, expected = [], 4, 96
    for _ in range(count):
        if at + 12 > size:
            raise Damage("its trailer is too short")
        start, total, rows = struct.unpack("<III", data[at:at + 12])
        at += 12
        if start != expected or not 1 <= rows <= 4096 or at + 36 * rows > size:
            raise Damage("its trailer is malformed")
        frames.append((start, total, [data[i:i + 32] for i in range(at, at + 36 * rows, 36)]))
        at, expected = at + 36 * rows, start + total
    if at != size or expected != offset:
        raise Damage("its trailer is malformed")
    return frames


def search(pack):
    """The same, for a pack without a usable trailer."""
    with open(pack, "rb") as file:
        data = file.read((1 << 30) + (64 << 20))
    frames, at = [], 96
    while at >= 0:
        try:
            head = frame_header(data[at:at + 68 + 36 * 4096 + 4])
            end = at + head["total"]
            if end > len(data) or crc32c(data[end - head["sealed"]:end]) != head["sealed_crc"]:
                raise Damage("its bytes are damaged")
            frames.append((at, head["total"], [id for id, _ in head["rows"]]))
            at = end if data[end:end + 4] == b"BKFR" else data.find(b"BKFR", end)
        except Damage:
            at = data.find(b"BKFR", at + 1)
    return frames


# ---- trees and restoring ----------------------------------------------------------------------------------------

class Tree:
    """The tree of one disk or file."""

    def __init__(self, repository, nodes, item):
        self.repository, self.nodes = repository, nodes
        self.size, root = item["size"], bytes.fromhex(item["root"])
        data = self.node(root)
        if len(data) < 16 or data[:2] != b"\1\2":
            raise Damage("its root is not a root")
        self.levels, has_top, self.window, size = struct.unpack("<2xBBIQ", data[:16])
        if size != self.size or self.window != repository.window or len(data) != 16 + 32 * has_top or has_top > 1:
            raise Damage("its root is of another tree")
        self.top = data[16:] if has_top else None
        self.windows, levels = -(-size // self.window), 0
        while 128 ** levels < self.windows:
            levels += 1
        if levels != self.levels:
            raise Damage("its shape does not follow from its size")

    def node(self, id):
        problem = Damage("a tree node is in no pack")
        for place in self.nodes.get(id, ()):
            frames = self.repository.frames
            try:
                if place not in frames:
                    frames[place] = self.repository.frame(2, place)
                    if len(frames) > 64:
                        frames.popitem(last=False)
                if id in frames[place]:
                    return frames[place][id]
            except Damage as damage:
                problem = damage
        raise problem

    def segments(self, damage):
        """(offset, length, id) of every block in order; calls `damage(offset, length, why)`."""
        stack = [(self.top, self.levels, 0)] if self.top else []
        while stack:
            id, level, first = stack.pop()
            start, span = first * self.window, 128 ** level * self.window
            try:
                if start >= self.size:
                    raise Damage("a node lies past the end")
                data = self.node(id)
                if level:
                    stack += reversed(self.children(data, level, first))
                else:
                    yield from self.leaf(data, start)
            except Damage as error:
                damage(start, min(span, max(0, self.size - start)), str(error))

    @staticmethod
    def children(data, level, first):
        if len(data) < 20 or data[:3] != bytes((1, 1, level)):
            raise Damage("a node is not what its place asks for")
        bitmap = int.from_bytes(data[4:20], "little")
        places = [place for place in range(128) if bitmap >> place & 1]
        if len(data) != 20 + 32 * len(places):
            raise Damage("a node has a wrong length")
        step = 128 ** (level - 1)
        return [(data[20 + 32 * i:52 + 32 * i], level - 1, first + place * step) for i, place in enumerate(places)]

    def leaf(self, data, start):
        if len(data) < 4 or data[:2] != b"\1\0":
            raise Damage("a node is not what its place asks for")
        count, at, offset, found = struct.unpack("<H", data[2:4])[0], 4, start, []
        end = min(start + self.window, self.size)
        for _ in range(count):
            word = int.from_bytes(data[at:at + 4], "little")
            at += 4
            if not word >> 31:
                found.append((offset, word, data[at:at + 32]))
                at += 32
            offset += word & 0x7FFFFFFF
        if at != len(data) or offset != end:
            raise Damage("a leaf does not cover its window")
        return found


def restore(repository, nodes, item, output):
    """Writes a disk or file; the damaged ranges as (offset, length, why)."""
    if os.path.exists(output):
        raise Problem("%s is there already\n  choose another name" % output)
    bad, partial = [], output + ".partial"
    with open(partial, "xb") as file:
        file.truncate(item["size"])
        try:
            tree = Tree(repository, nodes, item)
            segments = tree.segments(lambda *range_: bad.append(range_))
        except Damage as damage:
            bad.append((0, item["size"], str(damage)))
            segments = iter(())
        done = False
        while not done:
            wanted, count = {}, 0
            for offset, length, id in segments:
                wanted.setdefault(id, []).append((offset, length))
                count += 1
                if count >= BLOCKS_AT_ONCE:
                    break
            else:
                done = True
            bad += write_blocks(repository, wanted, file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(partial, output)
    return sorted(bad)


def write_blocks(repository, wanted, file):
    """Writes blocks to where they belong, pack by pack; what could not be."""
    if not wanted:
        return []
    places, why = repository.places(1, wanted), {}
    left = set(wanted)
    while left:
        frames = {}
        for id in left:
            if places.get(id):
                frames.setdefault(places[id].pop(0), []).append(id)
        if not frames:
            break
        for place in sorted(frames):
            try:
                blocks = repository.frame(1, place)
            except Damage as damage:
                why.update((id, "a frame of pack %s: %s" % (os.path.basename(place[0])[:12], damage)) for id in frames[place])
                continue
            for id in frames[place]:
                block = blocks.get(id)
                if block is None or any(len(block) != length for _, length in wanted[id]):
                    why[id] = "a block differs from its id or length"
                    continue
                for offset, _ in wanted[id]:
                    file.seek(offset)
                    file.write(block)
                left.discard(id)
    return [(offset, length, why.get(id, "a block is in no pack")) for id in left for offset, length in wanted[id]]


# ---- the command line -------------------------------------------------------------------------------------------

def choose(points, text):
    if text == "latest" and points:
        return points[-1]
    fits = [p for p in points if text and (p["id"].startswith(text.lower()) or p["id"].endswith(text.lower()))]
    if len(fits) == 1:
        return fits[0]
    raise Problem("%s points fit \"%s\"\n  see them with: list" % (len(fits) or "no", text))


def moment(micros):
    return (datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=micros)).strftime("%Y-%m-%d %H:%M:%S")


def print_safe(text):
    print("".join(c if c.isprintable() else "?" for c in text))


def list_points(points, bad, as_json):
    if as_json:
        return print(json.dumps({"points": points, "damaged": bad}, indent=1))
    for p in points:
        size = sum(disk["size"] for disk in p["disks"])
        print_safe("%s  %s  %s  %d disks, %d bytes" % (p["id"], moment(p["time"]), p["machine"]["name"], len(p["disks"]), size))
    for name, why in bad:
        say("damaged point %s: %s" % (name, why))


def report(name, item, bad):
    say("%s: %d bytes%s" % (name, item["size"], ", every byte checked" if not bad else ""))
    for offset, length, why in bad:
        say("  DAMAGED, zero in the output: %d bytes from %d on: %s" % (length, offset, why))
    return 3 if bad else 0


def restore_all(repository, nodes, point, folder):
    os.mkdir(folder)
    status = 0
    for number, disk in enumerate(point["disks"]):
        name = "%d-%s.raw" % (number, re.sub("[^A-Za-z0-9._-]", "_", disk["name"]))
        status |= report(disk["name"], disk, restore(repository, nodes, disk, os.path.join(folder, name)))
    for item in point["files"]:
        parts = item["path"].split("/")
        if any(part in ("", ".", "..") or "\0" in part for part in parts):
            raise Problem("the file path \"%s\" leads out of the folder" % item["path"])
        path = os.path.join(folder, "files", *parts)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        status |= report(item["path"], item, restore(repository, nodes, item, path))
    return status


def selftest():
    """Known answers of the specifications and of the format page, section 20; raises where one is wrong."""
    id_key = bytes.fromhex("c15c0289ec2d0a9167ec8e65a18debbe5e5532fbeea293f80bc942ee9086c171")
    block_key = derive("backstay store 1 data block id", id_key)
    sealed = bytes.fromhex("65cd073d7049b96d7deb989b34bb689db8ad419cc1b1b69e0718d8e1")
    checks = [
        (blake3(b""), "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"),
        (blake3(bytes(i % 251 for i in range(1025))), "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444"),
        (block_key, "def8d64600e353e5902df062bc37ab74c02eb9ae519bcac8836448a2450f2c49"),
        (keyed(block_key, b"abc"), "357f8b00c5f80812286924bf10aca50e66644e74850f251d864d82cc167667cc"),
        (keyed(block_key, bytes(i % 251 for i in range(300000))), "b320f94a20b2c85050d9682a17a0affa795fd65b22e732e960e904ed78c27316"),
        (struct.pack(">I", crc32c(b"123456789")), "e3069283"),
        (PureGcm(b"\t" * 32).decrypt(struct.pack("<QI", 7, 0), sealed, b"about"), b"secret words".hex()),
        (argon2id(b"sesame", b"s" * 32, 64, 3, 1), "3c71c43a6f679bf8d90aead6a5c71f5e23c02b4cb0c83051287bd7199e31d6b8"),
        (argon2id(b"sesame", b"s" * 32, 256, 2, 4), "578d4d8a4c3c24263112646c501f26d22353ec3ca5b7f3497571d76ff62c9b9c"),
    ]
    for got, expected in checks:
        if got.hex() != expected:
            raise Problem("the self-test failed: %s in place of %s" % (got.hex(), expected))
    print("all known answers are right")


def main():
    if sys.argv[1:] == ["selftest"]:
        selftest()
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository")
    parser.add_argument("--password-file", help="its first line is the password")
    parser.add_argument("--json", action="store_true", help="list and show as JSON")
    deeds = parser.add_subparsers(dest="deed", required=True)
    deeds.add_parser("list")
    for name, words in (("show", ["point"]), ("restore", ["point", "name", "output"]), ("restore-all", ["point", "folder"])):
        deed = deeds.add_parser(name)
        for word in words:
            deed.add_argument(word)
    args = parser.parse_args()

    def ask():
        if args.password_file:
            with open(args.password_file, encoding="utf-8") as file:
                return file.readline().rstrip("\r\n")
        return os.environ.get("BACKSTAY_PASSWORD") or getpass.getpass("password of the repository: ")
    repository = Repository(args.repository, ask)
    points, bad = repository.points()
    if args.deed == "list":
        list_points(points, bad, args.json)
        return 0
    point = choose(points, args.point)
    items = [(disk["name"], disk) for disk in point["disks"]] + [(file["path"], file) for file in point["files"]]
    if args.deed == "show":
        if args.json:
            print(json.dumps(point, indent=1))
        else:
            for name, item in items:
                print_safe("%15d  %s" % (item["size"], name))
        return 0
    nodes = repository.places(2)
    if args.deed == "restore-all":
        return restore_all(repository, nodes, point, args.folder)
    for name, item in items:
        if name == args.name:
            return report(name, item, restore(repository, nodes, item, args.output))
    raise Problem("the point has no disk or file \"%s\"\n  see them with: show" % args.name)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (Problem, Damage, OSError) as problem:
        say("error: %s" % problem)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
