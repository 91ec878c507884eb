"""The plugin lua: hooks, functions, errors, and what a script can neither reach nor use up."""

import sys
import time
from pathlib import Path

import pytest

from mailfront_io.control_files import SETTLED_SECONDS
from mailfront_io.plugin import Place
from mailfront_io.plugins.lua import Lua
from mailfront_io.plugins.lua_script import ALLOCATED, MEMORY, Script, ScriptError, ScriptSyntaxError
from mailfront_io.service import Service
from mailfront_io.settings import ConfigurationError
from tests.front import ENVELOPE, Front, codes

HELO = b"EHLO x\r\n"
MAIL = b"MAIL FROM:<a@b.example>\r\n"
RCPT = b"RCPT TO:<c@d.example>\r\n"
QUIT = b"QUIT\r\n"
BODY = b"DATA\r\nline one\r\nline two\r\n.\r\n"


@pytest.fixture
def script(tmp_path: Path) -> Path:
    return tmp_path / "s.lua"


def front(script: Path, source: str, *plugins: str, env: dict[str, str] | None = None, compat: bool = False) -> Front:
    script.write_text(source)
    profile = {"MAILFRONT_PROFILE": "compat"} if compat else {}
    return Front("lua", *(plugins or ("accept",)), env={"LUA_SCRIPT": str(script), **profile, **(env or {})})


def last(output: bytes) -> bytes:
    """The last reply but one: before that of QUIT."""
    return output.split(b"\r\n")[-3]


def run(source: str, function: str = "f", instructions: int = 1_000_000, library: bool = True) -> object:
    """What `function` of a script returns first."""
    script = Script(source.encode(), b"s.lua", {}, library=library, instructions=instructions)
    script.main()
    return script.call(function)[0]


# -- hooks -------------------------------------------------------------------------------------------------


def test_every_hook_is_called_with_its_arguments(script: Path) -> None:
    hooks = """
        local function show(name, ...)
          local text = name
          for i = 1, select('#', ...) do text = text .. ' <' .. tostring((select(i, ...))) .. '>' end
          msg(text)
        end
        function helo(...) show('helo', ...) end
        function sender(...) show('sender', ...) end
        function recipient(...) show('recipient', ...) end
        function data_start(...) show('data_start', ...) end
        function data_block(...) show('data_block', ...) end
        function message_end(...) show('message_end', ...) end
        function reset(...) show('reset', ...) end
        show('main', ...)
    """
    tested = front(script, hooks, "counters", "accept", env={"DATABYTES": "1000"})
    tested.service._plugins.insert(0, tested.service._plugins.pop(1))
    output = tested.say(HELO, b"MAIL FROM:<a@b.example> SIZE=5 BODY=8BITMIME\r\n", RCPT, BODY, QUIT)
    assert codes(output) == [220, 250, 250, 250, 354, 250, 221]
    others = ("MAIL", "RCPT", "bytes")
    assert [line for line in tested.log if not line.startswith(others)] == [
        "main",
        "reset",
        "helo <x> <SIZE 1000\nLIMITS RCPTMAX=1000\n>",
        "reset",
        "sender <a@b.example> <SIZE=5",  # a log line ends at a NUL, as the original's does
        "recipient <c@d.example> <>",
        "data_start <-1>",
        "data_block <line one\nline two\n>",
        "message_end <-1>",
        "reset",
    ]


def test_parameters_are_joined_by_nul(script: Path) -> None:
    tested = front(script, "function sender(a, p) return 250, 2 .. '.0.0 ' .. #p .. ' ' .. p:byte(7) end")
    assert last(tested.say(HELO, b"MAIL FROM:<a@b.example> SIZE=5 BODY=8BITMIME\r\n", QUIT)) == b"250 2.0.0 20 0"


def test_with_a_spool_there_is_a_descriptor(script: Path) -> None:
    tested = front(script, "function message_end(fd) return 550, '5.0.0 ' .. (fd > 2 and 'yes' or 'no') end")
    tested.service._plugins += Front("force-file").service._plugins
    assert last(tested.say(ENVELOPE, BODY, QUIT)) == b"550 5.0.0 yes"


@pytest.mark.parametrize(
    ("returned", "reply"),
    [
        ("", b"250 2.1.0 Sender accepted."),
        ("nil, 'text'", b"250 2.1.0 Sender accepted."),
        ("0, 'text'", b"250 2.1.0 Sender accepted."),
        ("'abc'", b"250 2.1.0 Sender accepted."),
        ("{}", b"250 2.1.0 Sender accepted."),
        ("true", b"250 2.1.0 Sender accepted."),
        ("0/0", b"250 2.1.0 Sender accepted."),
        ("1/0", b"250 2.1.0 Sender accepted."),
        ("250", b"250 2.1.0 OK"),
        ("450", b"450 4.1.0 Deferred"),
        ("550, ''", b"550 5.1.0 Rejected"),
        ("599.9, 'a'", b"599 5.0.0 a"),
        ("' 550 ', 12", b"550 5.1.0 12"),
        ("'5.5e2', 2.5", b"550 5.1.0 2.5"),
        ("550, {}", b"550 5.1.0 Rejected"),
        ("550, '5.7.1 a\\nb'", b"550 5.7.1 b"),
        ("550, '5.7.1 a\\r\\0b'", b"550 5.7.1 a??b"),
        ("550, '5.7.1 ' .. string.char(255)", b"550 5.7.1 ?"),
    ],
)
def test_what_a_function_returns_is_the_response(script: Path, returned: str, reply: bytes) -> None:
    tested = front(script, f"function sender() return {returned} end")
    output = tested.say(HELO, MAIL, QUIT)
    assert last(output).replace(b"\xff", b"?") == reply
    assert output.count(b"\r\n") == len(output.splitlines())


@pytest.mark.parametrize("code", ["42", "199", "300", "354", "600", "-1", "1274 + 1024", "1024", "1e300"])
def test_a_code_that_is_none_is_an_error(script: Path, code: str) -> None:
    tested = front(script, f"function sender() return {code} end")
    assert last(tested.say(HELO, MAIL, QUIT)) == b"451 4.3.0 Internal error."
    assert any("is no code of a response" in line for line in tested.log)


def test_a_code_with_1024_added_is_final(script: Path) -> None:
    tested = front(script, "function sender() return 250 + 1024, '2.1.0 go on' end", "reject", env={"REJECT": "no"})
    assert last(tested.say(HELO, MAIL, QUIT)) == b"250 2.1.0 go on"


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("return 450", b"450 Deferred\r\n"),
        ("return 554, '5.7.1 go away'", b"554 5.7.1 go away\r\n"),
        ("#!/usr/bin/lua\nreturn 554, '5.7.1 go away'", b"554 5.7.1 go away\r\n"),
        ("#", b"220 mx.example.org mailfront ESMTP\r\n"),
        ("return 250, 'nobody sees it'", b"220 mx.example.org mailfront ESMTP\r\n"),
        ("", b"220 mx.example.org mailfront ESMTP\r\n"),
    ],
)
def test_what_the_script_itself_returns_is_the_greeting(script: Path, source: str, output: bytes) -> None:
    assert front(script, source).say() == output


def test_without_a_script_the_plugin_does_nothing() -> None:
    tested = Front("lua", "accept")
    assert codes(tested.say(ENVELOPE, BODY, QUIT)) == [220, 250, 250, 250, 354, 250, 221]


def test_an_error_of_reset_ends_the_session_at_mail(script: Path) -> None:
    tested = front(script, "n = 0 function reset() n = n + 1 if n > 1 then return 450, '4.0.0 enough' end end")
    assert tested.say(HELO, MAIL, QUIT).endswith(b"450 4.0.0 enough\r\n")


# -- strings that change -----------------------------------------------------------------------------------


def test_a_third_result_is_the_new_address(script: Path) -> None:
    tested = front(
        script,
        "function sender(a) return nil, nil, a .. '.invalid' end "
        "function recipient(a) if a == 'c@d.example' then return 250, '2.1.5 yes', 'x@y.example' end end",
    )
    assert last(tested.say(HELO, MAIL, RCPT, QUIT)) == b"250 2.1.5 yes"
    tested.say(HELO, MAIL, RCPT, b"DATA\r\n", b".\r\n", QUIT)
    assert tested.messages == [("a@b.example.invalid", ["x@y.example"], b"")]


def test_a_third_result_of_helo_is_the_name_in_the_trace_line(script: Path) -> None:
    tested = front(script, "function helo(h) return nil, nil, h .. '.lua.example' end", "add-received", "accept")
    tested.say(ENVELOPE, BODY, QUIT)
    assert tested.messages[0][2].startswith(b"Received: from x.lua.example (client.example.net")


@pytest.mark.parametrize("new", ["'a\\nb'", "'a\\0b'", "'a\\r'", "'\\127'", "true"])
@pytest.mark.parametrize("hook", ["helo", "sender", "recipient"])
def test_h52_a_new_string_has_no_control_bytes(script: Path, hook: str, new: str) -> None:
    tested = front(script, f"function {hook}() return nil, nil, {new} end")
    output = tested.say(HELO, MAIL, RCPT, b"DATA\r\n", b".\r\n", QUIT)
    assert b"451 4.3.0 Internal error.\r\n" in output
    assert "Lua error: 2 (a string with control bytes)" in tested.log
    assert tested.messages == []


# -- functions ---------------------------------------------------------------------------------------------


def said(script: Path, source: str, env: dict[str, str] | None = None) -> list[str]:
    """What ``sender`` of a script says with ``msg``, and its errors."""
    tested = front(script, f"function sender(a) {source} end", env=env)
    tested.say(HELO, MAIL, QUIT)
    start = tested.log.index("MAIL FROM:<a@b.example>") + 1
    return [line for line in tested.log[start:-1] if not line.startswith("451")]


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("msg('a', 2, 2.5) msg()", ["a", "2", "2.5"]),
        ("msg(nil, {}, true)", ["", "", ""]),
        ("msg(getenv('SET', 'SET'))", ["yes", "yes"]),
        ("msg(tostring(getenv('NOT_SET')))", ["nil"]),
        ("msg(select('#', getenv('NOT_SET', 'SET', 'NOT_SET')))", ["3"]),
        ("putenv('A=1', 'B=2=3') msg(getenv('A', 'B'))", ["1", "2=3"]),
        ("putenv('nothing', {}) msg('ok')", ["ok"]),
        ("setenv('A', 'x', false) msg(getenv('A'))", ["x"]),
        ("setenv('SET', 'x', false) setenv('SET', 'y', 0) msg(getenv('SET'))", ["x"]),
        ("putenv('A=1', 'A=2') setenv('A', '3', 1) msg(getenv('A'))", ["2"]),
        ("setenv('SET', 'x', true) msg(getenv('SET'))", ["x"]),
        ("setenv('SET', 5, 1) msg(getenv('SET'))", ["5"]),
        ("msg(getnum('n', 7), getnum('n', nil), getnum('n', '8'))", ["7", "0", "8"]),
        ("setnum('n', 5) msg(getnum('n', 0)) delnum('n', 'm') msg(getnum('n', 1))", ["5", "1"]),
        ("setnum('n', '2.7') msg(getnum('n', 0))", ["2"]),
        ("setstr('s', 'x') setstr('t', 5) msg(getstr('s', 't'))", ["x", "5"]),
        ("setstr('s', 'x') delstr('s', 't') msg(tostring(getstr('s')))", ["nil"]),
        ("getnum('n')", ["Lua error: 2 (Incorrect number of parameters to getnum)"]),
        ("setnum('n', 1, 2)", ["Lua error: 2 (Incorrect number of parameters to setnum)"]),
        ("setstr()", ["Lua error: 2 (Incorrect number of parameters to setstr)"]),
        ("setenv('a', 'b')", ["Lua error: 2 (Incorrect number of parameters to setenv)"]),
        ("setnum('n', -1)", ["Lua error: 2 (a number is from 0 to 2^63 - 1)"]),
        ("setnum('n', 1e19)", ["Lua error: 2 (a number is from 0 to 2^63 - 1)"]),
        ("setstr('n', 'a\\nb')", ["Lua error: 2 (a string with control bytes)"]),
        ("setstr('n', {})", ["Lua error: 2 (a string with control bytes)"]),
        ("setnum({}, 1)", ["Lua error: 2 (a name and a string value are strings)"]),
        ("putenv('=b')", ["Lua error: 2 (a setting has a name without =, and no NUL in its value)"]),
        ("putenv('A=a\\0b')", ["Lua error: 2 (a setting has a name without =, and no NUL in its value)"]),
        ("setenv('A=', '', 1)", ["Lua error: 2 (a setting has a name without =, and no NUL in its value)"]),
        ("local ok, text = pcall(getnum) msg(text, type(text))",
         ["Incorrect number of parameters to getnum", "string"]),
    ],
)  # fmt: skip
def test_functions(script: Path, source: str, lines: list[str]) -> None:
    assert said(script, source, {"SET": "yes"}) == lines


def test_numbers_and_settings_reach_other_plugins(script: Path) -> None:
    source = "function sender() putenv('RELAYCLIENT=.relay') setnum('authenticated', 1) end"
    tested = front(script, source, "require-auth", "accept-sender", "relayclient")
    tested.say(ENVELOPE, b"DATA\r\n", b".\r\n", QUIT)
    assert tested.messages == [("a@example.net", ["b@example.org.relay"], b"")]


# -- errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("return nosuch.field", "s.lua:1: attempt to index global 'nosuch' (a nil value))"),
        ("error('by hand')", "s.lua:1: by hand)"),
        ("error('by hand', 0)", "(by hand)"),
        ("error({})", "((null))"),
        ("error(5)", "5)"),
        ("local function f() return f() + 1 end f()", "stack overflow)"),
    ],
)
def test_an_error_is_451_and_a_log_line(script: Path, source: str, line: str) -> None:
    tested = front(script, f"function sender() {source} end function recipient() msg('alive') end")
    output = tested.say(HELO, MAIL, MAIL, QUIT)
    assert codes(output) == [220, 250, 451, 451, 221]
    assert b"451 4.3.0 Internal error.\r\n" in output
    assert any(found.startswith("Lua error: 2 (") and found.endswith(line) for found in tested.log), tested.log


@pytest.mark.parametrize("source", ["function x(", "return return", "\x1bLua", "\x1bLuaQ\0\1\4\x08\4\x08\0", "="])
def test_what_is_no_script_takes_the_greetings_place(script: Path, source: str) -> None:
    tested = front(script, source)
    assert tested.say(HELO) == b"451 4.3.0 Internal error.\r\n"
    assert f'Syntax error in "{script}"' in tested.log


@pytest.mark.parametrize("path", ["/nonexistent/s.lua", "", "a\0b", "/"])
def test_a_script_that_cannot_be_read_takes_the_greetings_place(path: str) -> None:
    tested = Front("lua", "accept", env={"LUA_SCRIPT": path})
    assert tested.say(HELO) == b"451 4.3.0 Internal error.\r\n"
    assert f'Cannot read "{path}"' in tested.log


def test_a_script_with_faults_passes_where_the_list_says_so(script: Path) -> None:
    script.write_text("function sender() return nosuch.field end")
    kind = type("Lua", (Lua,), {"place": Place(None, True)})
    tested = Front(kind, "accept", env={"LUA_SCRIPT": str(script)})
    assert codes(tested.say(ENVELOPE, QUIT)) == [220, 250, 250, 250, 221]
    assert any(line.endswith("plugin lua: 4.3.0 Internal error., passed") for line in tested.log)


def test_without_lupa_it_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lupa.lua51", None)
    monkeypatch.setitem(sys.modules, "lupa", None)
    with pytest.raises(ConfigurationError, match=r"needs the package lupa: run pip install 'mailfront\[lua\]'"):
        Service("smtp", "discard", ["lua"], {"LUA_SCRIPT": "x"}, print)
    Service("smtp", "discard", ["lua"], {}, print)


def test_a_script_that_has_changed_is_read_again(script: Path) -> None:
    tested = front(script, "return 450, '4.0.0 one'")
    assert tested.say() == b"450 4.0.0 one\r\n"
    script.write_text("return 450, '4.0.0 two, and longer'")
    assert tested.say() == b"450 4.0.0 two, and longer\r\n"
    assert SETTLED_SECONDS < 1


def test_connections_share_no_state(script: Path) -> None:
    tested = front(script, "n = n or 0 function sender() n = n + 1 return 250, '2.0.0 ' .. n end")
    assert [last(tested.say(HELO, MAIL, QUIT)) for _ in range(3)] == [b"250 2.0.0 1"] * 3


# -- what a script cannot do -------------------------------------------------------------------------------

HIDDEN = (
    "python", "io", "os", "package", "debug", "require", "module", "dofile", "load", "loadfile", "loadstring",
    "getfenv", "setfenv", "newproxy", "collectgarbage", "gcinfo", "coroutine", "print", "_G", "xpcall",
)  # fmt: skip


@pytest.mark.parametrize("name", HIDDEN)
@pytest.mark.parametrize("library", [True, False])
def test_h57_a_script_has_no_way_out(name: str, library: bool) -> None:
    assert run(f"function f() return {name} == nil and 'hidden' or 'there' end", library=library) == b"hidden"


@pytest.mark.parametrize("name", ["string", "table", "math", "pcall", "tostring", "pairs", "error"])
def test_in_compat_there_is_no_library_at_all(script: Path, name: str) -> None:
    assert run(f"function f() return {name} == nil and 'hidden' or 'there' end", library=False) == b"hidden"
    tested = front(script, f"function sender() return {name}() end", compat=True)
    tested.say(MAIL, QUIT)
    assert any(f"attempt to call global '{name}' (a nil value)" in line for line in tested.log)


def test_in_compat_strings_have_no_methods() -> None:
    with pytest.raises(ScriptError, match="attempt to index local 's'"):
        run("function f() local s = 'x' return s:upper() end", library=False)


def test_string_methods_are_those_of_the_library() -> None:
    assert run("function f() return ('abc'):upper() end") == b"ABC"
    for name in ("dump", "find", "gmatch", "gsub", "match", "rep"):
        assert run(f"function f() return ('abc').{name} == nil and 1 or 0 end") == 1
    assert run("function f() return tostring(getmetatable('')) end") == b"false"


def test_functions_of_ours_are_lua_functions_and_nothing_of_python() -> None:
    given: list[object] = []

    def take(*values: object) -> list[bytes]:
        given.extend(values)
        return [b"back"]

    def fail(*values: object) -> list[bytes]:
        raise KeyError("secret")

    source = """
        function f()
            local ok, text = pcall(fail)
            return type(take) .. ' ' .. take({}, take, true, nil, 'x', 2) .. ' ' .. type(text) .. ' ' .. text
        end
        function index() return take.__globals__ end
    """
    script = Script(source.encode(), b"s.lua", {"take": take, "fail": fail}, library=True, instructions=10_000)
    script.main()
    assert script.call("f")[0] == b"function back string KeyError"
    assert given == [None, None, True, None, b"x", 2]
    with pytest.raises(ScriptError, match="attempt to index global 'take' \\(a function value\\)"):
        script.call("index")


ENDLESS = [
    "while true do end",
    "while true do pcall(function() while true do end end) end",
    "repeat local ok = pcall(error) until false",
    "local function g() return g() end g()",
    "for i = 1, 1e18 do end",
    "while true do getenv() end",
    "local t = setmetatable({}, {__index = function(t, k) return k end}) while t.x do end",
    "pcall(pcall, pcall, function() while true do end end) while true do end",
]


@pytest.mark.parametrize("source", ENDLESS)
def test_an_endless_loop_is_451_and_the_session_lives(script: Path, source: str) -> None:
    tested = front(script, f"function sender(a) if a == 'a@b.example' then {source} end return 250, '2.0.0 fine' end")
    output = tested.say(HELO, MAIL, b"MAIL FROM:<c@d.example>\r\n", MAIL, QUIT)
    assert codes(output) == [220, 250, 451, 250, 451, 221]
    assert tested.log.count("Lua error: 2 (too many instructions)") == 2


@pytest.mark.parametrize(
    "endless", ["while low < high do end", "while true do low:reverse() end", "while true do table.concat(all) end"]
)
def test_instructions_that_take_long_are_bounded_in_time(endless: str) -> None:
    """As many of them as a call may use would take minutes."""
    setup = "local a = 'a' for i = 1, 20 do a = a .. a end local low, high, all = a .. 'x', a .. 'y', {a, a, a, a}"
    script = Script(f"{setup} {endless}".encode(), b"s", {}, library=True, instructions=2_000_000)
    with pytest.raises(ScriptError, match="too much time"):
        script.main()


def test_instructions_are_a_setting(script: Path) -> None:
    source = "function sender() for i = 1, 200000 do end return 250, '2.0.0 done' end"
    assert last(front(script, source).say(HELO, MAIL, QUIT)) == b"250 2.0.0 done"
    tested = front(script, source, env={"LUA_INSTRUCTIONS": "100000"})
    assert last(tested.say(HELO, MAIL, QUIT)) == b"451 4.3.0 Internal error."


def test_each_call_may_use_them_all() -> None:
    source = b"function f() for i = 1, 60000 do end return 1 end"
    script = Script(source, b"s", {}, library=True, instructions=100_000)
    script.main()
    assert [script.call("f")[0] for _ in range(20)] == [1] * 20


HUNGRY = [
    "local t = {} for i = 1, 1e18 do t[i] = {} end",
    "local s = 'a' while true do s = s .. s end",
    "local s = 'aaaaaaaaaaaaaaaa' while true do s = s .. s .. s .. s .. s .. s .. s .. s .. s end",
    "local t = {} pcall(function() for i = 1, 1e18 do t[i] = string.format('%099d', i) end end) while true do end",
    "while true do pcall(function() local s = 'a' while true do s = s .. s end end) end",
]


@pytest.mark.parametrize("source", HUNGRY)
def test_memory_is_bounded_and_the_session_lives(script: Path, source: str) -> None:
    tested = front(script, f"function sender(a) if a == 'a@b.example' then {source} end return 250, '2.0.0 fine' end")
    output = tested.say(HELO, MAIL, b"MAIL FROM:<c@d.example>\r\n", MAIL, QUIT)
    assert codes(output) == [220, 250, 451, 250, 451, 221]
    assert sum(line.startswith("Lua error: ") for line in tested.log) == 2


@pytest.mark.parametrize("kept", ["t = {} for i = 1, 1e18 do t[i] = {} end", "t = 'a' for i = 1, 25 do t = t .. t end"])
def test_a_script_that_keeps_too_much_is_not_called_again(script: Path, kept: str) -> None:
    tested = front(script, f"function sender(a) pcall(function() {kept} end) return 250 end", "accept")
    output = tested.say(ENVELOPE, BODY, b"RSET\r\n", QUIT)
    assert 451 in codes(output)
    assert codes(output)[-1] in (451, 221)
    assert any(line == "Lua error: 4 (not enough memory)" for line in tested.log)
    assert tested.messages == []


def test_memory_in_numbers() -> None:
    script = Script(
        b"function f() t = {} for i = 1, 1e18 do t[i] = {} end end function g() return 1 end",
        b"s", {}, library=True, instructions=1_000_000_000,
    )  # fmt: skip
    script.main()
    with pytest.raises(ScriptError) as caught:
        script.call("f")
    assert (str(caught.value), caught.value.status) == ("not enough memory", 4)
    assert script._lua.get_memory_used() <= ALLOCATED
    assert MEMORY < ALLOCATED
    with pytest.raises(ScriptError, match="not enough memory"):
        script.call("g")


def test_syntax_errors_are_exceptions_of_their_own() -> None:
    with pytest.raises(ScriptSyntaxError):
        Script(b"(", b"s", {}, library=True, instructions=1)


def test_a_whole_message_passes_through_a_script(script: Path) -> None:
    started = time.process_time()
    tested = front(script, "n = 0 function data_block(b) n = n + #b end function message_end() msg('size ' .. n) end")
    tested.say(ENVELOPE, b"DATA\r\n", *[b"x" * 998 + b"\r\n"] * 3000, b".\r\n", QUIT)
    assert f"size {999 * 3000}" in tested.log
    assert time.process_time() - started < 30
