"""A server that is slow ends a request, whatever it does; and what counts as another place."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from incomingd.errors import Retry
from incomingd.importing import remote
from tests.support.repository import Answer, Server, Trick, serving


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """With a short patience for it."""
    monkeypatch.setattr(remote, "_SECONDS", 0.5)
    with serving(tmp_path) as made:
        yield made


def trickle(answer: Answer) -> None:
    while not answer.server.closing.wait(0.05):
        answer.send(b"x")


def slow_body(answer: Answer) -> None:
    answer.head(200)
    trickle(answer)


def slow_body_of_a_known_length(answer: Answer) -> None:
    answer.head(200, Content_Length="1000000")
    trickle(answer)


def slow_header(answer: Answer) -> None:
    answer.send(b"HTTP/1.1 200 OK\r\nX: ")
    trickle(answer)


def slow_chunk_header(answer: Answer) -> None:
    answer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;")
    trickle(answer)


def endless_continue(answer: Answer) -> None:
    while not answer.server.closing.wait(0.01):
        answer.send(b"HTTP/1.1 100 Continue\r\n\r\n")


@pytest.mark.parametrize(
    "trick",
    [
        Answer.hang,
        slow_body,
        slow_body_of_a_known_length,
        slow_header,
        slow_chunk_header,
        endless_continue,
    ],
)
def test_a_slow_server_is_given_up(server: Server, trick: Trick) -> None:
    server.trick = trick
    with pytest.raises(Retry, match=r"no answer came within|timed out"):
        b"".join(remote.Server(base=server.url).chunks("x", 1 << 30))


@pytest.mark.parametrize(
    "said",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nx\r\n",
        b"HTTP/1.1 302 Found\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: \xff\xfe\x1b[2J\r\n\r\n",
        b"HTTP/1.1 500 \x1b[2J\xe2\x80\xae\r\n\r\n",
        b"",
    ],
)
def test_an_answer_that_is_none_is_told(server: Server, said: bytes) -> None:
    server.trick = lambda answer: answer.send(said)
    with pytest.raises(Retry) as caught:
        b"".join(remote.Server(base=server.url).chunks("x", 1 << 30))
    assert str(caught.value).isprintable()


def test_an_answer_of_the_wrong_length_is_told(server: Server) -> None:
    server.trick = lambda answer: answer.data(b"abc", length=9)
    with pytest.raises(Retry, match="ended after 3 of 9 bytes"):
        b"".join(remote.Server(base=server.url).chunks("x", 9))
    with pytest.raises(remote.TooLongError):
        b"".join(remote.Server(base=server.url).chunks("x", 8))


def test_the_limit_is_a_number_of_bytes_that_may_come(server: Server) -> None:
    server.trick = lambda answer: answer.data(b"abc")
    assert b"".join(remote.Server(base=server.url).chunks("x", 3)) == b"abc"
    with pytest.raises(remote.TooLongError):
        b"".join(remote.Server(base=server.url).chunks("x", 2))


HERE = "https://apt.example.org/debian"


@pytest.mark.parametrize("to", ["/x", "x", "https://APT.example.org:443/x", "//apt.example.org/x"])
def test_the_same_place(to: str) -> None:
    asked = f"{HERE}/dists/stable/InRelease"
    assert remote.Server(base=HERE).redirected(asked, to).startswith("https://")  # its rule alone


@pytest.mark.parametrize("to", ["http://apt.example.org/x", "https://apt.example.org:444/x", "https://example.org/x"])
def test_another_place(to: str) -> None:
    with pytest.raises(Retry, match="redirects to"):
        remote.Server(base=HERE).redirected(HERE, to)  # its rule alone


def test_an_allowed_host_is_never_taken_without_tls() -> None:
    allowed = remote.Server(base=HERE, allowed=("cdn.example.org",))
    assert allowed.redirected(HERE, "https://cdn.example.org/x")  # its rule alone
    with pytest.raises(Retry, match="which is not https"):
        allowed.redirected(HERE, "http://cdn.example.org/x")  # its rule alone
