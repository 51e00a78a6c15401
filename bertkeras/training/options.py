"""Options of a run in one flat table: the fields are the TOML keys and the command's options."""

from __future__ import annotations

import dataclasses
import os
import tomllib
import types
import typing
from pathlib import Path
from typing import Any

from bertkeras.errors import BertKerasError


def option(default: Any, help: str, group: str, choices: tuple[str, ...] | None = None) -> Any:
    """A field with the help that the command line shows."""
    metadata = {"help": help, "group": group, "choices": choices}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass
class Options:
    """A table of options; a subclass lists them as fields made by `option` and checks their values further.

    Attributes:
        command: The command that takes them.
    """

    command: typing.ClassVar[str] = ""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = _checked(field.name, getattr(self, field.name), hints[field.name])
            choices = field.metadata["choices"]
            if choices and value is not None and value not in choices:
                raise BertKerasError(f"{field.name} must be one of {', '.join(choices)}, got {value!r}")
            setattr(self, field.name, value)

    def to_toml(self) -> str:
        import tomli_w

        return tomli_w.dumps({name: value for name, value in dataclasses.asdict(self).items() if value is not None})

    @classmethod
    def load_toml(cls, path: str | os.PathLike[str]) -> dict[str, Any]:
        """The options in a TOML file; a key that is no option is an error.

        Raises:
            BertKerasError: No such file, not TOML, or an unknown key.
        """
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise BertKerasError(f"{path}: no such file") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise BertKerasError(f"{path} is not TOML: {error}") from error
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                raise BertKerasError(f"{path}: unknown option {name!r}; `bertkeras {cls.command} --help` lists them")
        return values


def _checked(name: str, value: Any, hint: Any) -> Any:
    """`value` as the type of its field; an integer may stand for a float, nothing else is converted."""
    optional = isinstance(hint, types.UnionType)
    kind = typing.get_args(hint)[0] if optional else typing.get_origin(hint) or hint
    if optional and value is None:
        return None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)) or value != value:
        raise BertKerasError(f"{name} must be {kind.__name__}, got {value!r}")
    return value
