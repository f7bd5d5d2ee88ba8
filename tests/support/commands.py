"""Commands for tests of several rooms."""

from typer.testing import CliRunner

from hf_midrange.commands import app as cli


def called(*words):
    """Run `hf-midrange` in this process, which is quick; what the package refuses is raised."""
    result = CliRunner().invoke(cli.app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result
