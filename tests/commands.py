"""The command line, run inside the test's own process."""

import sys

import pytest

from nlp_transfer import cli


def run_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[object, str, str]:
    """Run ``nlp-transfer`` with some arguments; gives its exit status, stdout and stderr."""
    monkeypatch.setattr(sys, "argv", ["nlp-transfer", *map(str, arguments)])
    status: object = 0
    try:
        cli.main()
    except SystemExit as error:
        status = error.code or 0
    out, err = capsys.readouterr()
    return status, out, err
