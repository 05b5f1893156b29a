"""Zip archives in canonical form: names and contents of the members determine every bit, and the last are a SHA-256.

Members are stored without compression, one directly after the other, with the earliest date and no attributes; the
archive comment is the SHA-256 of all bytes before it. Any other archive is refused, whatever zip allows.
"""

import hashlib
import struct
import zlib
from collections.abc import Sequence
from typing import NamedTuple

MAX_MEMBERS = 10_000

_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_DIRECTORY_ENTRY = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_VERSION, _FIRST_OF_JANUARY_1980 = 20, 0x21
_DIGEST_SIZE = 2 * hashlib.sha256().digest_size


class Member(NamedTuple):
    """A member of an archive.

    name: ASCII.
    content: the stored bytes.
    """

    name: str
    content: bytes | memoryview


def pack(members: Sequence[Member]) -> bytes:
    """The archive of `members`, of less than 4 GiB."""
    headers, directory = _headers(members)
    chunks = [chunk for header, member in zip(headers, members, strict=True) for chunk in (header, member.content)]
    digest = hashlib.sha256()
    for chunk in [*chunks, directory]:
        digest.update(chunk)
    return b"".join([*chunks, directory, digest.hexdigest().encode()])


def unpack(data: bytes) -> list[Member]:
    """The members of an archive, as views of `data`; raises ValueError unless `pack` makes `data` of them.

    Time and memory are those of one pass over `data`, whatever it contains.
    """
    view = memoryview(data)
    if hashlib.sha256(view[:-_DIGEST_SIZE]).hexdigest().encode() != view[-_DIGEST_SIZE:]:
        raise ValueError("it does not end with the SHA-256 of its contents")
    members: list[Member] = []
    offset = 0
    while data.startswith(b"PK\3\4", offset) and len(members) <= MAX_MEMBERS:
        try:
            *_, size, name_size, _ = _LOCAL_HEADER.unpack_from(data, offset)
            start = offset + _LOCAL_HEADER.size + name_size
            name = data[start - name_size : start].decode("ascii")
        except (struct.error, UnicodeDecodeError):
            break
        members.append(Member(name, view[start : start + size]))
        offset = start + size
    if len(members) > MAX_MEMBERS or not _is_canonical(view, members):
        raise ValueError("its archive is not in the form that maml writes")
    return members


def _is_canonical(view: memoryview, members: Sequence[Member]) -> bool:
    """Whether `view` is the archive of `members`, apart from its digest; compared header by header, without a copy."""
    headers, directory = _headers(members)
    offset = 0
    for header, member in zip(headers, members, strict=True):
        if view[offset : offset + len(header)] != header:
            return False
        offset += len(header) + len(member.content)
    return view[offset:-_DIGEST_SIZE] == directory


def _headers(members: Sequence[Member]) -> tuple[list[bytes], bytes]:
    """The header of each member, and the directory with all that follows it up to the digest."""
    headers, entries, offset = [], [], 0
    for name, content in members:
        encoded, size = name.encode("ascii"), len(content)
        fields = (_VERSION, 0, 0, 0, _FIRST_OF_JANUARY_1980, zlib.crc32(content), size, size, len(encoded), 0)
        headers.append(_LOCAL_HEADER.pack(b"PK\3\4", *fields) + encoded)
        entries.append(_DIRECTORY_ENTRY.pack(b"PK\1\2", _VERSION, *fields, 0, 0, 0, 0, offset) + encoded)
        offset += len(headers[-1]) + size
    directory = b"".join(entries)
    end = _END.pack(b"PK\5\6", 0, 0, len(members), len(members), len(directory), offset, _DIGEST_SIZE)
    return headers, directory + end
