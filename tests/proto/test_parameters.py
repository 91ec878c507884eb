"""ESMTP parameters as values: what is read, what is refused, that printing reads back; and xtext."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfront_proto.smtp import xtext
from mailfront_proto.smtp.parameters import (
    NO_MAIL_OPTIONS,
    NO_RECIPIENT_OPTIONS,
    NULL_SUBMITTER,
    BodyType,
    MailOptions,
    Notify,
    ParameterError,
    RecipientOptions,
    Registered,
    Return,
)
from mailfront_proto.testing.strategies import NON_ASCII, domains, dot_strings

PRINTABLE = st.text([chr(c) for c in range(0x20, 0x7F)], min_size=1, max_size=30)
MAILBOXES = st.builds("{}@{}".format, dot_strings(), domains())
OTHERS = st.lists(
    st.tuples(st.sampled_from(["XONE", "X-TWO", "3"]), st.none() | st.text("ab;é<>", min_size=1, max_size=5)),
    max_size=3,
    unique_by=lambda pair: pair[0],
).map(tuple)
REGISTERED = {"XONE": Registered(), "X-TWO": Registered(), "3": Registered()}

mail_options = st.builds(
    MailOptions,
    size=st.none() | st.integers(0, 10**20 - 1),
    body=st.none() | st.sampled_from(BodyType),
    smtputf8=st.booleans(),
    auth=st.none() | st.just(NULL_SUBMITTER) | MAILBOXES,
    ret=st.none() | st.sampled_from(Return),
    envid=st.none() | PRINTABLE,
    require_tls=st.booleans(),
    others=OTHERS,
)
notify = st.just(frozenset({Notify.NEVER})) | st.frozensets(
    st.sampled_from([Notify.SUCCESS, Notify.FAILURE, Notify.DELAY]), min_size=1
)
orcpt = st.one_of(
    st.tuples(st.sampled_from(["rfc822", "RFC822", "x400"]), PRINTABLE),
    st.tuples(st.sampled_from(["utf-8", "UTF-8"]), st.text("ab\\+= x{}@" + NON_ASCII, min_size=1, max_size=20)),
)
recipient_options = st.builds(RecipientOptions, notify=st.none() | notify, orcpt=st.none() | orcpt, others=OTHERS)


@given(mail_options)
def test_mail_options_are_read_as_printed(options: MailOptions) -> None:
    printed = options.parameters()
    assert MailOptions.parse(printed, registered=REGISTERED) == options
    swapped = [word.partition("=")[0].swapcase() + "".join(word.partition("=")[1:]) for word in printed]
    assert MailOptions.parse(swapped, registered=REGISTERED) == options


@given(recipient_options)
def test_recipient_options_are_read_as_printed(options: RecipientOptions) -> None:
    printed = options.parameters()
    assert RecipientOptions.parse(printed, registered=REGISTERED) == options
    assert all(word.isascii() for word in printed if not word.startswith(("XONE", "X-TWO", "3")))


def test_no_parameters_make_no_object() -> None:
    assert MailOptions.parse([]) is NO_MAIL_OPTIONS
    assert RecipientOptions.parse([]) is NO_RECIPIENT_OPTIONS


def test_what_the_words_mean() -> None:
    words = [
        "size=0100", "body=binaryMIME", "SMTPUTF8", "AUTH=e+3Dmc2@example.com", "Ret=hdrs", "ENVID=QQ+20314159",
        "RequireTLS",
    ]  # fmt: skip
    assert MailOptions.parse(words) == MailOptions(
        100, BodyType.BINARY_MIME, True, "e=mc2@example.com", Return.HEADERS, "QQ 314159", True
    )
    assert MailOptions.parse(["AUTH=<>"]).auth == MailOptions.parse(["AUTH=+3C+3E"]).auth == NULL_SUBMITTER
    assert RecipientOptions.parse(["NOTIFY=success,Delay,SUCCESS", "ORCPT=rfc822;Bob+2B@Example.org"]) == (
        RecipientOptions(frozenset({Notify.SUCCESS, Notify.DELAY}), ("rfc822", "Bob+@Example.org"))
    )
    # RFC 6533 section 3: both ways to write a character
    for text in ("\\x{3B1}\\x{5C}x@example.org", "α\\x{5c}x@example.org"):
        assert RecipientOptions.parse([f"ORCPT=utf-8;{text}"]).orcpt == ("utf-8", "α\\x@example.org")


BAD_MAIL = [
    "SIZE", "SIZE=", "SIZE=-1", "SIZE=+1", "SIZE=1e3", "SIZE=1_0", "SIZE=9e99", "SIZE=" + "9" * 21, "SIZE=\u0661",
    "BODY", "BODY=", "BODY=XX", "BODY=7BIT8", "BODY=7b\u0131t", "SMTPUTF8=", "SMTPUTF8=1", "AUTH", "AUTH=", "AUTH=a+3d",
    "AUTH=+", "AUTH=+0", "AUTH=a+0Ab@c", "AUTH=a+00@c", "AUTH=a+C2+85@c", "AUTH=a+FF@c", "AUTH=a@", "AUTH=@c",
    "RET", "RET=", "RET=FULL,HDRS", "RET=HDR\u017f", "ENVID", "ENVID=", "ENVID=a+0D+0A", "ENVID=a+C3+A9",
    "ENVID=" + "a" * 101, "ENVID=+7F", "ENVID=a=b", "REQUIRETLS=", "REQUIRETLS=1", "", "=", "=1", "-A=1", "A\u00e9=1",
    "SIZE=1\x85", "ENVID=\ud800",
]  # fmt: skip
BAD_RCPT = [
    "NOTIFY", "NOTIFY=", "NOTIFY=,", "NOTIFY=NEVER,SUCCESS", "NOTIFY=SUCCESS,", "NOTIFY=SOMETIMES",
    "NOTIFY=\u017fUCCESS", "ORCPT", "ORCPT=", "ORCPT=rfc822", "ORCPT=rfc822;", "ORCPT=;a@b", "ORCPT=a b;c",
    "ORCPT=rfc822;a+0Ab", "ORCPT=rfc822;a+C3+A9", "ORCPT=rfc822;a+e9", "ORCPT=rfc+;a", "ORCPT=rfc822;\u00e9",
    "ORCPT=utf-8;\\x{0A}", "ORCPT=utf-8;\\x{D800}", "ORCPT=utf-8;\\x{110000}", "ORCPT=utf-8;\\x{85}",
    "ORCPT=utf-8;\\x{A}", "ORCPT=utf-8;\\", "ORCPT=utf-8;a+b", "ORCPT=utf-8;", "ORCPT=utf-8;\x85",
    "ORCPT=rfc822;" + "a" * 500,
]  # fmt: skip


def refusal(kind: type[MailOptions] | type[RecipientOptions], *words: str, offered: str | None = None) -> str:
    with pytest.raises(ParameterError) as caught:
        kind.parse(words, None if offered is None else offered.split())
    return str(caught.value.reply)


@pytest.mark.parametrize("word", BAD_MAIL)
def test_malformed_parameters_of_mail(word: str) -> None:
    assert refusal(MailOptions, word).startswith("501 5.5.4 ")


@pytest.mark.parametrize("word", BAD_RCPT)
def test_malformed_parameters_of_rcpt(word: str) -> None:
    assert refusal(RecipientOptions, word).startswith("501 5.5.4 ")


def test_unknown_ones_repeated_ones_and_those_that_were_not_offered() -> None:
    assert refusal(MailOptions, "XYZZY=1").startswith("555 5.5.4 ")
    assert refusal(MailOptions, "NOTIFY=NEVER").startswith("555 5.5.4 ")
    assert refusal(RecipientOptions, "SIZE=1").startswith("555 5.5.4 ")
    assert refusal(MailOptions, "SIZE=1", "size=1") == "501 5.5.4 Parameter given twice"
    everything = "SIZE 8BITMIME BINARYMIME SMTPUTF8 AUTH DSN REQUIRETLS"
    for word, capability in (
        ("SIZE=1", "SIZE"),
        ("BODY=7BIT", "8BITMIME"),
        ("SMTPUTF8", "SMTPUTF8"),
        ("AUTH=<>", "AUTH"),
        ("RET=FULL", "DSN"),
        ("ENVID=a", "DSN"),
        ("REQUIRETLS", "REQUIRETLS"),
    ):
        assert MailOptions.parse([word], [capability]) == MailOptions.parse([word], everything.split())
        rest = everything.replace(capability, "").replace("BINARYMIME", "")
        assert refusal(MailOptions, word, offered=rest).startswith("555 5.5.4 ")
    for word in ("NOTIFY=NEVER", "ORCPT=rfc822;a"):
        assert RecipientOptions.parse([word], ["DSN"]) == RecipientOptions.parse([word])
        assert refusal(RecipientOptions, word, offered="SIZE").startswith("555 5.5.4 ")
    assert refusal(MailOptions, "BODY=BINARYMIME", offered="8BITMIME").startswith("501 ")
    assert MailOptions.parse(["BODY=BINARYMIME"], ["BINARYMIME"]).body is BodyType.BINARY_MIME
    assert refusal(RecipientOptions, "ORCPT=utf-8;é", offered="DSN").startswith("501 ")
    assert RecipientOptions.parse(["ORCPT=utf-8;é"], ["DSN", "SMTPUTF8"]).orcpt == ("utf-8", "é")


def test_registered_parameters() -> None:
    registered = {"MT-PRIORITY": Registered("MT-PRIORITY", lambda value: value in ("0", "1")), "XFLAG": Registered()}
    options = MailOptions.parse(["mt-priority=1", "xFlag"], ["MT-PRIORITY"], registered)
    assert options.others == (("MT-PRIORITY", "1"), ("XFLAG", None))
    assert options.parameters() == ["MT-PRIORITY=1", "XFLAG"]
    for words, offered, reply in (
        (["MT-PRIORITY=2"], ["MT-PRIORITY"], "501"),
        (["MT-PRIORITY"], ["MT-PRIORITY"], "501"),
        (["MT-PRIORITY=1"], [], "555"),
        (["XFLAG", "xflag"], [], "501"),
    ):
        with pytest.raises(ParameterError) as caught:
            MailOptions.parse(words, offered, registered)
        assert str(caught.value).startswith(reply)


@given(st.binary(max_size=40))
def test_xtext_is_decoded_as_encoded(data: bytes) -> None:
    text = xtext.encode(data)
    assert text.isascii() and " " not in text and "=" not in text
    assert xtext.decode(text) == data


@given(st.text(max_size=20))
def test_whatever_is_no_xtext_is_a_value_error(text: str) -> None:
    try:
        decoded = xtext.decode_text(text)
    except ValueError:
        return
    assert xtext.decode_text(xtext.encode(decoded.encode())) == decoded
    assert not any(c < " " or "\x7f" <= c <= "\x9f" for c in decoded)


@given(st.lists(st.text(max_size=20), max_size=4))
def test_parsing_is_total(words: list[str]) -> None:
    for kind in (MailOptions, RecipientOptions):
        try:
            kind.parse(words)
        except ParameterError as error:
            assert error.reply.code in (501, 555)
