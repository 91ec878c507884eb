"""Small classes that hold values: what `dataclasses` makes, without its cost at the start.

A one-shot front end is started anew for each connection, and importing `dataclasses` (which imports `inspect`,
`ast` and `dis`) and making its classes took half of that start. `record` makes the same kind of class: fields
from annotations, slots, an ``__init__``, equality, a ``repr``; `dataclasses.replace`, `fields` and `asdict` work on
its values. Only ``__init__`` is compiled, since it alone is on a hot path; the rest is shared code.
"""

from collections.abc import Callable
from typing import Any, Final, TypeVar, dataclass_transform, overload

T = TypeVar("T")


@overload
def record(cls: type[T], /) -> type[T]: ...
@overload
def record(*, frozen: bool = False, hashable: bool = False) -> Callable[[type[T]], type[T]]: ...
@dataclass_transform()
def record(cls: type[T] | None = None, /, *, frozen: bool = False, hashable: bool = False) -> Any:
    """A class decorator. `frozen`: fields cannot be assigned, and values can be hashed. `hashable`: values can be
    hashed all the same. A default must be a value that nobody changes; ``__post_init__`` is called if there is one.
    """
    if cls is None:
        return lambda cls: _make(cls, frozen, hashable)
    return _make(cls, frozen, hashable)


def replace(value: T, /, **changes: Any) -> T:
    """`value`, a record, with other `changes` for some of its fields: `dataclasses.replace` for programs that are
    started for one connection, since to import that takes 10 ms. TypeError for what is no field."""
    fields = {name: getattr(value, name) for name in type(value).__match_args__}  # type: ignore[attr-defined]
    return type(value)(**{**fields, **changes})


def _make(cls: type[Any], frozen: bool, hashable: bool) -> type[Any]:
    own = tuple(cls.__annotations__)
    namespace = {k: v for k, v in cls.__dict__.items() if k not in ("__dict__", "__weakref__")}
    defaults = dict(getattr(cls, "_record_defaults", {}))
    defaults.update({name: namespace.pop(name) for name in own if name in namespace})
    names = tuple(dict.fromkeys((*getattr(cls, "__match_args__", ()), *own)))
    namespace["__slots__"] = own
    namespace["__match_args__"] = names
    namespace["_record_defaults"] = defaults
    namespace["__dataclass_fields__"] = _DataclassFields()
    namespace["__init__"] = _Init(cls, names, defaults, frozen)
    namespace.setdefault("__repr__", _repr)
    namespace.setdefault("__eq__", _eq)
    namespace["__hash__"] = _hash if frozen or hashable else None
    if frozen:
        namespace["__setattr__"] = _refuse_to_change
        namespace["__delattr__"] = _refuse_to_change
    made: type[Any] = type(cls.__name__, cls.__bases__, namespace)
    return made


class _DataclassFields:
    """What `dataclasses.replace`, `fields` and `asdict` look for in a class; made when one of them does."""

    def __get__(self, instance: object, owner: type[Any]) -> dict[str, Any]:
        import dataclasses

        annotations = owner.__init__.__annotations__
        made = dataclasses.make_dataclass(owner.__name__, [(name, annotations[name]) for name in owner.__match_args__])
        found = {field.name: field for field in dataclasses.fields(made)}
        for name, default in owner._record_defaults.items():
            found[name].default = default  # afterwards: `make_dataclass` takes none that cannot be hashed
        owner.__dataclass_fields__ = found  # in place of this descriptor: to make a class costs a millisecond
        return found


_FEW: Final = 3


class _Init:
    """What stands for ``__init__`` until a few values have been made: a program that is started for one connection
    makes none of most of its classes, and one or two of others, such as profiles. To compile one takes 80 to 200 µs, to
    fill one in here 3.
    """

    def __init__(self, *arguments: Any) -> None:
        self._arguments = arguments
        self._left = _FEW

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self._owner = owner

    def __get__(self, instance: object, owner: type[Any]) -> Any:
        if instance is None or self._left <= 0:  # below, where threads have met here
            return self._compiled(instance)
        self._left -= 1
        return lambda *values, **named: self._fill(instance, values, named)

    def _compiled(self, instance: object) -> Any:
        init = self._owner.__init__ = _init(*self._arguments)
        return init if instance is None else init.__get__(instance)

    def _fill(self, instance: object, values: tuple[Any, ...], named: dict[str, Any]) -> None:
        _, names, defaults, _ = self._arguments
        fields = {**defaults, **dict(zip(names, values, strict=False)), **named}
        if len(values) > len(names) or fields.keys() != set(names) or not named.keys().isdisjoint(names[: len(values)]):
            self._compiled(instance)(*values, **named)  # it says what is wrong
            return
        for name in names:
            object.__setattr__(instance, name, fields[name])
        if hasattr(self._owner, "__post_init__"):
            instance.__post_init__()  # type: ignore[attr-defined]


def _init(cls: type[Any], names: tuple[str, ...], defaults: dict[str, Any], frozen: bool) -> Any:
    """``__init__(self, a, b=…)``, compiled from its source. Only names of fields go into that."""
    parameters = [f"{name}=_defaults[{name!r}]" if name in defaults else name for name in names]
    body = [f"_set(self, {name!r}, {name})" if frozen else f"self.{name} = {name}" for name in names]
    if hasattr(cls, "__post_init__"):
        body.append("self.__post_init__()")
    source = f"def __init__({', '.join(['self', *parameters])}):\n " + "\n ".join(body or ["pass"])
    namespace: dict[str, Any] = {"_defaults": defaults, "_set": object.__setattr__}
    exec(source, namespace)
    init = namespace["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    init.__annotations__ = {name: cls.__annotations__.get(name, Any) for name in names}
    return init


def _repr(self: Any) -> str:
    fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__match_args__)
    return f"{type(self).__qualname__}({fields})"


def _eq(self: Any, other: Any) -> Any:
    if type(other) is not type(self):
        return NotImplemented
    return all(getattr(self, name) == getattr(other, name) for name in self.__match_args__)


def _hash(self: Any) -> int:
    return hash((type(self), *[getattr(self, name) for name in self.__match_args__]))


def _refuse_to_change(self: Any, name: str, *value: Any) -> None:
    raise AttributeError(f"{type(self).__name__} cannot be changed: dataclasses.replace() makes a copy")
