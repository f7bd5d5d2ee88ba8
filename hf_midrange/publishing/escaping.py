"""Text that comes from data, made safe for a card: Markdown, tables, HTML and YAML."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from hf_midrange.columns import shortened


_AS_IT_IS = re.compile(r"[A-Za-z0-9 ,.;/()%=+'-]|: |(?<=[A-Za-z0-9])_(?=[A-Za-z0-9])")
_JOINERS = "\u200c\u200d"  # part of how words and emoji are spelt; they move nothing around
_PLAIN_YAML = re.compile(r"[A-Za-z][A-Za-z0-9_./ -]*")

LONGEST_TEXT = 2000
"""Characters of any text but names that a page or card shows."""


class Markup(str):
    """Text written by this package, which a card shows as it is."""

    __slots__ = ()


def visible(text: str) -> str:
    r"""Return `text` with controls, line breaks and direction marks spelt out, so that a reader sees what is there.

    >>> visible("a\nb")
    'a\\nb'
    """
    return "".join(_spelt(c) if _is_invisible(c) else c for c in text)


def short_names(names: Sequence[str]) -> list[str]:
    """Return names none of which is long; where two would look alike, the later ones are numbered.

    >>> short_names(["cat", "dog"])
    ['cat', 'dog']
    """
    found, short = set(names), []
    for k, name in enumerate(names):
        shown = shortened(name)
        while shown != name and shown in found:
            shown += f" ({k})"
        found.add(shown)
        short.append(shown)
    return short


def markdown(text: str) -> str:
    """Return `text` as Markdown that any renderer shows literally, in a table cell too.

    Whatever could be syntax becomes a character reference, which Markdown never reads as structure.

    >>> markdown("a|b")
    'a&#124;b'
    """
    shown = visible(text)
    inner = "".join(c if _AS_IT_IS.match(shown, k) or _is_word(c) else f"&#{ord(c)};" for k, c in enumerate(shown))
    inner = re.sub(r"^[^A-Za-z0-9&\x80-\U0010ffff]|[ ]$", lambda m: f"&#{ord(m[0])};", inner)
    return inner.replace("  ", " &#32;")


def front_matter(metadata: Mapping[str, Any]) -> str:
    """Return the metadata block of a card: YAML between two lines of dashes, in the order given, ASCII only.

    Text that is not plainly a word is quoted, so that YAML 1.1 and 1.2 readers agree, and three dashes stand nowhere.
    """
    body = yaml.dump(dict(metadata), Dumper=_Quoting, sort_keys=False, allow_unicode=False, width=10_000)
    # Some readers take the first three dashes anywhere for the end. Text with dashes is quoted: they can be spelt out.
    return f"---\n{body.replace('---', chr(92) + 'x2d' + '--')}---\n"


class _Quoting(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ANN401 - YAML's own signature
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if _PLAIN_YAML.fullmatch(text) and not text.endswith(" ") and "--" not in text else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style=style)


_Quoting.add_representer(str, _text)
_Quoting.add_representer(Markup, _text)


def _is_invisible(c: str) -> bool:
    return unicodedata.category(c) in ("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp") and c not in _JOINERS


def _is_word(c: str) -> bool:
    return ord(c) > 127 and unicodedata.category(c)[0] in "LMNS"


def _spelt(c: str) -> str:
    return c.encode("unicode_escape").decode("ascii")
