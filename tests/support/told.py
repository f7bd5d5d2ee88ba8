"""Told for tests of several rooms."""

import pytest

from hf_midrange.commands import app as cli


def told(capsys, *words: object) -> tuple[int, str]:
    """Return exit code and the error of a command."""
    with pytest.raises(SystemExit) as end:
        cli.main([str(word) for word in words])
    return int(end.value.code or 0), capsys.readouterr().err
