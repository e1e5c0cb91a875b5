import errno
import hashlib
import io
import json
import multiprocessing
import re
import subprocess
import sys
import time
import types
import zipfile
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import yaml
from werkzeug import Response

from busflow.data import sources, transfers
from busflow.data.sources import fetch_file, fetch_source
from busflow.errors import BusflowError

ROOT = Path(__file__).parents[2]


def make_zip(seed: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("set/image.png"), np.random.default_rng(seed).bytes(10_000))
    return buffer.getvalue()


GOOD, OTHER = make_zip(1), make_zip(2)
SHA256, OTHER_SHA256 = hashlib.sha256(GOOD).hexdigest(), hashlib.sha256(OTHER).hexdigest()
PAGE = b"\n<!DOCTYPE html><html><body>Please log in</body></html>"


@pytest.fixture
def site(httpserver):
    """A web server of one file, whose bytes may be changed, and of a missing one."""
    site = types.SimpleNamespace(body=GOOD, delay=0, url=httpserver.url_for("/set.zip"), log=httpserver.log)

    def answer(_):
        time.sleep(site.delay)
        return Response(site.body)

    httpserver.expect_request("/set.zip").respond_with_handler(answer)
    httpserver.expect_request("/missing.zip").respond_with_data(status=404)
    return site


@pytest.fixture
def path(tmp_path):
    return tmp_path / "archives" / "set.zip"


def fetch(urls, path, sha256=SHA256, max_bytes=10_000_000):
    return fetch_file(urls, path, sha256, "https://example.org/dataset", max_bytes)


def failure(urls, path, sha256=SHA256) -> str:
    with pytest.raises(BusflowError) as caught:
        fetch(urls, path, sha256)
    assert not path.exists()
    return str(caught.value)


def quarantined(path) -> list[str]:
    return sorted(file.name for file in (path.parent / "quarantine").iterdir())


def test_a_good_file_is_fetched_and_nothing_else_is_left(site, path):
    fetched = fetch([site.url], path)
    assert (fetched.sha256, fetched.bytes, fetched.url) == (SHA256, len(GOOD), site.url)
    assert path.read_bytes() == GOOD
    assert {file.name for file in path.parent.iterdir()} == {
        "set.zip",
        ".set.zip.lock",
        "set.zip.origin.json",
    }


# --- wrong files


@pytest.mark.parametrize(
    ("body", "reason", "message"),
    [
        (PAGE, "web-page", "a web page came: the site wants a login, or Google Drive's quota"),
        (b"", "empty", "the file is empty (0 bytes"),
        (b"Rar!" + GOOD, "not-zip", "the file is no .zip archive"),
        (GOOD[:-30], "cut-off", "the file is cut off: its end is missing"),
        (
            OTHER,
            "wrong-hash",
            f"it is another file than the expected one ({len(OTHER)} bytes, sha256 {OTHER_SHA256}, expected",
        ),
    ],
)
def test_a_wrong_file_is_quarantined_and_named(site, path, body, reason, message):
    site.body = body
    said = failure([site.url], path)
    name = f"set.zip.{reason}-{hashlib.sha256(body).hexdigest()[:8]}"
    assert quarantined(path) == [name]
    assert (path.parent / "quarantine" / name).read_bytes() == body
    assert message in said
    assert f"it is kept as {path.parent / 'quarantine' / name}" in said
    assert f"expected {SHA256}" in said


def test_the_last_error_lists_all_urls_and_tells_where_to_drop_the_file(site, path):
    gone, missing = site.url.replace("set", "missing"), path.parent / "no such.zip"
    said = failure([gone, f"file:{missing}", "ftp://example.org/set.zip"], path)
    assert said.startswith("set.zip could not be fetched:\n")
    assert f"{gone}: the server says 404 NOT FOUND" in said
    assert f"{missing} cannot be read: No such file or directory" in said
    assert (
        "ftp://example.org/set.zip: its kind is unknown; https:, http:, file:, gdrive:, package: and phantom:"
        in said
    )
    assert f"Download it by hand (https://example.org/dataset), put it at {path}" in said
    assert f"Its sha256 must be {SHA256}." in said


def test_without_urls_the_advice_is_given_at_once(path):
    said = failure([], path, None)
    assert "no URL is configured" in said
    assert "Its sha256 is not known yet and will be recorded." in said


def test_the_next_mirror_is_tried(site, path, tmp_path):
    (tmp_path / "bad.zip").write_bytes(OTHER)
    fetched = fetch([(tmp_path / "bad.zip").as_uri(), site.url], path)
    assert fetched.url == site.url
    assert path.read_bytes() == GOOD
    assert len(quarantined(path)) == 1


@pytest.mark.parametrize(
    ("name", "body", "good"),
    [
        ("a.7z", b"7z\xbc\xaf\x27\x1c\0\4" + bytes(24), True),
        ("a.7z", b"7z\xbc\xaf\x27\x1c\0\4" + bytes(4) + (99).to_bytes(8, "little") + bytes(12), False),
        ("a.7z", b"7z\xbc\xaf\x27\x1c\0\4", False),
        ("a.7z", GOOD, False),
        ("a.safetensors", (60).to_bytes(8, "little") + b"{}", True),
        ("a.safetensors", PAGE, False),
        ("a.pth", b"\x80\x02", True),
        ("a.pth", b"", False),
    ],
)
def test_a_file_must_be_what_its_suffix_says(tmp_path, name, body, good):
    (tmp_path / "mirror").write_bytes(body)
    path = tmp_path / "archives" / name
    if good:
        assert fetch([(tmp_path / "mirror").as_uri()], path, None).bytes == len(body)
    else:
        failure([(tmp_path / "mirror").as_uri()], path, None)


# --- files that are there already


def test_a_file_dropped_by_hand_is_taken(path):
    path.parent.mkdir()
    path.write_bytes(GOOD)
    assert fetch(["http://127.0.0.1:1/"], path).url == "dropped by hand"


def test_a_file_dropped_by_hand_without_a_known_hash_must_be_an_archive(path):
    path.parent.mkdir()
    path.write_bytes(GOOD[:1000])
    assert "the file is cut off" in failure([], path, None)
    path.write_bytes(GOOD)
    assert fetch([], path, None).sha256 == SHA256


def test_a_wrong_file_dropped_by_hand_is_put_aside_and_replaced(site, path):
    path.parent.mkdir()
    path.write_bytes(OTHER)
    assert fetch([site.url], path).sha256 == SHA256
    assert quarantined(path) == [f"set.zip.wrong-hash-{OTHER_SHA256[:8]}"]


def test_a_fetched_file_keeps_its_url_when_found_again(site, path):
    first = fetch([site.url], path)
    assert fetch([site.url], path) == first
    assert len(site.log) == 1


def test_a_fetched_file_that_was_replaced_by_hand_is_not_the_urls(site, path):
    fetch([site.url], path)
    path.write_bytes(OTHER)
    assert fetch([site.url], path, OTHER_SHA256).url == "dropped by hand"


# --- a hash that is not known yet


def test_a_null_hash_is_recorded_as_sha256sum_does_and_enforced(site, path):
    fetch([site.url], path, None)
    record = path.with_name("set.zip.sha256")
    subprocess.run(["sha256sum", "-c", "--strict", record.name], cwd=path.parent, check=True)
    path.unlink()
    site.body = OTHER
    said = failure([site.url], path, None)
    assert (
        f"Its sha256 must be {SHA256}, recorded at the first fetch; to accept another, delete {record}."
        in said
    )
    record.unlink()
    assert fetch([site.url], path, None).sha256 == OTHER_SHA256
    assert record.read_text() == f"{OTHER_SHA256}  set.zip\n"


@pytest.fixture
def named(httpserver):
    """A site with weights under the first digits of their hash, and under those of another."""
    for digits in (SHA256[:8], OTHER_SHA256[:8]):
        httpserver.expect_request(f"/mit_b0_20220624-{digits}.pth").respond_with_data(GOOD)
    return types.SimpleNamespace(
        right=httpserver.url_for(f"/mit_b0_20220624-{SHA256[:8]}.pth"),
        wrong=httpserver.url_for(f"/mit_b0_20220624-{OTHER_SHA256[:8]}.pth"),
    )


@pytest.mark.parametrize("query", ["", "?download=true"])
def test_a_file_has_the_digits_that_its_published_name_ends_in(named, tmp_path, query):
    assert fetch([named.right + query], tmp_path / "b0.pth", sha256=None).sha256 == SHA256


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_file_without_the_digits_of_its_published_name_is_refused(named, tmp_path, by_hand):
    path = tmp_path / "b0.pth"
    if by_hand:
        path.write_bytes(GOOD)
    message = failure([named.wrong], path, sha256=None)
    assert f"its sha256 is {SHA256} and does not begin with {OTHER_SHA256[:8]}, as its name says" in message
    assert f"Its sha256 must begin with {OTHER_SHA256[:8]}." in message
    assert not path.exists() and not path.with_name("b0.pth.sha256").exists()


def test_a_given_hash_counts_more_than_a_name(named, tmp_path):
    assert fetch([named.wrong], tmp_path / "b0.pth", sha256=SHA256).sha256 == SHA256


def test_a_broken_record_is_said_so(site, path):
    path.parent.mkdir()
    record = path.with_name("set.zip.sha256")
    record.write_text("?")
    assert (
        failure([site.url], path, None)
        == f"{record} is not what sha256sum writes of set.zip; correct it, or delete it"
    )


def test_a_refused_file_is_not_recorded(site, path):
    site.body = PAGE
    failure([site.url], path, None)
    assert not path.with_name("set.zip.sha256").exists()


# --- other kinds of URL


def test_a_file_url_may_be_relative_and_percent_encoded(path, tmp_path, monkeypatch):
    (tmp_path / "a b#1.zip").write_bytes(GOOD)
    monkeypatch.chdir(tmp_path)
    assert fetch(["file:a%20b%231.zip"], path).url == "file:a%20b%231.zip"
    assert (tmp_path / "a b#1.zip").exists()


@pytest.mark.parametrize(
    ("url", "link"),
    [
        ("gdrive:1LVX_k", "https://drive.google.com/uc?id=1LVX_k"),
        ("https://drive.google.com/file/d/1LVX/view", "https://drive.google.com/file/d/1LVX/view"),
    ],
)
def test_google_drive_is_left_to_gdown(path, monkeypatch, url, link):
    def gdown(url, output, *, hasher, progress, resume, **_):
        assert (url, resume) == (link, True)
        Path(output).write_bytes(GOOD)
        hasher.update(GOOD)
        progress(len(GOOD), len(GOOD))

    monkeypatch.setattr(transfers.gdown, "download", gdown)
    assert fetch([url], path).url == url


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """An installed package that must not be run."""
    folder = tmp_path / "site/some_weights"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('code was run')")
    (folder / "models/set.zip").write_bytes(GOOD)
    (folder.parent / "secret.zip").write_bytes(GOOD)
    monkeypatch.syspath_prepend(folder.parent)
    return folder


def test_a_file_that_an_installed_package_ships_is_taken_and_none_of_its_code_run(path, package):
    fetched = fetch(["package:some_weights/models/set.zip"], path)
    assert path.read_bytes() == GOOD and fetched.url == "package:some_weights/models/set.zip"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (
            "package:other_weights/set.zip",
            "'other_weights' is not installed: pip install other_weights",
        ),
        ("package:some_weights.models/set.zip", "'some_weights.models' is not installed"),
        ("package:/etc/passwd", "'' is not installed"),
        ("package:some_weights/../secret.zip", "may lead out of it"),
        ("package:some_weights/models/none.zip", "cannot be read: No such file"),
        ("package:some_weights", "is empty"),
    ],
)
def test_what_a_package_does_not_ship_is_named(path, package, url, said):
    assert said in failure([url], path)


def test_google_drives_complaint_is_passed_on(path, monkeypatch):
    def gdown(*_, **__):
        raise transfers.gdown.exceptions.FileURLRetrievalError("Too many users\n have viewed it")

    monkeypatch.setattr(transfers.gdown, "download", gdown)
    assert "gdrive:1: Google Drive says: Too many users have viewed it" in failure(["gdrive:1"], path)


@pytest.fixture
def phantoms(monkeypatch):
    """A stub that writes one archive or the other, by the URL; gives the URLs it was called with."""
    calls = []

    def write_archive(url, part):
        calls.append(url)
        part.write_bytes(GOOD if "seed=1" in url else OTHER)

    module = types.SimpleNamespace(write_archive=write_archive)
    monkeypatch.setitem(sys.modules, "busflow.data.phantom_archives", module)
    monkeypatch.setattr("busflow.data.phantom_archives", module, raising=False)
    return calls


def test_phantoms_are_made_once_by_their_module(path, phantoms):
    url = "phantom:busi?seed=1&benign=2"
    assert fetch([url], path).url == fetch([url], path).url == url
    assert phantoms == [url]


def test_phantoms_of_another_url_are_made_anew(path, phantoms):
    fetch(["phantom:busi?seed=1"], path, None)
    assert fetch(["phantom:busi?seed=2"], path, None).sha256 == OTHER_SHA256
    assert quarantined(path) == [f"set.zip.phantom-{SHA256[:8]}"]


def test_phantoms_are_never_taken_for_real_data(path, phantoms):
    fetch(["phantom:busi?seed=1"], path, None)
    said = failure([], path, None)
    assert "it holds the phantoms of another config, phantom:busi?seed=1; it is kept as" in said


def test_a_real_archive_dropped_over_phantoms_is_taken(path, phantoms):
    fetch(["phantom:busi?seed=1"], path, None)
    path.write_bytes(OTHER)
    assert fetch([], path, None).url == "dropped by hand"


def fetch_in_a_process(url: str, path: Path) -> None:
    fetch([url], path)


def test_two_processes_that_fetch_one_file_both_end_right(site, path):
    site.delay = 0.5
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=fetch_in_a_process, args=(site.url, path)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert path.read_bytes() == GOOD
    assert len(site.log) == 1


def test_a_full_disk_is_said_to_be_the_archives(path, monkeypatch):
    def full(url, part, max_bytes):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sources, "transfer", full)
    with pytest.raises(OSError, match="No space left") as caught:
        fetch(["gdrive:1"], path)
    assert caught.value.filename == str(path)


# --- receipt and script


def test_the_receipt_is_the_same_at_every_fetch(path, tmp_path):
    (tmp_path / "mirror.zip").write_bytes(GOOD)
    settings = {
        "label": "Set",
        "archive": "set.zip",
        "urls": [(tmp_path / "mirror.zip").as_uri()],
        "sha256": None,
        "max_bytes": 10_000_000,
        "licence": "CC0",
        "homepage": None,
        "citation": "Somebody, 2020",
    }
    receipt = tmp_path / "set.json"
    fetch_source("set", settings, path.parent, receipt)
    first = receipt.read_text()
    assert json.loads(first) == {
        "source": "set",
        "file": "set.zip",
        "sha256": SHA256,
        "bytes": len(GOOD),
        "url": settings["urls"][0],
        "licence": "CC0",
        "citation": "Somebody, 2020",
    }
    receipt.unlink()  # as Snakemake does before it runs the rule again
    fetch_source("set", settings, path.parent, receipt)
    assert receipt.read_text() == first


def test_the_script_ends_with_one_error_and_no_receipt(tmp_path):
    settings = {
        "archive": "a.zip",
        "urls": [],
        "sha256": None,
        "max_bytes": 10_000_000,
        "licence": "",
        "homepage": None,
        "citation": "Somebody, 2020",
    }
    command = [sys.executable, ROOT / "scripts/fetch.py", "--source", "a", "--settings", json.dumps(settings)]
    command += ["--archives", tmp_path / "archives", "--receipt", tmp_path / "a.json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 1
    assert done.stderr.startswith("fetch.py: error: a.zip could not be fetched:\n  no URL is configured\n")
    assert not (tmp_path / "a.json").exists()


# --- what is damaged, in the way or too large


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("set.zip.sha256", "?"),
        ("set.zip.sha256", b"\xff\xfe"),
        ("set.zip.sha256", f"{SHA256}  other.zip\n"),
        ("set.zip.sha256", f"{SHA256}  set.zip\n{OTHER_SHA256}  other.zip\n"),
        ("set.zip.sha256", None),
        ("set.zip.part", None),
        ("set.zip.part.json", None),
        ("set.zip.origin.json", None),
        (".set.zip.lock", None),
    ],
)
def test_a_damaged_file_beside_or_a_folder_in_its_place_is_named(site, path, name, content):
    """``content`` None is a folder."""
    side = path.with_name(name)
    side.mkdir(parents=True)
    if content is not None:
        side.rmdir()
        side.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BusflowError, match=re.escape(str(side))) as caught:
        fetch([site.url], path, None)
    assert "\n" not in str(caught.value).removeprefix(str(side))


def test_an_archive_that_is_a_folder_is_said_so(site, path):
    path.mkdir(parents=True)
    with pytest.raises(BusflowError, match=f"{path} is no file; remove it"):
        fetch([site.url], path)


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[1]", b"{}", b"[" * 100_000])
def test_a_damaged_note_of_the_origin_is_named(site, path, content):
    """It cannot be passed over: it may be all that says of an archive that it holds phantoms."""
    fetch([site.url], path)
    note = path.with_name("set.zip.origin.json")
    note.write_bytes(content)
    with pytest.raises(BusflowError, match=f"{note}, which says where the file came from, is damaged"):
        fetch([site.url], path)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("file:a%00b.zip", "'a\\x00b.zip' cannot be a file's name"),
        ("file:/dev/zero", "/dev/zero is no file"),
        ("http://[::1/set.zip", "it is no URL"),
    ],
)
def test_a_url_that_names_no_file_is_told_in_a_line(path, url, message):
    assert message in failure([url], path)


def test_a_file_larger_than_allowed_is_not_copied(path, tmp_path):
    (tmp_path / "mirror.zip").write_bytes(GOOD)
    url = (tmp_path / "mirror.zip").as_uri()
    with pytest.raises(BusflowError, match=f"the file is larger than max_bytes = {len(GOOD) - 1}"):
        fetch([url], path, max_bytes=len(GOOD) - 1)
    assert fetch([url], path, max_bytes=len(GOOD)).sha256 == SHA256


@pytest.mark.parametrize("total", [None, 10**12])
def test_google_drive_is_broken_off_and_nothing_is_kept(path, monkeypatch, total):
    def gdown(url, output, *, progress, **_):
        Path(f"{output}a1b2c3d4.part").write_bytes(GOOD)
        progress(10**12, total)

    monkeypatch.setattr(transfers.gdown, "download", gdown)
    assert "the file is larger than max_bytes = 10000000" in failure(["gdrive:1"], path)
    assert [file.name for file in path.parent.iterdir()] == [".set.zip.lock"]


def test_what_killed_writers_left_is_swept_away(site, path):
    path.parent.mkdir()
    for name in (".set.zip.part.abcd1234.part", ".set.zip.origin.json.abcd1234.json"):
        (path.parent / name).write_bytes(b"1")
    fetch([site.url], path)
    assert [file.name for file in path.parent.glob(".*")] == [".set.zip.lock"]


@pytest.mark.parametrize(
    "name",
    [
        "../set.zip",
        "/set.zip",
        "a/set.zip",
        "..",
        "",
        "a\0.zip",
        "a\\b.zip",
        "a" * 197 + ".zip",
        "\ud800.zip",
    ],
)
def test_an_archive_that_is_no_plain_file_name_is_refused(path, tmp_path, name):
    settings = {"archive": name, "urls": [], "sha256": None, "max_bytes": 1, "homepage": ""}
    settings |= {"licence": "", "citation": ""}
    with pytest.raises(BusflowError, match=r"make it a plain file name|cannot name a file in"):
        fetch_source("set", settings, path.parent, tmp_path / "set.json")
    assert not path.parent.exists()


@pytest.mark.parametrize("name", ["../x.zip", "/x.zip", "a/x.zip", "..\\x.zip", ".x.zip", "a" * 197 + ".zip"])
@pytest.mark.parametrize("key", ["archive", "file"])
def test_the_schema_refuses_names_that_lead_out_of_the_folder(key, name):
    schema = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())["properties"]
    section = schema["sources" if key == "archive" else "weights"]["additionalProperties"]
    validator = jsonschema.Draft202012Validator(section["properties"][key])
    assert validator.is_valid("Miccai 2022 BUV Dataset.7z")
    assert not validator.is_valid(name)
