"""The command line, run in this process."""

from __future__ import annotations

from click.testing import CliRunner, Result
from headwater.cli import main


def headwater(*words: object) -> Result:
    """Run it, however it ends."""
    return CliRunner().invoke(main, [str(word) for word in words])


def done(*words: object) -> Result:
    """Run it to a good end."""
    result = headwater(*words)
    assert result.exit_code == 0, (result.output, result.exception)
    return result
