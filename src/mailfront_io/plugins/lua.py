"""lua: a policy written in Lua."""

import re
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

from mailfront_io.calling import INTERNAL_ERROR
from mailfront_io.control_files import Cache, Sources
from mailfront_io.ops import Thread
from mailfront_io.plugin import CheckFailed, Kind, Plugin, Response, Setting
from mailfront_io.plugins.lua_script import Script, ScriptError, ScriptSyntaxError, Value, to_bytes, to_number
from mailfront_io.session import Path, Session, parse_number
from mailfront_io.spool import Spool

INSTRUCTIONS = 10_000_000
"""Of Lua's machine, in one call: about a tenth of a second, in which no other session of the process goes on."""

FINAL = 1024
"""What a script adds to a code to make the response final, as the original does."""

_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")


def _read(path: str, sources: Sources) -> bytes:
    return sources.read(path)


SCRIPTS = Cache(_read)
"""The scripts of this process."""


class Lua(Plugin):
    """Calls the functions of the script in `$LUA_SCRIPT` that have a hook's name.

    The script itself is run when a connection comes, in a state of its own; what it returns takes the greeting's place
    if it is an error. Its functions are `helo(host, capabilities)`, `sender(address, parameters)`,
    `recipient(address, parameters)` (parameters are joined by NUL, capabilities end in line feeds), `data_start(fd)`,
    `data_block(data)`, `message_end(fd)` (fd: -1 without a spool file) and `reset()`. Each returns a code and a text:
    nil or 0 is no opinion, without a text it is OK, Deferred or Rejected, and 1024 added to the code makes it final. A
    third result takes the place of the host name or the address.

    What a script may call: `msg(line, …)` for the log; `getenv(name, …)`, `putenv("NAME=VALUE", …)` and
    `setenv(name, value, overwrite)` for settings of the session; `getnum(name, default)`, `setnum(name, value)`,
    `delnum(name, …)`, `getstr(name, …)`, `setstr(name, value)` and `delstr(name, …)` for the numbers and strings that
    plugins share. It is Lua 5.1. Of Lua's own library there are the basic functions but those that load code, and
    without patterns and repetition `string`, `table` and `math`; in the compat profile there is none of it.

    A script has no way to Python, files or programs. One call may take `$LUA_INSTRUCTIONS`, with a second of the
    processor's time for each two million of them, and the values of a script 16 MiB. A script that has an error is
    logged and costs 451.
    """

    name = "lua"
    settings = (
        Setting("LUA_SCRIPT", Kind.TEXT, "the script; unset: the plugin does nothing"),
        Setting("LUA_INSTRUCTIONS", Kind.NUMBER, "instructions that one call may take", str(INSTRUCTIONS)),
    )

    @classmethod
    def configure(cls, environment: Mapping[str, str], log: Callable[[str], None]) -> None:
        """Without a script no Lua is needed."""
        if "LUA_SCRIPT" in environment:
            try:
                import lupa.lua51  # noqa: F401
            except ImportError:
                raise ValueError("the plugin lua needs the package lupa: run pip install 'mailfront[lua]'") from None

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._script: Script | None = None

    def connect(self) -> Response | Coroutine[Any, Any, Response | None] | None:
        """Loads the script as it is now, and runs it: its own return value is the response. A file that has changed is
        read in a thread."""
        self._script = None
        path = self.session.getenv("LUA_SCRIPT")
        if path is None:
            self.rest("helo", "sender", "recipient", "data_start", "data_block", "message_end", "reset")
            return None
        self.rest()
        source = SCRIPTS.current(path)
        return self._load(path) if source is None else self._start(path, source)

    async def _load(self, path: str) -> Response | None:
        try:
            source = await Thread(SCRIPTS.load, path)
        except (OSError, ValueError):
            self.session.log(f'Cannot read "{path}"')
            raise CheckFailed(INTERNAL_ERROR) from None
        return self._start(path, source)

    def _start(self, path: str, source: bytes) -> Response | None:
        session = self.session
        instructions = parse_number(session.getenv("LUA_INSTRUCTIONS")) or INSTRUCTIONS
        library = session.profile.name != "compat"  # the original's scripts have none
        try:
            script = Script(source, _encode(path), _functions(session), library=library, instructions=instructions)
        except ScriptSyntaxError:
            session.log(f'Syntax error in "{path}"')
            raise CheckFailed(INTERNAL_ERROR) from None
        response, _ = self._answer(script.main)
        self._script = script
        return response

    def helo(self, host: str, capabilities: list[str]) -> Response | None:
        """``helo(host, capabilities)``: the lines of EHLO so far, each with a line feed."""
        if self._script is None:
            return None
        lines = "".join([line + "\n" for line in capabilities])
        response, new = self._call("helo", _encode(host), _encode(lines))
        if new is not None:
            self.session.strings["helo_domain"] = new
        return response

    def sender(self, path: Path) -> Response | None:
        """``sender(address, parameters)``; the parameters joined by NUL."""
        return self._path("sender", path)

    def recipient(self, path: Path) -> Response | None:
        """``recipient(address, parameters)``."""
        return self._path("recipient", path)

    def data_start(self, spool: Spool | None) -> Response | None:
        """``data_start(fd)``: the spool's descriptor, -1 without one."""
        return self._call("data_start", _descriptor(spool))[0] if self._script is not None else None

    def data_block(self, data: bytes) -> Response | None:
        """``data_block(data)``."""
        return self._call("data_block", data)[0] if self._script is not None else None

    def message_end(self, spool: Spool | None) -> Response | None:
        """``message_end(fd)``."""
        return self._call("message_end", _descriptor(spool))[0] if self._script is not None else None

    def reset(self) -> Response | None:
        """``reset()``."""
        return self._call("reset")[0] if self._script is not None else None

    def _path(self, hook: str, path: Path) -> Response | None:
        if self._script is None:
            return None
        parameters = "\0".join(path.parameters)
        response, new = self._call(hook, _encode(path.address), _encode(parameters))
        if new is not None:
            path.address = new
        return response

    def _call(self, hook: str, *arguments: Value) -> tuple[Response | None, str | None]:
        script = self._script
        assert script is not None
        return self._answer(lambda: script.call(hook, *arguments))

    def _answer(self, call: Callable[[], tuple[Value, Value, Value]]) -> tuple[Response | None, str | None]:
        """The response, and the string that takes the place of the hook's first."""
        try:
            code, text, new = call()
            return _response(code, text), None if new is None else _decode(_printable(new))
        except ScriptError as error:
            self.session.log(f"Lua error: {error.status} ({error})")
            raise CheckFailed(INTERNAL_ERROR) from None


def _response(code: Value, text: Value) -> Response | None:
    number = int(to_number(code))
    if not number:
        return None
    final, number = divmod(number, FINAL) if number >= FINAL else (0, number)
    if final > 1 or not (200 <= number <= 299 or 400 <= number <= 599):
        raise ScriptError(f"{_decode(to_bytes(code) or b'')} is no code of a response")
    usual = "OK" if number < 400 else "Deferred" if number < 500 else "Rejected"
    return Response(number, _decode(to_bytes(text) or b"") or usual, final == 1)


def _descriptor(spool: Spool | None) -> int:
    return -1 if spool is None else spool.descriptor


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _printable(value: Value) -> bytes:
    data = to_bytes(value)
    if data is None or _CONTROL.search(data):
        raise ScriptError("a string with control bytes")
    return data


# -- what a script may call ------------------------------------------------------------------------------------------


def _functions(session: Session) -> dict[str, Callable[..., Iterable[Value]]]:
    """The functions, by name. Each takes what the script gives it, and returns what the script gets."""

    def getenv(*names: Value) -> list[Value]:
        return [_optional(session.getenv(_name(name))) for name in names]

    def putenv(*assignments: Value) -> tuple[()]:
        for assignment in assignments:
            name, equals, value = (to_bytes(assignment) or b"").partition(b"=")
            if equals:
                session.putenv(*_setting(name, value))
        return ()

    def setenv(*arguments: Value) -> tuple[()]:
        name, value, overwrite = _counted("setenv", 3, arguments)
        session.setenv(*_setting(_bytes(name), _bytes(value)), overwrite=overwrite is True or to_number(overwrite) != 0)
        return ()

    def getnum(*arguments: Value) -> list[Value]:
        name, default = _counted("getnum", 2, arguments)
        number = session.numbers.get(_name(name))
        return [int(to_number(default)) if number is None else number]

    def setnum(*arguments: Value) -> tuple[()]:
        name, value = _counted("setnum", 2, arguments)
        number = int(to_number(value))
        if not 0 <= number < 1 << 63:
            raise ScriptError("a number is from 0 to 2^63 - 1")
        session.numbers[_name(name)] = number
        return ()

    def delnum(*names: Value) -> tuple[()]:
        for name in names:
            session.numbers.pop(_name(name), None)
        return ()

    def getstr(*names: Value) -> list[Value]:
        return [_optional(session.strings.get(_name(name))) for name in names]

    def setstr(*arguments: Value) -> tuple[()]:
        name, value = _counted("setstr", 2, arguments)
        session.strings[_name(name)] = _decode(_printable(value))
        return ()

    def delstr(*names: Value) -> tuple[()]:
        for name in names:
            session.strings.pop(_name(name), None)
        return ()

    def msg(*lines: Value) -> tuple[()]:
        for line in lines:
            session.log(_decode((to_bytes(line) or b"").partition(b"\0")[0]))
        return ()

    return {function.__name__: function for function in (
        getenv, putenv, setenv, getnum, setnum, delnum, getstr, setstr, delstr, msg,
    )}  # fmt: skip


def _setting(name: bytes, value: bytes) -> tuple[str, str]:
    if not name or b"=" in name or b"\0" in name + value:
        raise ScriptError("a setting has a name without =, and no NUL in its value")
    return _decode(name), _decode(value)


def _counted(function: str, count: int, arguments: tuple[Value, ...]) -> tuple[Value, ...]:
    if len(arguments) != count:
        raise ScriptError(f"Incorrect number of parameters to {function}")
    return arguments


def _bytes(value: Value) -> bytes:
    data = to_bytes(value)
    if data is None:
        raise ScriptError("a name and a string value are strings")
    return data


def _name(value: Value) -> str:
    return _decode(_bytes(value))


def _optional(text: str | None) -> bytes | None:
    return None if text is None else _encode(text)
