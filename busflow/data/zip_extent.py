"""Whether a zip can be read in one way only (PKWARE's APPNOTE.TXT, sections 4.3.6 to 4.3.16)."""

import struct
import zipfile
from pathlib import Path

SIGNATURE = b"PK\5\6"  # of the record at the end, which leads to the table of contents
END = struct.Struct("<4s4HLLH")  # that record: the fifth field counts the members, the last a comment's bytes
MANY = 0xFFFF  # members, and more: a zip64 record counts them
HEADER = 30  # bytes before a member's name
HAS_DESCRIPTOR = 8
DESCRIPTORS = (12, 16, 20, 24)  # bytes after a member: with or without a signature, of 32 or of 64 bits


def ambiguity(archive: Path, source: zipfile.ZipFile) -> str:
    """Why another program may find other members in a zip than ``source`` does; empty: none can.

    A sound zip is its members without gaps, one table of contents, and its record at the very end.

    Raises:
        BadZipFile: the table of contents is not whole, which `zipfile` does not notice.
    """
    members = sorted(source.infolist(), key=lambda member: member.header_offset)
    place, between = 0, (0,)
    with archive.open("rb") as file:
        for member in members:
            if member.header_offset - place not in between:
                return f"there is something hidden before {member.filename!r}, or members overlap"
            data = file.seek(member.header_offset + HEADER)
            file.seek(data - 4)
            place = data + sum(struct.unpack("<HH", file.read(4))) + member.compress_size  # name, extra, data
            between = DESCRIPTORS if member.flag_bits & HAS_DESCRIPTOR else (0,)
        file.seek(source.start_dir)
        rest = file.read()
    if source.start_dir - place not in between:
        return "there is something hidden before its table of contents"
    end = rest.find(SIGNATURE)
    *_, count, _, _, comment = END.unpack_from(rest, end)
    if end + END.size + comment != len(rest) or rest.count(SIGNATURE) > 1:
        return "its comment may be taken for another table of contents, or something follows its end"
    if count not in (len(members), MANY):
        raise zipfile.BadZipFile("its table of contents is not whole")
    return ""
