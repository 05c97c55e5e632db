"""The command `push`: an artefact goes to the Hugging Face Hub."""

from typing import Annotated

import typer

from nlp_transfer.terminal import complain, quiet_libraries, say, show

__all__ = ["push"]


def push(
    artifact: Annotated[str, typer.Argument(help="The model/ folder of a run, or the run's folder.")],
    repo_id: Annotated[
        str, typer.Argument(metavar="OWNER/NAME", help="Repository on the Hub; created if it does not exist.")
    ],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    adapter_only: Annotated[
        bool, typer.Option("--adapter-only", help="Push the adapter, and refuse anything else.")
    ] = False,
    merged: Annotated[bool, typer.Option("--merged", help="Merge the adapter and push the plain model.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the files, and send nothing.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch to push to; created if it does not exist.")] = None,
) -> None:
    """Push a classifier to the Hugging Face Hub, as one commit."""
    quiet_libraries()
    from rich.table import Table

    from nlp_transfer.publishing.hub.push import push_artifact

    done = push_artifact(
        artifact,
        repo_id,
        private=private,
        adapter_only=adapter_only,
        merged=merged,
        dry_run=dry_run,
        revision=revision,
        say=complain,
    )
    plan = done.plan
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("file", no_wrap=True)
    table.add_column("bytes", justify="right")
    for file in plan.files:
        table.add_row(file.path, f"{file.size:,}")
    table.add_row(f"{len(plan.files)} files", f"{sum(file.size for file in plan.files):,}", style="bold")
    show(table)
    if plan.base is not None:
        at = f" at {plan.base.revision}" if plan.base.revision else ", at its newest revision"
        say(f"its encoder: {plan.base.hub_id}{at}")
    if plan.left:
        say(f"stays here: {', '.join(plan.left)}")
    if dry_run:
        say(f"nothing was sent; without --dry-run it goes to {done.url}")
    elif done.is_changed:
        say(f"pushed to {done.url}, commit {done.commit}")
    else:
        say(f"{done.url} holds all of it already (commit {done.commit}); nothing was sent")
