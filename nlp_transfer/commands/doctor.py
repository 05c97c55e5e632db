"""`nlp-transfer doctor`: versions, device, memory and caches of this machine, and missing parts."""

from nlp_transfer.terminal import quiet_libraries, show

__all__ = ["doctor"]


def doctor() -> None:
    """Show versions, device, memory and caches of this machine, and which parts are missing."""
    quiet_libraries()
    from rich.table import Table

    from nlp_transfer.commands.machine import examine

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, finding in examine().items():
        table.add_row(name, finding)
    show(table)
