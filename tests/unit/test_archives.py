import errno
import gzip
import io
import json
import stat
import subprocess
import sys
import tarfile
import types
import unicodedata
import warnings
import zipfile
from pathlib import Path

import numpy as np
import py7zr
import pytest

from busflow import files
from busflow.data import archives
from busflow.data.archives import extract, unpack
from busflow.errors import BusflowError

ROOT = Path(__file__).parents[2]
UNIX = 0x8000  # FILE_ATTRIBUTE_UNIX_EXTENSION of 7z
TREE = {
    "set/benign/a (1).png": np.random.default_rng(0).bytes(3000),
    "set/empty.txt": b"",
    "é.json": b"{}" * 99,
}


def make_zip(path, members, mode=0):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of duplicate names
        for name, data in members:
            info = zipfile.ZipInfo("x")
            info.filename, info.external_attr, info.compress_type = name, mode << 16, zipfile.ZIP_DEFLATED
            archive.writestr(info, data)


def make_7z(path, members, mode=0, **options):
    with py7zr.SevenZipFile(path, "w", **options) as archive:
        for name, data in members:
            archive.writestr(data, "x")  # py7zr itself would not write a hostile name
            entry = archive.header.files_info.files[-1]
            entry["filename"] = name.rstrip("/")
            if mode:
                entry["attributes"] = UNIX | mode << 16
            if name.endswith("/"):
                entry["attributes"] = stat.FILE_ATTRIBUTE_DIRECTORY


def make_tar(path, members, mode=0):
    with tarfile.open(path, "w:gz", format=tarfile.GNU_FORMAT) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name.rstrip("/") if name.strip("/") else name)
            info.size = len(data)
            kinds = {
                stat.S_IFLNK: tarfile.SYMTYPE,
                stat.S_IFIFO: tarfile.FIFOTYPE,
                stat.S_IFCHR: tarfile.CHRTYPE,
                stat.S_IFBLK: tarfile.BLKTYPE,
                stat.S_IFSOCK: tarfile.LNKTYPE,  # tar has no sockets, but hard links
            }
            info.type = kinds.get(stat.S_IFMT(mode), tarfile.REGTYPE)
            if name.endswith("/"):
                info.type = tarfile.DIRTYPE
            archive.addfile(info, io.BytesIO(data))


@pytest.fixture(params=[".zip", ".7z", ".tar.gz"])
def make(request, tmp_path):
    """A function that writes an archive, of both kinds in turn, and returns its path."""

    def make(members, **options):
        path = tmp_path / f"set{request.param}"
        {".zip": make_zip, ".7z": make_7z, ".tar.gz": make_tar}[request.param](path, members, **options)
        return path

    return make


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def unpacked(archive: Path, sha256: str | None = None) -> Path:
    receipt, folder = archive.with_name("receipt.json"), archive.with_name("raw") / "set"
    files.write_json(receipt, {"sha256": sha256 or files.sha256(archive)})
    unpack(archive, receipt, folder)
    return folder


def refusal(archive: Path, sha256: str | None = None) -> str:
    """The message of a refused archive, after a look that nothing at all was left behind."""
    before = {path for path in archive.parent.rglob("*") if "raw" not in path.parts}
    with pytest.raises(BusflowError) as caught:
        unpacked(archive, sha256)
    after = set(archive.parent.rglob("*")) - {archive.with_name("receipt.json"), archive.with_name("raw")}
    assert after == before
    assert str(archive) in str(caught.value)
    return str(caught.value)


def test_the_tree_comes_out_whole(make):
    folder = unpacked(make([("set/", b""), ("set/hollow/", b""), *TREE.items()]))
    assert tree(folder) == TREE
    assert (folder / "set/hollow").is_dir()
    assert [path.name for path in folder.parent.iterdir()] == ["set"]


def test_the_litter_of_file_managers_is_not_written(make):
    litter = [("__MACOSX/set/._a.png", b"1"), ("set/.DS_Store", b"2"), ("set/Thumbs.db", b"3")]
    assert tree(unpacked(make([*TREE.items(), *litter]))) == TREE


# --- names


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "set/../../evil",
        "set/..",
        "/evil",
        "C:/evil",
        "c:evil",
        "..\\evil",
        "set\\..\\..\\evil",
        "\\\\host\\evil",
    ],
)
def test_a_name_that_may_lead_out_is_refused(make, name):
    said = refusal(make([*TREE.items(), (name, b"!")]))
    said = said.replace(r"\\", "/")  # py7zr turns backslashes round when it reads a name
    assert f"is refused: '{name.replace(chr(92), '/')}' may lead out of its folder" in said
    assert said.endswith("nothing was unpacked, get a sound copy of it")


@pytest.mark.parametrize("name", ["a\nb", "", "."])
def test_an_unprintable_or_empty_name_is_refused(make, name):
    assert f"the name {name!r} is empty or holds a control character" in refusal(make([(name, b"!")]))


def test_a_nul_in_a_name_is_refused(tmp_path):
    make_zip(tmp_path / "set.zip", [("a.png@.exe", b"!")])
    patch(tmp_path / "set.zip", b"a.png@.exe", b"a.png\0.exe")
    said = refusal(tmp_path / "set.zip")
    assert "the name 'a.png\\x00.exe' is empty or holds a control character" in said


@pytest.mark.parametrize("name", ["a" * 256, "a/" * 600 + "a"])
def test_a_name_too_long_for_the_disk_is_refused(make, name):
    assert f"the name {name[:40]!r}... is too long" in refusal(make([(name, b"!")]))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("set/a.png", "set/a.png"),
        ("set/a.png", "set/A.PNG"),
        ("set/a.png", "set//a.png"),
        ("Set/a.png", "set/b.png"),
        ("é.png", unicodedata.normalize("NFD", "é.png")),
        ("set", "set/a.png"),
        ("set/a.png", "set"),
        ("set/a.png", "set/a.png/"),
    ],
)
def test_members_that_take_the_same_place_are_refused(make, first, second):
    said = refusal(make([(first, b"1"), (second, b"" if second.endswith("/") else b"2")]))
    assert "take the same place (duplicates, or different only by case or Unicode form)" in said


# --- more than one reading


def hidden_table(tmp_path) -> bytes:
    """The table of contents and the end of another zip."""
    make_zip(tmp_path / "other.zip", [("evil.png", b"!")])
    data = (tmp_path / "other.zip").read_bytes()
    (tmp_path / "other.zip").unlink()
    return data[data.index(b"PK\1\2") :]


def commented(data: bytes, comment: bytes) -> bytes:
    return data[:-2] + len(comment).to_bytes(2, "little") + comment


def with_table_moved(data: bytes, inserted: bytes) -> bytes:
    """Something between the members and the table of contents, to which the end leads all the same."""
    start = int.from_bytes(data[-6:-2], "little")
    end = data[start:-6] + (start + len(inserted)).to_bytes(4, "little") + data[-2:]
    return data[:start] + inserted + end


AMBIGUOUS = {
    "table in the comment": (commented, "there is something hidden before"),
    "data after the end": (
        lambda data, _: data + b"tail",
        "its comment may be taken for another table of contents, or something follows its end",
    ),
    "data before the first member": (
        lambda data, _: b"PK\3\4" + data,
        "there is something hidden before 'set/benign/a (1).png', or members overlap",
    ),
    "another table before the table": (
        with_table_moved,
        "there is something hidden before its table of contents",
    ),
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_a_zip_that_may_be_read_in_two_ways_is_refused(tmp_path, case):
    spoil, why = AMBIGUOUS[case]
    make_zip(tmp_path / "set.zip", TREE.items())
    table = hidden_table(tmp_path)
    (tmp_path / "set.zip").write_bytes(spoil((tmp_path / "set.zip").read_bytes(), table))
    assert f"is refused: {why}" in refusal(tmp_path / "set.zip")


def test_an_end_in_the_comment_of_a_member_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        member = zipfile.ZipInfo("a.png")
        member.comment = hidden_table(tmp_path)[-22:]
        archive.writestr(member, b"1")
    assert "its comment may be taken for another table of contents" in refusal(tmp_path / "set.zip")


def test_members_that_overlap_are_refused(tmp_path):
    make_zip(tmp_path / "set.zip", [("a.png", b"1" * 50), ("b.png", b"1" * 50)])
    data = bytearray((tmp_path / "set.zip").read_bytes())
    second = data.rindex(b"PK\1\2")
    data[second + 42 : second + 46] = bytes(4)
    (tmp_path / "set.zip").write_bytes(data)
    assert "members overlap" in refusal(tmp_path / "set.zip")


def test_a_zip_with_a_plain_comment_or_a_zip_inside_or_written_to_a_pipe_is_unpacked(tmp_path):
    make_zip(tmp_path / "inner.zip", TREE.items())
    members = {**TREE, "inner.zip": (tmp_path / "inner.zip").read_bytes()}
    written = io.BytesIO()
    pipe = types.SimpleNamespace(
        write=written.write, flush=written.flush
    )  # so that sizes follow their members
    with zipfile.ZipFile(pipe, "w") as archive:
        archive.comment = b"made by hand"
        for name, data in members.items():
            archive.writestr(name, data)
    (tmp_path / "set.zip").write_bytes(written.getvalue())
    assert tree(unpacked(tmp_path / "set.zip")) == members


def test_a_zip_of_many_members_is_unpacked(tmp_path, monkeypatch):
    """Their number stands in a zip64 record."""
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
    make_zip(tmp_path / "set.zip", TREE.items())
    assert b"PK\6\6" in (tmp_path / "set.zip").read_bytes()
    assert tree(unpacked(tmp_path / "set.zip")) == TREE


def test_a_7z_with_data_after_its_end_is_refused(tmp_path):
    make_7z(tmp_path / "set.7z", TREE.items())
    with (tmp_path / "set.7z").open("ab") as file:
        file.write(b"tail")
    assert "is refused: something follows its end" in refusal(tmp_path / "set.7z")


def spoilt_tar(tmp_path, spoil) -> Path:
    """A tar of three members in which ``spoil`` changes the bytes, compressed again."""
    path = tmp_path / "set.tar.gz"
    make_tar(path, TREE.items())
    path.write_bytes(gzip.compress(spoil(gzip.decompress(path.read_bytes()))))
    return path


SECOND = 7 * 512  # where the second header begins, after the first one and six blocks of 3000 bytes
LAST = SECOND + 3 * 512  # where the third member ends, after a block


@pytest.mark.parametrize("start", [SECOND, SECOND + 512], ids=["second", "third"])
@pytest.mark.parametrize(
    "damage", [b"?" * 512, b"\0" * 511 + b"?", b"\0" * 512], ids=["all", "last", "zeros"]
)
def test_a_tar_with_a_damaged_header_after_the_first_is_refused(tmp_path, start, damage):
    path = spoilt_tar(tmp_path, lambda tar: tar[:start] + damage + tar[start + 512 :])
    assert "comes a damaged header, or something follows its end; nothing was unpacked" in refusal(path)


@pytest.mark.parametrize("between", [512, 1024, 5 << 20])
def test_a_tar_behind_the_end_of_another_is_refused(tmp_path, between):
    path = spoilt_tar(tmp_path, lambda tar: tar[:LAST] + bytes(between) + tar)
    assert "something follows its end" in refusal(path)


def test_a_tar_without_its_end_is_cut_off(tmp_path):
    path = spoilt_tar(tmp_path, lambda tar: tar[:LAST])
    assert "is refused: it is cut off: the zeros that end a tar are missing" in refusal(path)


@pytest.mark.parametrize("blocks", [1, 2, 20, 3000])
def test_the_end_of_a_tar_may_be_of_any_length(tmp_path, blocks):
    path = spoilt_tar(tmp_path, lambda tar: tar[:LAST] + bytes(512 * blocks))
    assert tree(unpacked(path)) == TREE


# --- kinds


@pytest.mark.parametrize(
    "members", [[("set/", b""), ("set/hollow/", b"")], [("__MACOSX/._a.png", b"1"), ("set/", b"")], []]
)
def test_an_archive_that_unpacks_to_no_file_is_refused(make, members):
    assert "is refused: it holds no file" in refusal(make(members))


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_links_and_devices_are_refused(make, mode):
    assert "'set/link' is a link or a device, not a file" in refusal(
        make([("set/link", b"/etc/passwd")], mode=mode | 0o777)
    )


def test_a_windows_link_is_refused(tmp_path):
    with py7zr.SevenZipFile(tmp_path / "set.7z", "w") as archive:
        archive.writestr(b"/etc/passwd", "link")
        archive.header.files_info.files[-1]["attributes"] = stat.FILE_ATTRIBUTE_REPARSE_POINT
    assert "'link' is a link or a device, not a file" in refusal(tmp_path / "set.7z")


# --- encryption


@pytest.mark.parametrize("hidden_names", [False, True])
def test_an_encrypted_7z_is_refused(tmp_path, hidden_names):
    make_7z(tmp_path / "set.7z", TREE.items(), password="secret", header_encryption=hidden_names)
    assert "is refused: it is encrypted" in refusal(tmp_path / "set.7z")


def test_an_encrypted_zip_is_refused(tmp_path):
    make_zip(tmp_path / "set.zip", [("a", b"1")])
    data = bytearray((tmp_path / "set.zip").read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "set.zip").write_bytes(data)
    assert "is refused: 'a' is encrypted" in refusal(tmp_path / "set.zip")


# --- bombs


def test_a_bomb_is_stopped_by_its_ratio(make):
    said = refusal(make([("zeros.png", bytes(30 << 20)), ("more.png", bytes(30 << 20))]))
    assert f"it unpacks to more than {archives.MAX_RATIO * archives.RATIO_FLOOR} bytes" in said


def test_a_bomb_of_litter_is_stopped_too(tmp_path):
    make_7z(tmp_path / "set.7z", [("__MACOSX/zeros", bytes(60 << 20)), ("a.png", b"1")])
    assert "it unpacks to more than" in refusal(tmp_path / "set.7z")


def test_a_bomb_of_zeros_behind_the_end_of_a_tar_is_stopped(tmp_path):
    assert "it unpacks to more than" in refusal(spoilt_tar(tmp_path, lambda tar: tar + bytes(60 << 20)))


def test_the_total_size_is_limited(make, monkeypatch):
    monkeypatch.setattr(archives, "MAX_BYTES", 3000)
    assert "it unpacks to more than 3000 bytes" in refusal(make(TREE.items()))


def test_the_number_of_members_is_limited(make, monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBERS", 2)
    assert "it has more than 2 members" in refusal(make(TREE.items()))


def test_a_size_that_lies_is_found_out(tmp_path):
    make_zip(tmp_path / "set.zip", [("zeros", bytes(5000))])
    patch(tmp_path / "set.zip", (5000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    assert "is damaged (BadZipFile: Bad CRC-32 for file 'zeros')" in refusal(tmp_path / "set.zip")


# --- damage


def patch(path, old, new):
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new))


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_a_truncated_archive_is_damaged(make, share):
    path = make(TREE.items())
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    said = refusal(path)
    assert "is damaged (" in said
    assert said.endswith("delete it and fetch it again")


def test_any_flipped_bit_is_found_or_harmless(make, tmp_path):
    path = make(TREE.items())
    data = path.read_bytes()
    for position in {*range(0, len(data), 7), *range(len(data) - 400, len(data))}:
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        folder = tmp_path / "out" / str(position)
        folder.mkdir(parents=True)
        try:
            extract(path, folder)
        except BusflowError:
            continue
        assert tree(folder) == TREE


# --- the machine


def test_an_archive_that_was_swapped_after_the_fetch_is_not_opened(make):
    said = refusal(make(TREE.items()), sha256="0" * 64)
    assert "is not the file that was fetched" in said
    assert "receipt.json says 0000" in said


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_damaged_receipt_is_named(make, content):
    archive = make(TREE.items())
    receipt = archive.with_name("receipt.json")
    receipt.write_text(content)
    with pytest.raises(BusflowError, match=f"{receipt} is no receipt of a fetched archive"):
        unpack(archive, receipt, archive.with_name("raw"))


def test_an_archive_of_another_kind_is_refused(tmp_path):
    (tmp_path / "set.rar").write_bytes(b"Rar!")
    assert "is neither a .zip nor a .7z nor a .tar.gz" in refusal(tmp_path / "set.rar")


def test_a_folder_with_something_in_it_is_left_alone(make):
    archive = make(TREE.items())
    precious = archive.with_name("raw") / "set" / "mine.txt"
    precious.parent.mkdir(parents=True)
    precious.write_text("mine")
    with pytest.raises(BusflowError, match="is not empty; remove it, then unpack again"):
        unpacked(archive)
    assert precious.read_text() == "mine"


def test_what_a_killed_run_left_is_swept_away(make):
    archive = make(TREE.items())
    left = archive.with_name("raw") / ".set.partial" / "half.png"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"1")
    assert tree(unpacked(archive).parent) == {f"set/{name}": data for name, data in TREE.items()}


def test_a_full_disk_leaves_nothing_and_is_no_fault_of_the_archive(make, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    archive = make(TREE.items())
    monkeypatch.setattr(archives._Tree, "append", full)
    with pytest.raises(OSError, match="No space left") as caught:
        unpacked(archive)
    assert str(archive.with_name("raw")) in caught.value.filename
    assert list(archive.with_name("raw").iterdir()) == []


def test_the_script_unpacks(make, tmp_path):
    archive, receipt = make(TREE.items()), tmp_path / "receipt.json"
    receipt.write_text(json.dumps({"sha256": files.sha256(archive)}))
    command = [sys.executable, ROOT / "scripts/unpack.py", "--archive", archive, "--receipt", receipt]
    subprocess.run([*command, "--output", tmp_path / "raw"], check=True, env={"PYTHONPATH": str(ROOT)})
    assert tree(tmp_path / "raw") == TREE
