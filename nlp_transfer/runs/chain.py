"""Chains of transfers: find the encoder that an earlier artefact started from, and repeat the run without that link."""

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from nlp_transfer.data.encode import encode_splits
from nlp_transfer.errors import DivergedError, EncoderError, RecipeError
from nlp_transfer.models.encoder import open_encoder
from nlp_transfer.models.resolve import ARTIFACT_FILE, EncoderSource, resolve_encoder
from nlp_transfer.recipe.schema import EncoderConfig, Recipe
from nlp_transfer.runs.seed import SeedResult, Workspace, choose_length, train_seed

__all__ = ["CONTROLS_FOLDER", "Chain", "Link", "trace_chain", "train_chain"]

CONTROLS_FOLDER = "controls"
"""Subfolder of the run's folder for the runs without a link, as long as they are needed."""

MOST_LINKS = 10
"""Maximum number of links that are followed; chosen. It also ends a chain that leads in a circle."""


@dataclass(frozen=True)
class Link:
    """One earlier transfer that an encoder went through.

    Attributes:
        name: The artefact, as it was named.
        without: The encoder that this transfer started from.
        facts: The recipe that made the artefact, without its folders.
    """

    name: str
    without: EncoderConfig
    facts: Mapping[str, Any]


@dataclass
class Chain:
    """The links of an encoder, each with the same run without it.

    Attributes:
        links: The last transfer first.
        results: For each link, the results of the run that starts from `Link.without`, one per seed.
        sources: For each link, where the encoder `Link.without` comes from.
        notes: Links that could not be judged, and why.
    """

    links: list[Link] = field(default_factory=list)
    results: list[list[SeedResult]] = field(default_factory=list)
    sources: list[EncoderSource] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def trace_chain(config: EncoderConfig) -> tuple[list[Link], list[str]]:
    """List the earlier transfers that an encoder went through.

    Args:
        config: The recipe's encoder section.

    Returns:
        Links, the last transfer first; none if the encoder is not an artefact of this package. And a list with one
        sentence if the chain goes on but cannot be followed.

    Raises:
        EncoderError: The encoder itself cannot be found.

    Example:
        >>> trace_chain(EncoderConfig(name="google-bert/bert-base-uncased"))
        ([], [])
    """
    links: list[Link] = []
    source = resolve_encoder(config)
    while source.is_artifact and len(links) < MOST_LINKS:
        try:
            record = json.loads((Path(source.location) / ARTIFACT_FILE).read_text(encoding="utf-8"))
            origin, recipe = dict(record["encoder"]), dict(record.get("recipe") or {})
        except (OSError, ValueError, KeyError, TypeError):
            return links, [
                f"{source.name}: the artefact does not say which encoder it started from, so this link is not judged "
                "alone."
            ]
        if dict(recipe.get("encoder") or {}).get("init") == "random":
            # The artefact started from random weights, which is the no-transfer control itself.
            break
        without = _find_origin(origin, Path(source.location), config)
        if without is None:
            return links, [
                f"{source.name}: the encoder it started from, {origin.get('name')}, cannot be found, so this link is "
                "not judged alone. Put the encoder back, or run where it is."
            ]
        links.append(Link(source.name, without, recipe))
        source = resolve_encoder(without)
    return links, []


def _find_origin(origin: Mapping[str, Any], folder: Path, config: EncoderConfig) -> EncoderConfig | None:
    """Find the encoder that an artefact started from: by its name, beside the artefact, or by its Hub id."""
    name, hub_id = str(origin.get("name") or ""), origin.get("hub_id")
    places = [name, str(folder.parent / name)] if name else []
    for place in [*places, *([str(hub_id)] if hub_id else [])]:
        wanted = config.model_copy(update={"name": place, "revision": origin.get("revision")})
        try:
            found = resolve_encoder(wanted)
        except EncoderError:
            continue
        # The path of a deleted folder can look like the name of an unrelated Hub repository.
        if found.kind != "hub" or hub_id:
            return wanted
    return None


def train_chain(
    recipe: Recipe,
    seeds: Sequence[int],
    spaces: Mapping[int, Workspace],
    folder: Path,
    console: Console,
    *,
    one_first: Callable[[], AbstractContextManager[Any]],
) -> Chain:
    """Run the same recipe from the encoder that each link of the chain started from.

    Args:
        recipe: The run with all of its links.
        seeds: Training seeds.
        spaces: Data and tokenizer of each seed.
        folder: The run's folder.
        console: Where progress is shown.
        one_first: Lets the main process tokenize before the others.

    Returns:
        The chain. It ends at a link whose encoder cannot be trained, which the notes name.

    Raises:
        StorageError: The disk is full or failing.
    """
    links, notes = trace_chain(recipe.encoder)
    chain = Chain(notes=notes)
    for number, link in enumerate(links, 1):
        changed = recipe.model_copy(update={"encoder": link.without})
        console.print(f"without the link {link.name}: from {link.without.name}", highlight=False, markup=False)
        try:
            with one_first():
                without = {id(space): _prepare(space, link.without, recipe) for space in spaces.values()}
            results = [
                train_seed(
                    changed,
                    seed,
                    without[id(spaces[seed])],
                    folder / CONTROLS_FOLDER / f"without-link-{number}" / f"seed-{seed}",
                    console,
                )
                for seed in seeds
            ]
        except (EncoderError, RecipeError, DivergedError) as error:
            chain.notes.append(f"{link.name}: the run without this link failed, so the link is not judged: {error}")
            break
        chain.links.append(link)
        chain.results.append(results)
        chain.sources.append(next(iter(without.values())).source)
    return chain


def _prepare(space: Workspace, encoder: EncoderConfig, recipe: Recipe) -> Workspace:
    """The same rows, tokenized for another encoder, with the same hooks."""
    opened = open_encoder(encoder)
    tokenizer, max_length = opened.tokenizer, choose_length(recipe, opened, space.max_length)
    # Tokenizing fills in facts; the copy keeps the facts of the run itself unchanged.
    splits = replace(space.splits, facts=copy.deepcopy(space.splits.facts))
    prepared = encode_splits(splits, tokenizer, recipe.data.model_copy(update={"max_length": max_length}))
    return Workspace(splits, prepared, tokenizer, opened.source, max_length, space.console, space.watch)
