"""The ClientHello as OpenSSL writes it, whole and in pieces, and as nobody should."""

import ssl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailfront_proto.client_hello import offered_protocols


def _hello(protocols: list[str]) -> bytes:
    context = ssl.create_default_context()
    if protocols:
        context.set_alpn_protocols(protocols)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="mx.example.org").do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("protocols", [[], ["smtp"], ["h2", "http/1.1"]])
def test_names_in_order_whatever_the_cut(protocols: list[str]) -> None:
    hello = _hello(protocols)
    names = [name.encode() for name in protocols]
    assert offered_protocols(hello) == names
    assert offered_protocols(hello + b"more") == names
    for cut in range(len(hello)):
        assert offered_protocols(hello[:cut]) is None


def test_split_over_records() -> None:
    hello = _hello(["h2"])
    body = hello[5:]
    records = b"".join(
        hello[:3] + len(body[i : i + 50]).to_bytes(2, "big") + body[i : i + 50] for i in range(0, len(body), 50)
    )
    assert offered_protocols(records) == [b"h2"]


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    offered = offered_protocols(data)
    assert offered is None or all(isinstance(name, bytes) for name in offered)


@settings(deadline=None)  # a ClientHello is made each time
@given(st.data())
def test_damaged(data: st.DataObject) -> None:
    hello = bytearray(_hello(["h2", "http/1.1"]))
    for _ in range(data.draw(st.integers(1, 5))):
        hello[data.draw(st.integers(0, len(hello) - 1))] = data.draw(st.integers(0, 255))
    offered = offered_protocols(bytes(hello))
    assert offered is None or isinstance(offered, list)


def test_plain_text_is_no_hello() -> None:
    assert offered_protocols(b"EHLO client.example\r\n") == []
