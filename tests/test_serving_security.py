"""What a stranger, another site's page or a broken file gets from the server: nothing, in plain words."""

from __future__ import annotations

import http.client
import resource
import socket
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest

from tests.report_examples import HOSTILE
from tests.serving_examples import ODD_COLUMN, OUTSIDE, folder_to_serve, made_up_embeddings, serving

pytest.importorskip("starlette", reason="serve needs the extra wscl-embed[serve]")

MIB = 1024 * 1024


@dataclass(frozen=True)
class Answer:
    """What the server sent."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body."""
        return self.body.decode()


@pytest.fixture(scope="module")
def address(emoji_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served")
    data = folder_to_serve(emoji_folder, folder)
    with serving(made_up_embeddings(data, folder / "made-up.h5"), data=data) as (address, _):
        yield address


def ask(address: str, path: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None) -> Answer:
    """One request, the path sent exactly as it is."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)
    method = "GET" if body is None else "POST"
    connection.putrequest(method, path, skip_host="Host" in (headers or {}))
    for name, value in {**(headers or {}), **({} if body is None else {"Content-Length": str(len(body))})}.items():
        connection.putheader(name, value)
    connection.endheaders(body)
    response = connection.getresponse()
    answer = Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    connection.close()
    return answer


@pytest.mark.parametrize(
    "path",
    [
        "/..%2f..%2f..%2f..%2fetc/passwd",
        "/asset/..%2fserve.css",
        "/asset/..%2f..%2fapp.py",
        "/asset/%2e%2e/app.py",
        "/asset//etc/passwd",
        "/asset/%2fetc%2fpasswd",
        "//etc/passwd",
        "/../config.yaml",
        "/config.yaml",
        "/embeddings.h5",
        "/picture/small/..%2f0",
        "/picture/small/%2fetc%2fpasswd",
        "/picture/small/-1",
        "/picture/small/242",
        "/picture/small/1e2",
        "/picture/small/%D9%A3",
        "/picture/small/" + 5000 * "9",
        "/picture/original/0",
        "/picture/../picture/small/0",
        "/upload/..%2f..%2fconfig.yaml",
        "/upload/%00",
        "/values?column=image",
        "/values?column=..%2fx",
        "/%00",
    ],
)
def test_no_path_leads_anywhere_else(address: str, path: str) -> None:
    answer = ask(address, path)
    assert answer.status == 404
    assert len(answer.body) < 200


def test_images_outside_the_dataset_are_not_served(address: str) -> None:
    """By a symbolic link, by dots, by an absolute path: the last three rows of the dataset."""
    pictures = [ask(address, f"/picture/{size}/{row}") for size in ("small", "large") for row in range(238, 242)]
    assert [picture.status for picture in pictures] == 2 * [200, 404, 404, 404]
    assert pictures[0].headers["content-type"] == "image/webp"
    for image_id in OUTSIDE:
        page = ask(address, f"/?id={image_id}")
        assert page.status == 200
        assert "secret" not in page.text


@pytest.mark.parametrize(
    "host",
    ["elsewhere.example", "127.0.0.1.elsewhere.example", "127.0.0.2", "", "[::1]", "localhost@elsewhere.example"],
)
def test_foreign_hosts_are_refused(address: str, host: str) -> None:
    assert ask(address, "/", headers={"Host": host}).status == 400


def test_this_machine_by_either_name(address: str) -> None:
    port = address.rpartition(":")[2]
    assert [ask(address, "/", headers={"Host": f"{name}:{port}"}).status for name in ("localhost", "127.0.0.1")] == [
        200,
        200,
    ]


def test_it_listens_on_this_machine_alone(address: str) -> None:
    port = int(address.rpartition(":")[2])
    others = {entry[4][0] for entry in socket.getaddrinfo(socket.gethostname(), port, socket.AF_INET)}
    for other in others - {"127.0.0.1"}:
        with pytest.raises(OSError, match=r"refused|timed out|unreachable"):
            socket.create_connection((other, port), timeout=5).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port), timeout=5).close()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://elsewhere.example"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "SELF", "Sec-Fetch-Site": "same-origin"}, 422),  # let in, and told that this is no image
        ({}, 422),  # no browser
    ],
)
def test_posts_of_other_sites_are_refused(address: str, headers: dict[str, str], status: int) -> None:
    headers = {name: address if value == "SELF" else value for name, value in headers.items()}
    assert ask(address, "/upload", headers=headers, body=b"nothing").status == status


def test_other_sites_show_no_pictures_and_no_frames_but_may_link(address: str) -> None:
    foreign = {"Sec-Fetch-Site": "cross-site"}
    picture = {**foreign, "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    frame = {**foreign, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}
    link = {**foreign, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert ask(address, "/picture/small/0", headers=picture).status == 403
    assert ask(address, "/", headers=frame).status == 403
    assert ask(address, "/", headers=link).status == 200


def test_every_answer_has_the_security_headers(address: str) -> None:
    too_large = {"Content-Length": str(99 * MIB)}
    answers = [
        ask(address, "/"),
        ask(address, "/nothing"),
        ask(address, "/picture/small/0"),
        ask(address, "/", headers={"Host": "elsewhere.example"}),
        ask(address, "/upload", headers={"Origin": "null"}, body=b""),
        claim(address, too_large),
    ]
    assert [answer.status for answer in answers] == [200, 404, 200, 400, 403, 413]
    for answer in answers:
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert not [name for name in answer.headers if name.startswith("access-control") or name == "server"]


def claim(address: str, headers: Mapping[str, str], chunks: int = 0) -> Answer:
    """The head of a POST, then so many chunks of a MiB and one of a byte, and no end."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        lines = ["POST /upload HTTP/1.1", f"Host: {host}:{port}", *(f"{name}: {one}" for name, one in headers.items())]
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        for size in [MIB] * chunks + [1] * bool(chunks):
            connection.sendall(f"{size:x}\r\n".encode() + bytes(size) + b"\r\n")
        response = http.client.HTTPResponse(connection)
        response.begin()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())


def test_bodies_are_bounded_with_and_without_a_length(address: str) -> None:
    assert claim(address, {"Content-Length": str(20 * MIB + 1)}).status == 413
    assert claim(address, {"Transfer-Encoding": "chunked"}, chunks=20).status == 413
    assert ask(address, "/").status == 200


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A black-and-white PNG of zeros, with further chunks before its pixels."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    squeeze = zlib.compressobj(9)
    row = bytes((width + 7) // 8 + 1)
    pixels = b"".join([*(squeeze.compress(row) for _ in range(height)), squeeze.flush()])
    parts = [(b"IHDR", header), *chunks, (b"IDAT", pixels), (b"IEND", b"")]
    framed = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def test_a_bomb_does_no_harm(address: str) -> None:
    text = (b"zTXt", b"note\0\0" + zlib.compress(bytes(200 * MIB), 9))
    pixels, note = png(30_000, 30_000), png(8, 8, text)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB
    many_pixels = ask(address, "/upload", body=pixels)
    assert (many_pixels.status, "too many pixels" in many_pixels.text) == (422, True)
    assert ask(address, "/upload", body=note).status == 422
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 100 * 1024  # 900 megapixels in RGB: 2.5 GiB
    assert ask(address, "/").status == 200


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<!DOCTYPE html><p>404", "an HTML page, not an image"),
        (b"", "empty file"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "not an image that can be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "not an image that can be read"),
        (png(64, 64)[:50], "truncated image file"),
    ],
)
def test_what_is_no_image_is_told_so(address: str, content: bytes, said: str) -> None:
    answer = ask(address, "/upload", headers={"Content-Type": "image/jpeg"}, body=content)
    assert (answer.status, answer.headers["content-type"]) == (422, "application/json")
    assert said in answer.text


@pytest.mark.parametrize("field", ["text", "id", "image", "cluster", "where", "column", "value", "comparison", "page"])
def test_what_is_asked_is_text_on_the_page(address: str, field: str) -> None:
    for value in (
        HOSTILE,
        "\0",
        "'",
        '"',
        "9" * 30,
        "\ud83d".encode("utf-16", "surrogatepass").decode("utf-16", "replace"),
    ):
        answer = ask(address, "/?" + urlencode({"column": ODD_COLUMN, "comparison": "is", field: value}))
        assert answer.status in (200, 400)
        assert answer.text.count("<script") == 1
        assert "<img src=x" not in answer.text
        assert "49" not in answer.text or "{{ 7 * 7 }}" not in value or "{{ 7 * 7 }}" in answer.text


@pytest.mark.parametrize(
    "where",
    [
        "true) OR (true",
        "read_text('/etc/passwd') IS NOT NULL",
        "1 = 1); COPY images TO '/tmp/x'; --",
        "(SELECT count(*) FROM images) > 0",
        "label = 'x' --",
    ],
)
def test_conditions_reach_no_further_than_the_columns(address: str, where: str) -> None:
    answer = ask(address, f"/?where={quote(where)}&column=label&comparison=is&value=flags")
    assert answer.status == (200 if where.startswith("label") else 400)
    assert "root:" not in answer.text
