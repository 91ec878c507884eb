"""The plugin lua beside the original's: each script, and each address in it, through both.

Left out is what 2.12's functions do wrong: they skip their last argument, crash at what is no string, let numbers wrap
and codes through that are none.
"""

import pytest

from tests.peers.one_shot import OneShot
from tests.peers.original import compare, needs_original

pytestmark = needs_original

RESPONSES = [
    "250", "250, 'text'", "250, 'two\\nlines'", "250, {}", "251", "299.5, 7", "0, 'x'", "nil, 'x'", "false, 'x'", "450",
    "450, ''", "550", "550, 'x', 'y'", "'550', 12", "550.9, 'x'", "'abc'", "{}", "' 550 '", "'5e2'", "450, 1e15",
    "450, 1e300", "450, 0.1", "450, -0.5",
]  # fmt: skip

SOME = ["299.5, 7", "450", "'550', 12"]

ACCEPT = "function sender() return 250 end function recipient() return 250 end "

SAID = b"EHLO c\r\nMAIL FROM:<a@b.example> SIZE=5 X=Y\r\nRCPT TO:<c@d.example>\r\nDATA\r\nhi\r\n.\r\nQUIT\r\n"

SCRIPTS = {
    "arguments": """
        function reset() msg('reset') end
        function helo(a, b) msg(a) msg(b) end
        function sender(a, p) msg(a) msg(p) msg(#p) return 250 end
        function recipient(a, p) msg(a) msg(p) return 250 end
        function data_block(b) msg(#b) end
    """,
    "numbers": """
        function sender()
            msg(1, 2.5, 1e15, 1e100, 0.1, -3, 1 / 3) msg() msg('') msg(true, nil, {}) msg('a\\0b')
            setnum('n', 5) msg(getnum('n', 0), getnum('m', 7), getnum('m', '8'), getnum('m', {}))
            setnum('n', 2.7) msg(getnum('n', 0)) setnum('n', 'x') msg(getnum('n', 0))
        end
    """,
    "default of a number": "function sender() msg(getnum('m', 4.6)) end",
    "error": "function sender() return nosuch.field end",
    "error without position": "function sender() getnum('a') end",
    "call of nothing": "function sender() error('x') end",
    "string method": "function sender(a) return a:upper() end",
    "recursion": "function sender(a) local function f() return f() + 1 end f() end",
    "arithmetic": "function sender(a) return a + 1 end",
    "comparison": "function sender(a) return a < 1 end",
    "concatenation": "function sender(a) return a .. {} end",
    "error in the script itself": "x()",
    "syntax error": "function x(",
    "no function": "sender = 5",
    "first line": "#!/usr/bin/lua\nfunction sender(a) return nosuch.field end",
    "wrong counts": "function sender() setstr('a') end function helo() setnum() end function reset() setenv('a') end",
    "empty": "",
    "reset": "n = 0 function reset() n = n + 1 if n == 2 then return 450, 'enough' end end",
}  # fmt: skip


def both(one_shot: OneShot, script: str, said: bytes = SAID) -> None:
    compare(one_shot, ["smtp", "echo", "lua"], {"LUA_SCRIPT": "$DIR/s.lua"}, said, {"s.lua": script.encode()})


def test_responses_to_addresses(one_shot: OneShot) -> None:
    """All in one session: the number in the address says which."""
    answers = " ".join(f"if a == '{at}@x.example' then return {text} end" for at, text in enumerate(RESPONSES))
    mails = b"".join(b"MAIL FROM:<%d@x.example>\r\n" % at for at in range(len(RESPONSES)))
    rcpts = b"".join(b"RCPT TO:<%d@x.example>\r\n" % at for at in range(len(RESPONSES)))
    both(one_shot, f"function sender(a) {answers} end", b"EHLO c\r\n" + mails + b"QUIT\r\n")
    script = f"function sender() return 250 end function recipient(a) {answers} end"
    both(one_shot, script, b"EHLO c\r\nMAIL FROM:<a@b.example>\r\n" + rcpts + b"QUIT\r\n")


@pytest.mark.parametrize("hook", ["helo", "data_start", "data_block", "message_end", "reset"])
def test_responses_of_other_hooks(one_shot: OneShot, hook: str) -> None:
    for returned in SOME:
        both(one_shot, f"{ACCEPT} function {hook}() return {returned} end")


@pytest.mark.parametrize("returned", SOME)
def test_responses_of_the_script_itself(one_shot: OneShot, returned: str) -> None:
    both(one_shot, f"return {returned}")


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts(one_shot: OneShot, name: str) -> None:
    both(one_shot, SCRIPTS[name])


@pytest.mark.parametrize("path", ["", "nosuch.lua", "/"])
def test_what_cannot_be_read(one_shot: OneShot, path: str) -> None:
    compare(one_shot, ["smtp", "echo", "lua"], {"LUA_SCRIPT": path}, SAID)
