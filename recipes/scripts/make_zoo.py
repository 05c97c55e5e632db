"""Make a zoo of encoders from one, offline: what `rank` can be tried on.

    python recipes/scripts/make_zoo.py zoo --tune sets/ag_news --tune sets/sst2

Every member is a plain transformers folder with its tokenizer: the encoder cut to its first 1, 2, ... layers; the
encoder with its last layers drawn anew, or those in its middle; the encoder fine-tuned on another task, for each folder
given with --tune, with the head of that task; and one with random weights. What is there already is not made again.
"""

import argparse
import shutil
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

import nlp_transfer as nt
from nlp_transfer.contracts import LabelSpace
from nlp_transfer.models.encoder import load_encoder, load_tokenizer, quiet_loading
from nlp_transfer.models.heads import draw_anew
from nlp_transfer.models.layers import find_parts, keep_layers
from nlp_transfer.models.resolve import resolve_encoder
from nlp_transfer.recipe.schema import EncoderConfig

NO_LABELS = LabelSpace("classification", ("a", "b"))
"""A head is needed to load a classifier; none of it is saved."""


def save_member(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, place: Path) -> None:
    """Save the encoder under a classifier's head, whole or not at all."""
    aside = place.with_name(f".{place.name}.writing")
    shutil.rmtree(aside, ignore_errors=True)
    with quiet_loading():
        getattr(model, model.base_model_prefix).save_pretrained(aside)
    tokenizer.save_pretrained(aside)
    aside.rename(place)


def list_changes(num_layers: int) -> dict[str, tuple[int, list[int]]]:
    """Name every member that is made without training: layers kept from the bottom, and which are drawn anew."""
    members = {f"layers-{count}": (count, list[int]()) for count in range(1, num_layers + 1)}
    for count in range(1, num_layers // 2 + 1):
        members[f"anew-last-{count}"] = (num_layers, list(range(num_layers - count, num_layers)))
    members["anew-middle"] = (num_layers, [num_layers // 2 - 1] if num_layers > 1 else [0])
    return members


def tune(encoder: str, data: Path, options: argparse.Namespace, place: Path) -> None:
    """Fine-tune the encoder on another task, and keep what plain transformers reads."""
    work = place.with_name(f".{place.name}.run")
    chosen = {"data.limit": options.limit, "training.epochs": options.epochs, "training.seed": options.seed}
    overrides = [*(f"{key}={value}" for key, value in chosen.items()), *options.set]
    report = nt.run({"encoder": {"name": encoder}, "data": {"path": str(data)}}, overrides, output_dir=work)
    aside = place.with_name(f".{place.name}.writing")
    shutil.rmtree(aside, ignore_errors=True)
    # Our own notes are left out, so that the member is what any other tool would have saved.
    shutil.copytree(report.model_path, aside, ignore=shutil.ignore_patterns("nlp_transfer.json", "README.md"))
    aside.rename(place)
    shutil.rmtree(report.folder)


def main() -> int:
    """Make every member that is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the zoo")
    parser.add_argument("--encoder", default="minilm-l6", help="what they are made of")
    parser.add_argument("--tune", type=Path, action="append", default=[], help="folder of splits; several times")
    parser.add_argument("--limit", type=int, default=4000, help="train rows of such a task")
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], help="recipe key of --tune, training.learning_rate=1e-4")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    config = EncoderConfig(name=options.encoder)
    tokenizer = load_tokenizer(resolve_encoder(config))
    num_layers = int(load_encoder(config, NO_LABELS, seed=options.seed).model.config.num_hidden_layers)
    members = list_changes(num_layers)
    for name, (kept, anew) in members.items():
        place = options.out / name
        if not place.is_dir():
            model = load_encoder(config, NO_LABELS, seed=options.seed).model
            for layer in anew:
                draw_anew(model, find_parts(model).layers[layer])
            keep_layers(model, list(range(1, kept + 1)))
            save_member(model, tokenizer, place)
            print(f"made {place}", flush=True)
    if not (options.out / "random").is_dir():
        blank = config.model_copy(update={"init": "random"})
        save_member(load_encoder(blank, NO_LABELS, seed=options.seed).model, tokenizer, options.out / "random")
        print(f"made {options.out / 'random'}", flush=True)
    for data in options.tune:
        place = options.out / f"tuned-{data.name}"
        if not place.is_dir():
            tune(options.encoder, data, options, place)
            print(f"made {place}", flush=True)
    print(f"{len(members) + 1 + len(options.tune)} members in {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
