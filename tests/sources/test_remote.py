"""Files behind HTTP: few requests, few bytes, and one clear line whatever the server does."""

from __future__ import annotations

import time

import pytest
from sources.checkpoints import gguf_bytes, safetensors_bytes, tiny_llama, tiny_projector
from sources.range_server import range_server

from planner.errors import SourceError
from planner.sources.network import Network, check_address, public_address, request
from planner.sources.opening import open_model
from planner.sources.remote import RemoteBytes
from planner.sources.safetensors import read_header
from planner.units import MIB

ONLINE = Network(allowed=True, timeout_s=5.0)
QUICK = Network(allowed=True, timeout_s=1.0)
DATA = bytes(range(256)) * 4096  # 1 MiB


def failure(served, path="/f", network=ONLINE):
    """Return the message of the error that reading ``path`` ends in."""
    with pytest.raises(SourceError) as caught:
        RemoteBytes(url=served.base + path, network=network).read(10, 100)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_ranges_return_the_bytes_asked_for():
    """Any window of a remote file equals the same window of the bytes, also across and beyond its end."""
    with range_server(files={"/f": DATA}) as served:
        remote = RemoteBytes(url=served.base + "/f", network=ONLINE)
        for offset, size in ((0, 8), (4, 300), (1000, 5000), (2000, 100), (len(DATA) - 5, 50), (len(DATA), 10)):
            assert remote.read(offset, size) == DATA[offset : offset + size]
        assert remote.size == len(DATA)


def test_bytes_held_are_not_fetched_twice():
    """A read inside the last stretch costs no request, one that overlaps it moves only what is missing."""
    with range_server(files={"/f": DATA}) as served:
        remote = RemoteBytes(url=served.base + "/f", network=ONLINE)
        remote.read(0, 1000)
        remote.read(100, 900)
        assert served.n_requests == 1
        remote.read(900, 200)
        assert served.sent_bytes == 1100


def test_gguf_over_the_network_moves_at_most_one_mebibyte_beyond_its_header():
    """A header with a 262,144-word vocabulary is read in few requests and little more than its own bytes."""
    metadata, tensors = tiny_llama(vocabulary=[f"word{i}" for i in range(262_144)])
    data = gguf_bytes(metadata, tensors)
    header_bytes = len(data) - sum(2 * max(a, 1) * max(b, 1) for a, b in ((*s, 1)[:2] for s in tensors.values()))
    padded = data + bytes(64 * MIB)  # something to overshoot into
    with range_server(files={"/m.gguf": padded}) as served:
        model = open_model(served.base + "/m.gguf")
        assert model.language.n_layers == 2
        assert served.sent_bytes <= header_bytes + MIB
        assert served.n_requests <= 8


def test_safetensors_shard_takes_two_requests():
    """The header of a shard is read in two requests or fewer, however long it is."""
    small = safetensors_bytes({"a.weight": ("F16", (4, 4))})
    large = safetensors_bytes({f"model.layers.{i}.mlp.down_proj.weight": ("BF16", (1, 1)) for i in range(8000)})
    for data in (small, large):
        with range_server(files={"/m.safetensors": data}) as served:
            read_header(RemoteBytes(url=served.base + "/m.safetensors", network=ONLINE))
            assert served.n_requests <= 2


def test_server_without_ranges_is_refused_without_downloading():
    """A server that answers with the whole file is told apart at once; its body is not read."""
    with range_server(files={"/f": DATA}, ranges=False) as served:
        assert "range requests" in failure(served)


@pytest.mark.parametrize("lie", ["begin", "short", "long", "no_content_range", "length"])
def test_lying_lengths_are_refused(lie):
    """Whatever Content-Range, Content-Length and body disagree about, the answer is not believed."""
    with range_server(files={"/f": DATA}, lie=lie) as served:
        assert any(word in failure(served) for word in ("lengths", "Content-Range", "broke off"))


def test_length_that_changes_is_refused():
    """A file whose length changes between two requests is not one file."""
    with range_server(files={"/f": DATA}, lie="changing") as served:
        remote = RemoteBytes(url=served.base + "/f", network=ONLINE)
        remote.read(0, 10)
        with pytest.raises(SourceError, match="changed"):
            remote.read(500, 10)


def test_absurd_length_does_not_help_a_header_to_grow():
    """A server that claims petabytes still moves no more than the limit, and the header is refused by its own words."""
    data = b"GGUF" + (3).to_bytes(4, "little") + (2**60).to_bytes(8, "little") * 2
    with range_server(files={"/m.gguf": data + bytes(4096)}, lie="total") as served:
        with pytest.raises(SourceError):
            open_model(served.base + "/m.gguf")
        assert served.sent_bytes <= 2 * MIB


@pytest.mark.parametrize(
    ("status", "word"),
    [(401, "login"), (403, "terms"), (404, "no such file"), (429, "wait"), (500, "failed"), (418, "refused")],
)
def test_statuses_say_what_to_do(status, word):
    """Every refusal of a server becomes one line with its number and the next step."""
    with range_server(statuses={"/f": status}, headers={"Retry-After": "7"}) as served:
        message = failure(served)
        assert str(status) in message
        assert word in message
        assert ("7 s" in message) == (status == 429)


def test_redirects_are_followed_once_and_remembered():
    """A redirect to the file's true place costs one request, not one per read."""
    with range_server(files={"/true": DATA}, redirects={"/f": "/true"}) as served:
        remote = RemoteBytes(url=served.base + "/f", network=ONLINE)
        remote.read(0, 10)
        remote.read(1000, 10)
        assert [path for path, _ in served.seen] == ["/f", "/true", "/true"]


def test_redirect_loops_and_foreign_schemes_are_refused():
    """Redirects end after a few steps and never leave http and https."""
    with range_server(redirects={"/f": "/f", "/g": "file:///etc/passwd", "/h": "ftp://127.0.0.1/x"}) as served:
        assert "redirects" in failure(served)
        assert "not a usable" in failure(served, "/g")
        assert "not a usable" in failure(served, "/h")


def test_token_stays_with_its_host():
    """The token is sent to its own host only: not to another server that the first one points to."""
    with range_server(files={"/f": DATA}) as other, range_server(redirects={"/f": other.base + "/f"}) as hub:
        network = Network(allowed=True, timeout_s=5.0, token="hf_secret", token_host=hub.base.removeprefix("http://"))  # noqa: S106 - made up
        RemoteBytes(url=hub.base + "/f", network=network).read(0, 10)
        assert hub.seen[0][1]["authorization"] == "Bearer hf_secret"
        assert "authorization" not in other.seen[0][1]


def test_secrets_are_not_printed():
    """Neither a token nor a password nor a signed query is part of any message or representation."""
    network = Network(allowed=True, timeout_s=1.0, token="hf_secret", token_host="h")  # noqa: S106 - made up
    assert "hf_secret" not in repr(network)
    assert public_address("https://user:pw@h:8/p/x.gguf?signature=abc#f") == "https://h:8/p/x.gguf"
    with range_server(statuses={"/f": 403}) as served:
        assert "signature" not in failure(served, "/f?signature=abc")


def test_stall_ends_at_the_timeout():
    """A server that accepts and says nothing is given up at the timeout."""
    with range_server(files={"/f": DATA}, stall_s=2.5) as served:
        start = time.monotonic()
        assert "within 1 s" in failure(served, network=QUICK)
        assert time.monotonic() - start < 2


def test_trickle_ends_at_the_timeout():
    """A server that sends a byte now and then does not get more time for it."""
    with range_server(files={"/f": DATA}, trickle=True) as served:
        start = time.monotonic()
        assert "within 1 s" in failure(served, network=QUICK)
        assert time.monotonic() - start < 2


def test_nothing_is_asked_unless_the_network_is_allowed():
    """Offline, no request leaves, and the line says what forbids it."""
    with range_server(files={"/m.gguf": b""}) as served:
        with pytest.raises(SourceError, match="--offline forbids it"):
            open_model(served.base + "/m.gguf", offline=True)
        with pytest.raises(SourceError, match="--online"):
            request(Network(), served.base + "/m.gguf", limit_bytes=1)
        assert served.n_requests == 0


def test_unreachable_server_is_one_line():
    """A refused connection names the address and the reason."""
    with range_server() as served:
        base = served.base
    with pytest.raises(SourceError, match="cannot be reached"):
        RemoteBytes(url=base + "/f", network=QUICK).read(0, 1)


@pytest.mark.parametrize(
    "url", ["ftp://h/x", "http://", "http://h:port/x", "http://h/ x", "file:///etc/passwd", "http://h/\n"]
)
def test_odd_addresses_are_refused(url):
    """Only plain http and https addresses are asked at all."""
    with pytest.raises(SourceError):
        check_address(url)


def test_proxy_of_the_environment_is_used(monkeypatch):
    """Requests go through the proxy that the environment names."""
    with range_server(files={"http://models.example/f": DATA}) as proxy:
        monkeypatch.setenv("http_proxy", proxy.base)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert RemoteBytes(url="http://models.example/f", network=ONLINE).read(0, 4) == DATA[:4]
        assert proxy.seen[0][0] == "http://models.example/f"


def test_remote_split_gguf_with_projector():
    """All parts of a split file and a projector by address become one model."""
    metadata, tensors = tiny_llama()
    names = list(tensors)
    first = gguf_bytes({**metadata, "split.no": 0, "split.count": 2}, {n: tensors[n] for n in names[:5]})
    second = gguf_bytes({"split.no": 1, "split.count": 2}, {n: tensors[n] for n in names[5:]})
    files = {
        "/m-00001-of-00002.gguf": first,
        "/m-00002-of-00002.gguf": second,
        "/mmproj.gguf": gguf_bytes(*tiny_projector()),
    }
    with range_server(files=files) as served:
        model = open_model(served.base + "/m-00001-of-00002.gguf", projector=served.base + "/mmproj.gguf")
        assert len(model.language.tensors) == len(tensors)
        assert model.vision is not None
        assert served.n_requests <= 6
