"""A file of mail rules, with the lists that it refers to."""

from collections.abc import Container, Iterator

from mailfront_io.control_files import Cache, DamagedFile, Sources, cause, open_cdb, read_list
from mailfront_io.rules.decision import Lists
from mailfront_io.rules.language import Problem, Reference, Rule, Severity, parse
from mailfront_proto.record import record


@record(frozen=True)
class RuleFile:
    """What is in a file of rules: `senders` and `recipients`, the lists that they refer to, and all `problems`."""

    path: str
    senders: tuple[Rule, ...]
    recipients: tuple[Rule, ...]
    lists: Lists
    problems: tuple[Problem, ...]

    @property
    def errors(self) -> list[Problem]:
        """The problems for which the file cannot be used."""
        return [problem for problem in self.problems if problem.severity is not Severity.WARNING]


def load_rules(path: str, sources: Sources) -> RuleFile:
    """Read rules and lists. Raises `OSError` for the file itself, and `MissingPackage`; what is wrong within it is
    in `RuleFile.problems`."""
    rules = parse(sources.read(path))
    lists: dict[bytes, Container[bytes]] = {}
    problems = sorted(
        [*rules.problems, *_load_lists(rules.references, lists, sources)],
        key=lambda problem: (problem.line, problem.column),
    )
    return RuleFile(path, rules.senders, rules.recipients, lists, tuple(problems))


RULES = Cache(load_rules)
"""The files of this process."""


def _load_lists(
    references: tuple[Reference, ...], lists: dict[bytes, Container[bytes]], sources: Sources
) -> Iterator[Problem]:
    """Fill `lists`. Names that are no absolute paths start at the working directory."""
    for reference in references:
        target = reference.target
        if target.name in lists:
            continue
        try:
            lists[target.name] = (open_cdb if target.is_cdb else read_list)(target.name, sources)
        except FileNotFoundError as error:
            lists[target.name] = frozenset()
            if target.is_cdb:
                remedy = "a CDB file that is missing has no entries; make it, or take the rule out"
                yield _problem(reference, cause(error), remedy, Severity.WARNING)
            else:
                yield _problem(reference, cause(error), "make the file, or write the path of one that is there")
        except (OSError, ValueError) as error:
            lists[target.name] = frozenset()
            yield _problem(reference, cause(error), "name a file that this user can read")
        except DamagedFile as error:
            lists[target.name] = frozenset()
            yield _problem(reference, str(error), "make it anew, with a program for CDB files")


def _problem(reference: Reference, why: str, remedy: str, severity: Severity = Severity.REFERENCE) -> Problem:
    name = reference.target.name.decode("utf-8", "backslashreplace")
    return Problem(reference.line, reference.column, f"the list {name!r}: {why}", remedy, severity)
