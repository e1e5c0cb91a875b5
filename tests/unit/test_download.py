import contextlib
import errno
import gzip
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from busflow.data import download as module
from busflow.data.download import download
from busflow.errors import BusflowError

LIMIT = 10_000_000
FILE, OTHER = (np.random.default_rng(seed).bytes(700_000) for seed in (1, 2))


class Site:
    """A web server of one file. ``moods`` says how the next requests are answered; after them, properly."""

    def __init__(self) -> None:
        self.body, self.etag, self.moods, self.requests = FILE, '"v1"', [], []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.requests.append(dict(self.headers))
                site.answer(self, site.moods.pop(0) if site.moods else "proper")

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/set.zip"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, handler: BaseHTTPRequestHandler, mood: str) -> None:
        if mood.isdigit():
            handler.send_error(int(mood))
            return
        if mood.startswith("endless"):
            self.answer_without_end(handler, mood)
            return
        start, total, wanted = 0, len(self.body), handler.headers.get("If-Range", self.etag)
        is_current = wanted == self.etag or mood == "ignores If-Range"
        if "Range" in handler.headers and mood != "no ranges" and is_current:
            start = int(handler.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        if mood == "wrong range":
            start = 7
        body = self.body[start : start + 1000 if mood == "a piece" else None]
        handler.send_response(206 if start else 200)
        if mood in ("gzip", "identity"):
            handler.send_header("Content-Encoding", mood)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/{total}")
        if mood != "no length":
            lengths = {"huge length": "9" * 12, "nonsensical length": "9" * 5000}
            handler.send_header("Content-Length", lengths.get(mood, str(len(body))))
        if self.etag:
            handler.send_header("ETag", self.etag)
        handler.end_headers()
        sent = {"drop": len(body) // 2, "drop at once": 0}.get(mood, len(body))
        handler.wfile.write(body[:sent])

    def answer_without_end(self, handler: BaseHTTPRequestHandler, mood: str) -> None:
        start = int(handler.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        is_redirection = mood == "endless redirection"
        handler.send_response(302 if is_redirection else 206 if start else 200)
        handler.send_header("Location", self.url)
        handler.send_header("ETag", self.etag)
        handler.send_header("Content-Range", f"bytes {start}-{len(self.body) - 1}/{len(self.body)}")
        handler.end_headers()
        with contextlib.suppress(ConnectionError):
            while True:
                handler.wfile.write(bytes(100_000))


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(module, "BACKOFF", 0)


@pytest.fixture
def site():
    site = Site()
    yield site
    site.server.shutdown()
    site.server.server_close()


@pytest.fixture
def part(tmp_path):
    return tmp_path / "set.zip.part"


def receive(url, part) -> bytes:
    """Download, check the hash that is returned and that nothing else is left; give the bytes."""
    digest = download(url, part, LIMIT)
    assert digest == hashlib.sha256(part.read_bytes()).hexdigest()
    assert list(part.parent.iterdir()) == [part]
    return part.read_bytes()


def failure(url, part, limit=LIMIT) -> str:
    with pytest.raises(BusflowError) as caught:
        download(url, part, limit)
    return str(caught.value)


def interrupt(site, part, monkeypatch) -> None:
    """A download that ends midway, as a killed one does, and leaves its part."""
    with monkeypatch.context() as patch:
        patch.setattr(module, "RETRIES", -1)
        site.moods = ["drop"]
        assert "are kept, and the next run continues there" in failure(site.url, part)
    assert 0 < part.stat().st_size < len(FILE)
    site.requests.clear()


def test_downloads_as_a_browser(site, part):
    assert receive(site.url, part) == FILE
    assert "Mozilla" in site.requests[0]["User-Agent"]


def test_continues_after_the_connection_broke(site, part):
    site.moods = ["drop"]
    assert receive(site.url, part) == FILE
    start = int(site.requests[1]["Range"].removeprefix("bytes=").removesuffix("-"))
    assert 0 < start < len(FILE)
    assert site.requests[1]["If-Range"] == '"v1"'


def test_a_connection_may_break_often_as_long_as_bytes_come(site, part, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 100)
    site.moods = ["drop"] * 2 * module.RETRIES
    assert receive(site.url, part) == FILE


def test_asks_on_when_only_a_piece_of_the_rest_comes(site, part):
    site.moods = ["drop", "a piece", "a piece"]
    assert receive(site.url, part) == FILE
    assert len(site.requests) == 4


def test_a_later_run_continues_the_part(site, part, monkeypatch):
    interrupt(site, part, monkeypatch)
    start = part.stat().st_size
    assert receive(site.url, part) == FILE
    assert [request["Range"] for request in site.requests] == [f"bytes={start}-"]


def test_a_complete_part_needs_no_request(site, part, monkeypatch):
    interrupt(site, part, monkeypatch)
    part.write_bytes(FILE)
    assert receive(site.url, part) == FILE
    assert site.requests == []


def test_begins_anew_when_the_server_ignores_ranges(site, part, monkeypatch):
    interrupt(site, part, monkeypatch)
    site.moods = ["no ranges"]
    assert receive(site.url, part) == FILE
    assert len(site.requests) == 1


@pytest.mark.parametrize("mood", ["416", "wrong range"])
def test_begins_anew_when_the_server_cannot_continue(site, part, monkeypatch, mood):
    interrupt(site, part, monkeypatch)
    site.moods = [mood]
    assert receive(site.url, part) == FILE
    assert "Range" not in site.requests[1]


@pytest.mark.parametrize("size", [len(FILE), 500_000])
@pytest.mark.parametrize("mood", ["proper", "ignores If-Range"])
def test_begins_anew_when_the_file_changed_in_between(site, part, monkeypatch, size, mood):
    interrupt(site, part, monkeypatch)
    site.body, site.etag, site.moods = OTHER[:size], '"v2"', [mood]
    assert receive(site.url, part) == site.body


def test_without_a_version_a_part_is_continued_only_at_the_same_total_size(site, part, monkeypatch):
    site.etag = ""
    interrupt(site, part, monkeypatch)
    site.body = OTHER + OTHER
    assert receive(site.url, part) == site.body


def test_without_a_version_a_part_is_continued(site, part, monkeypatch):
    site.etag = ""
    interrupt(site, part, monkeypatch)
    assert receive(site.url, part) == FILE
    assert len(site.requests) == 1


def test_a_part_of_another_url_is_not_continued(site, part, monkeypatch):
    interrupt(site, part, monkeypatch)
    assert receive(site.url + "?mirror", part) == FILE
    assert "Range" not in site.requests[0]


def test_a_part_that_nothing_is_known_about_is_not_continued(site, part):
    part.write_bytes(OTHER[:1000])
    assert receive(site.url, part) == FILE


def test_takes_a_file_of_unannounced_length(site, part):
    site.moods = ["no length"]
    assert receive(site.url, part) == FILE


def test_takes_an_empty_file(site, part):
    site.body = b""
    assert receive(site.url, part) == b""


def test_retries_while_the_server_is_busy(site, part):
    site.moods = ["503", "429", "503"]
    assert receive(site.url, part) == FILE
    assert len(site.requests) == 4


def test_gives_up_on_a_server_that_stays_busy(site, part):
    site.moods = ["503"] * 20
    assert failure(site.url, part) == "the server says 503 Service Unavailable"
    assert len(site.requests) == module.RETRIES + 1


def test_a_busy_server_does_not_cost_the_part(site, part, monkeypatch):
    interrupt(site, part, monkeypatch)
    size, site.moods = part.stat().st_size, ["503"] * (module.RETRIES + 1)
    failure(site.url, part)
    assert part.stat().st_size == size


def test_gives_up_on_a_server_that_always_drops(site, part):
    site.moods = ["drop at once"] * 20
    assert "the connection breaks again and again, now after 0 of 700000 bytes" in failure(site.url, part)
    assert len(site.requests) == module.RETRIES + 1


def test_a_forbidden_file_hints_at_a_login(site, part):
    site.moods = ["403"]
    assert failure(site.url, part) == "the server says 403 Forbidden; the site may want a login"


def test_an_unreachable_server_is_said_so(part, monkeypatch):
    monkeypatch.setattr(module, "BACKOFF", 0)
    assert failure("http://127.0.0.1:1/x.zip", part) == "the connection cannot be made or broke"


def test_a_full_disk_keeps_the_part(site, part, monkeypatch):
    append = module._Partial.append

    def full(partial, data):
        if partial.size > 200_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(partial, data)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(module._Partial, "append", full)
        download(site.url, part, LIMIT)
    assert receive(site.url, part) == FILE
    assert "Range" in site.requests[1]


TOO_LARGE = "the file is larger than max_bytes = 900000; if it is to be, raise that key of sources.<id>"


def test_an_answer_without_an_end_is_broken_off_and_not_kept(site, part):
    site.moods = ["endless"]
    assert failure(site.url, part, 900_000).startswith(TOO_LARGE)
    assert list(part.parent.iterdir()) == []


def test_a_rest_without_an_end_is_broken_off_at_the_announced_size(site, part, monkeypatch):
    interrupt(site, part, monkeypatch)
    site.moods = ["endless"]
    assert failure(site.url, part) == "the server sends more than the 700000 bytes it announced"
    assert list(part.parent.iterdir()) == []


def test_the_page_of_a_redirection_is_not_read(site, part):
    site.moods = ["endless redirection"]
    assert receive(site.url, part) == FILE


def test_a_file_that_is_announced_too_large_is_not_begun(site, part):
    site.moods = ["huge length"]
    assert failure(site.url, part, 900_000).startswith(TOO_LARGE)
    assert part.stat().st_size == 0


def test_a_file_of_just_the_largest_size_is_taken(site, part):
    download(site.url, part, len(FILE))
    assert part.read_bytes() == FILE


def test_a_nonsensical_length_counts_as_none(site, part):
    site.moods = ["nonsensical length"]
    assert receive(site.url, part) == FILE


def test_an_encoded_body_is_refused_unread(site, part):
    site.body, site.moods = gzip.compress(bytes(5_000_000)), ["gzip"]
    assert failure(site.url, part) == "the server sends the file encoded (gzip), though asked for it as it is"
    assert site.requests[0]["Accept-Encoding"] == "identity"
    assert part.stat().st_size == 0


def test_the_encoding_that_is_none_is_no_encoding(site, part):
    site.moods = ["identity"]
    assert receive(site.url, part) == FILE


@pytest.mark.parametrize(
    "damage",
    [
        lambda note: note[:20],
        lambda note: b"\xff" + note,
        lambda note: b"[" * 100_000,
        lambda note: b"[1]",
        lambda note: note.replace(b"total", b"sum"),
        lambda note: note.replace(b"700000", b"null"),
        lambda note: note.replace(b"700000", b"7"),
        lambda note: note.replace(b'"\\"v1\\""', b"1"),
        lambda note: note.replace(b"v1", b"v\\n1"),
        lambda note: note.replace(b"v1", b"\\ud800"),
    ],
)
def test_a_part_whose_note_is_damaged_is_begun_anew(site, part, monkeypatch, damage):
    interrupt(site, part, monkeypatch)
    note = part.with_name(f"{part.name}.json")
    intact = note.read_bytes()
    note.write_bytes(damage(intact))
    assert note.read_bytes() != intact
    assert receive(site.url, part) == FILE
    assert "Range" not in site.requests[0]


@pytest.mark.parametrize(
    "url", ["http://", "http://127.0.0.1:99999/", "http://a..b/", "http://127.0.0.1/\ud800"]
)
def test_a_broken_url_is_an_error(part, url):
    assert failure(url, part)
