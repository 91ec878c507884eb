"""A Lua script in a state of its own, which can reach nothing but the functions that it is given.

The state has no Python in it: functions of ours are behind Lua closures, they hand over strings and numbers only, and
attributes of Python objects are denied. Of Lua's own library a script gets what `LIBRARY` names, in a table of its own.

A script is bounded in instructions by a count hook, which looks at the processor's time, too: one instruction may work
through megabytes of a string. In memory it is bounded in two ways. The hook looks at what is used and stops the script
at `MEMORY`. What grows faster than the hook can see meets the allocator's limit, `ALLOCATED`: far enough above, so that
calls from and to Python, which Lua does not protect, never do. A script whose values stay above `MEMORY` is not called
again.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

MEMORY: Final = 16 * 1024 * 1024
"""Bytes that the values of one script may take; each connection has a state of its own."""

ALLOCATED: Final = 4 * MEMORY

STEP: Final = 1000
"""Instructions between two looks of the hook: about ten microseconds."""

INSTRUCTIONS_PER_SECOND: Final = 2_000_000
"""Of the processor's time: what a call may take is its instructions by this, and a second at least. Plain ones are
fifty times as fast."""

LIBRARY: Final[Mapping[str, str]] = {
    "": "assert error getmetatable ipairs next pairs pcall rawequal rawget rawset select setmetatable tonumber "
    "tostring type unpack",
    "string": "byte char format len lower reverse sub upper",
    "table": "concat remove",
    "math": "abs ceil floor fmod huge max min modf",
}
"""Functions that neither reach outside nor take more than a few milliseconds: no patterns, no repetition."""

Value = bytes | float | bool | None
"""What goes between Python and Lua; tables and functions of a script come as None."""

_NUMBER: Final = re.compile(rb"\s*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?\s*\Z")

_SETUP: Final = b"""
local memory, steps, step_size, seconds = ...
local pcall, error, type, count = pcall, error, type, collectgarbage
local sethook, getinfo, clock = debug.sethook, debug.getinfo, os.clock
local left, stop, run, problem = 0, 0, nil, nil

local function used_up()
    if count("count") <= memory then return false end
    left = left - steps / 100
    count("collect")
    return count("count") > memory
end

local function look()
    left = left - 1
    if left < 0 then problem = "too many instructions"
    elseif clock() > stop then problem = "too much time"
    elseif not problem and used_up() then problem = "not enough memory" end
    if problem and getinfo(2, "f").func ~= run then
        sethook(look, "", 1)
        error(problem, 0)
    end
end

run = function(f, ...)
    left, stop, problem = steps, clock() + seconds, nil
    sethook(look, "", step_size)
    local ok, a, b, c = pcall(f, ...)
    sethook()
    return ok, a, b, c
end

local function finish(problem, ...)
    if problem then error(problem, 0) end
    return ...
end

local function offer(f)
    return function(...)
        if used_up() then error("not enough memory", 0) end
        return finish(f(...))
    end
end

return run, offer, used_up, loadstring, setfenv, debug.setmetatable
"""


class ScriptError(Exception):
    """A script cannot go on. `status`: Lua's number for it, 2 or for memory 4."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.status = 4 if text == "not enough memory" else 2


class ScriptSyntaxError(Exception):
    """A script that is none."""


class Script:
    """The script `source`, loaded and not yet run; `name`: of its file, for errors. `functions`: what it is offered,
    each gets what the script gives it and raises `ScriptError`. `library`: whether it gets `LIBRARY`. `instructions`:
    that one call may take.

    Raises `ScriptSyntaxError`, and ImportError without the package lupa.
    """

    def __init__(
        self,
        source: bytes,
        name: bytes,
        functions: Mapping[str, Callable[..., Iterable[Value]]],
        *,
        library: bool,
        instructions: int,
    ) -> None:
        from lupa import lua51

        self._type_of = lua51.lua_type
        self._lua = lua51.LuaRuntime(
            encoding=None,
            source_encoding="latin-1",
            attribute_filter=_deny,
            register_eval=False,
            register_builtins=False,
            unpack_returned_tuples=True,
            max_memory=ALLOCATED,
        )
        steps = max(1, -(-instructions // STEP))
        self._run, offer, self._used_up, load, set_environment, set_metatable = self._lua.execute(
            _SETUP, MEMORY // 1024, steps, STEP, max(1.0, instructions / INSTRUCTIONS_PER_SECOND)
        )
        self._spent = False
        if source.startswith(b"#"):  # as the programs of Lua have it: the way to the interpreter
            source = source[source.find(b"\n") :] if b"\n" in source else b""
        if source.startswith(b"\x1b"):  # no text: whoever writes such a thing can do with the interpreter what he likes
            raise ScriptSyntaxError
        chunk = load(source, b"@" + name)
        if isinstance(chunk, tuple):
            raise ScriptSyntaxError
        self._globals = self._lua.table()
        if library:
            self._add_library(set_metatable)
        else:
            set_metatable(b"", None)
        for key, function in functions.items():
            self._globals[key.encode()] = offer(_guarded(function))
        self._main = set_environment(chunk, self._globals)

    def _add_library(self, set_metatable: Any) -> None:
        everything = self._lua.globals()
        for table, names in LIBRARY.items():
            source = everything[table.encode()] if table else everything
            target = self._lua.table() if table else self._globals
            for name in names.split():
                target[name.encode()] = source[name.encode()]
            if table:
                self._globals[table.encode()] = target
        methods = self._lua.table()
        methods[b"__index"] = self._globals[b"string"]
        methods[b"__metatable"] = False
        set_metatable(b"", methods)

    def main(self) -> tuple[Value, Value, Value]:
        """Run the script itself; what it returns. Raises `ScriptError`."""
        return self._call(self._main)

    def call(self, name: str, *arguments: Value) -> tuple[Value, Value, Value]:
        """Call the function `name` of the script; the first three results, where they are strings or numbers; all None
        without such a function. Raises `ScriptError`."""
        if self._spent:
            raise ScriptError("not enough memory")
        function = self._globals[name.encode()]
        if self._type_of(function) != "function":
            return None, None, None
        return self._call(function, *arguments)

    def _call(self, function: Any, *arguments: Value) -> tuple[Value, Value, Value]:
        done, first, second, third = self._run(function, *arguments)
        if self._used_up():
            self._spent = True
            self._globals = self._lua.table()
        if not done:
            message = to_bytes(_plain(first))
            raise ScriptError("(null)" if message is None else message.decode("utf-8", "surrogateescape"))
        return _plain(first), _plain(second), _plain(third)


def _deny(thing: object, name: object, setting: bool) -> str:
    raise AttributeError("denied")


def _guarded(function: Callable[..., Iterable[Value]]) -> Callable[..., tuple[Value, ...]]:
    """`function` with what it raises as its first result: no exception is ever an object in Lua."""

    def call(*arguments: object) -> tuple[Value, ...]:
        try:
            return (None, *function(*map(_plain, arguments)))
        except ScriptError as error:
            return (str(error).encode("utf-8", "surrogateescape"),)
        except Exception as error:
            return (type(error).__name__.encode(),)

    return call


def _plain(value: object) -> Value:
    return value if isinstance(value, bytes | int | float) else None


def to_bytes(value: Value) -> bytes | None:
    """As ``lua_tolstring``: a string, or a number in Lua's way of writing it; else None."""
    if isinstance(value, bytes):
        return value
    return b"%.14g" % value if isinstance(value, int | float) and not isinstance(value, bool) else None


def to_number(value: Value) -> float:
    """As ``lua_tonumber``: a number, or a string that is one; else 0. Infinite and undefined ones are 0, too."""
    if isinstance(value, bytes):
        value = float(value) if _NUMBER.match(value) else 0
    if value is None or isinstance(value, bool) or not math.isfinite(value):
        return 0
    return value
