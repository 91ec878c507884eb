"""Records: what `dataclasses` would make of the same classes."""

import dataclasses
import inspect

import pytest

from mailfront_proto.record import record, replace
from mailfront_proto.sasl.options import ServerOptions


@record
class Point:
    """Two numbers."""

    x: int
    y: int = 2

    @property
    def total(self) -> int:
        return self.x + self.y


@record(frozen=True)
class Fixed:
    """Cannot be changed."""

    name: str
    size: int = 0

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError("size")


@record
class Named(Point):
    """Adds a field to those of its base."""

    name: str = "n"


def test_fields_defaults_and_methods() -> None:
    point = Point(1)
    assert (point.x, point.y, point.total) == (1, 2, 3)
    assert repr(point) == "Point(x=1, y=2)"
    point.x = 5
    assert point == Point(5, y=2)
    assert point != Point(5, 3)
    assert point != (5, 2)  # type: ignore[comparison-overlap]
    assert not hasattr(point, "__dict__")
    with pytest.raises(TypeError):
        hash(point)
    with pytest.raises(TypeError, match="x"):
        Point()  # type: ignore[call-arg]


def test_frozen_values_are_checked_hashed_and_left_alone() -> None:
    fixed = Fixed("a", 1)
    assert hash(fixed) == hash(Fixed("a", 1))
    assert {fixed: 1}[Fixed("a", 1)] == 1
    with pytest.raises(AttributeError, match=r"dataclasses\.replace"):
        fixed.size = 2  # type: ignore[misc]
    with pytest.raises(ValueError, match="size"):
        Fixed("a", -1)


def test_a_record_can_extend_another() -> None:
    named = Named(1, name="p")
    assert (named.x, named.y, named.name) == (1, 2, "p")
    assert named != Point(1)


def test_dataclasses_functions_work() -> None:
    assert dataclasses.replace(Fixed("a"), size=7) == Fixed("a", 7)
    assert dataclasses.asdict(Point(1)) == {"x": 1, "y": 2}
    assert [field.name for field in dataclasses.fields(Named)] == ["x", "y", "name"]
    with pytest.raises(TypeError, match="colour"):
        dataclasses.replace(Fixed("a"), colour=1)  # type: ignore[call-arg]


def test_a_default_that_cannot_be_hashed() -> None:
    """One of `ServerOptions`: a mapping."""
    options = ServerOptions(("PLAIN",), iterations=20_000)
    assert dataclasses.replace(options, mechanisms=("LOGIN",)) == ServerOptions(("LOGIN",), iterations=20_000)
    bindings = next(field for field in dataclasses.fields(ServerOptions) if field.name == "channel_bindings")
    assert bindings.default == options.channel_bindings


def test_the_first_values_are_made_as_all_others() -> None:
    """`__init__` is compiled behind a few of them."""

    @record(frozen=True)
    class New:
        a: int
        b: int = 2

    values = [New(1, b=3), New(1), New(b=4, a=1), New(1, 5), New(1, 6)]
    assert [(value.a, value.b) for value in values] == [(1, 3), (1, 2), (1, 4), (1, 5), (1, 6)]

    wrong: list[tuple[list[int], dict[str, int]]] = [([], {}), ([1, 2, 3], {}), ([1], {"a": 2}), ([1], {"c": 2})]
    for given, named in wrong:

        @record
        class Another:
            a: int
            b: int = 2

        with pytest.raises(TypeError, match=r"__init__\(\)"):
            Another(*given, **named)

    @record
    class Base:
        a: int = 1

    @record
    class Derived(Base):
        b: int = 2

    assert (Derived(b=5).a, Derived(3, 4).a, Derived().b, Base().a, Derived(7).a) == (1, 3, 2, 1, 7)


def test_init_is_compiled_though_threads_have_counted_too_far() -> None:
    @record
    class New:
        a: int

    vars(New)["__init__"]._left = -1  # what two threads leave that count down at the same time
    assert New(1).a == 1
    assert inspect.isfunction(vars(New)["__init__"])


def test_replace_without_dataclasses() -> None:
    assert replace(Fixed("a"), size=7) == Fixed("a", 7)
    assert replace(Named(1, name="p"), x=2) == Named(2, name="p")
    with pytest.raises(TypeError, match="colour"):
        replace(Fixed("a"), colour=1)
    with pytest.raises(ValueError, match="size"):
        replace(Fixed("a"), size=-1)


def test_patterns_match() -> None:
    match Point(3, 4):
        case Point(x, y):
            assert (x, y) == (3, 4)
