"""The command line in this process."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from vpt_data.cli.main import main


def run(*arguments: str | Path, **env: str | None) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], env=env)


def error(*arguments: str | Path, code: int = 1, **env: str | None) -> str:
    """The one sentence that a command fails with."""
    result = run(*arguments, **env)
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    assert isinstance(result.exception, SystemExit)
    head, sentence = result.stderr[:7], result.stderr[7:]
    assert head == "Error: "
    assert sentence.count("\n") == 1
    return sentence.rstrip("\n")
