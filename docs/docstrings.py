"""Adapts our docstrings for Griffe: `Example:` is a section of code, and a public name in backticks is a link."""

import functools
import inspect
import re

import griffe

import pugd_optax

NAME = re.compile(r"(?<![\[`])`pugd_optax\.([\w.]+)`(?![\]`])")


class OurDocstrings(griffe.Extension):
    """Rewrite every docstring before it is parsed."""

    def on_instance(self, *, obj: griffe.Object, **_) -> None:
        """Called for every module, class and function."""
        if obj.docstring:
            text = NAME.sub(_link, obj.docstring.value)
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)


def _link(match: re.Match[str]) -> str:
    """A reference to where the name is defined: a function may share its name with its module."""
    found = functools.reduce(getattr, match[1].split("."), pugd_optax)
    where = found.__name__ if inspect.ismodule(found) else f"{found.__module__}.{found.__qualname__}"
    return f"[`pugd_optax.{match[1]}`][{where}]"
