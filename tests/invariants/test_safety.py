"""Hostile inputs: none runs code, leaves its folder, speaks in a page, or takes a secret along; all are counted."""

import csv
import gzip
import io
import json
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from nlp_transfer.data.exchange import write_table
from nlp_transfer.publishing.card import render_card
from nlp_transfer.publishing.report.page import render_page
from nlp_transfer.runs.pipeline import run
from tests.bad_inputs import Case, call_cli, check_counted, check_refused, make_csv, make_rows, make_run, write
from tests.cards import check_card
from tests.records import unseal
from tests.tiny import make_splits
from tests.unit.publishing.conftest import make_run as make_record

RAN = "code-ran"
"""Folder that code of a hostile input would leave in the current one."""

RUN = make_run("d.csv")
PREDICT = ["predict", "model", "d.csv"]
PUSH = ["push", "model", "owner/name", "--dry-run"]

Maker = Callable[[Path], None]


class Payload:
    """What runs when a pickle is loaded."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (RAN,)


EVIL = pickle.dumps(Payload())
CODE = f'import os\nos.mkdir("{RAN}")\n'


def swap(old: str, new: str, content: bytes = EVIL) -> Maker:
    """A function that puts a file in the place of another."""

    def swap_in(folder: Path) -> None:
        (folder / old).unlink()
        write(new, content)(folder)

    return swap_in


def change(name: str, **values: object) -> Maker:
    """A function that changes keys of a JSON file."""

    def change_in(folder: Path) -> None:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        (folder / name).write_text(json.dumps(content | values), encoding="utf-8")

    return change_in


def link(name: str, target: str) -> Maker:
    """A function that puts a link in the place of a file."""

    def link_in(folder: Path) -> None:
        (folder / "outside").mkdir(exist_ok=True)
        write("outside/secret.json", '{"secret": "of another folder"}')(folder)
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target if target.startswith("/") else folder / target)

    return link_in


def both(*makers: Maker) -> Maker:
    """A function that does several things."""
    return lambda folder: [maker(folder) for maker in makers] and None


def bring_code(place: str, architecture: str) -> Maker:
    """A function that makes a folder ask for code of its own."""
    auto = {"AutoConfig": "evil.C", "AutoModel": "evil.M", "AutoModelForSequenceClassification": "evil.M"}
    return both(write(f"{place}/evil.py", CODE), change(f"{place}/config.json", model_type=architecture, auto_map=auto))


def lie(length: int, header: bytes, rest: bytes = b"") -> bytes:
    """A file of weights with a header of our choice."""
    return struct.pack("<Q", length) + header + rest


def claim(**tensors: object) -> bytes:
    """A file of weights whose header claims tensors, with eight bytes of them."""
    header = json.dumps(tensors).encode()
    return lie(len(header), header, b"\0" * 8)


def make_parquet_bomb(folder: Path) -> None:
    """80 GB of text in a few kilobytes."""
    ids = pa.array(np.zeros(20_000, dtype=np.int32))
    texts = pa.DictionaryArray.from_arrays(ids, pa.array(["x" * (4 << 20)]))
    table = pa.table({"text": texts, "label": pa.array(["a", "b"] * 10_000)})
    pq.write_table(table, folder / "d.parquet", dictionary_pagesize_limit=1 << 30, compression="zstd")
    assert (folder / "d.parquet").stat().st_size < 1 << 20


def make_zip(folder: Path) -> None:
    """A table in an archive that grows a thousandfold."""
    with zipfile.ZipFile(folder / "data.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train.csv", "text,label\n" + "x" * (4 << 20))


def make_folder(name: str, content: bytes) -> Maker:
    """A data folder that holds one file."""
    return both(write(f"data/{name}", content))


GZIPPED = gzip.compress(b"text,label\n" + b"x,y\n" * 1_000_000)
LAUGHS = "a: &a [x,x,x]\nb: &b [*a,*a,*a]\nc: [*b,*b,*b]\n"
META = "model/nlp_transfer.json"
BASE_GONE = json.dumps({"peft_type": "LORA", "base_model_name_or_path": "evil", "task_type": "SEQ_CLS"})

PICKLES = [
    Case("an encoder that is a pickle", swap("encoder/model.safetensors", "encoder/pytorch_model.bin"), RUN,
         ("pickle", "save_pretrained")),
    Case("an encoder that is an older pickle", swap("encoder/model.safetensors", "encoder/model.bin"), RUN,
         ("pickle", "save_pretrained")),
    Case("a pickle by the name of safetensors", swap("encoder/model.safetensors", "encoder/model.safetensors"), RUN,
         ("encoder.name", "again")),
    Case("an artefact that is a pickle", swap("model/model.safetensors", "model/pytorch_model.bin"), PREDICT,
         ("Pickled weights are refused", "convert")),
    Case("an artefact's pickle by the name of safetensors", swap("model/model.safetensors", "model/model.safetensors"),
         PREDICT, ("model", "again")),
    Case("an adapter that is a pickle",
         both(swap("model/model.safetensors", "model/adapter_model.bin"),
              write("model/adapter_config.json", BASE_GONE)),
         PREDICT, ("Pickled weights are refused", "convert")),
    Case("an adapter on an encoder that is a pickle",
         both(write("evil/pytorch_model.bin", EVIL), write("evil/config.json", "{}"),
              write("model/adapter_config.json", BASE_GONE),
              lambda folder: shutil.copy(folder / "model/model.safetensors", folder / "model/adapter_model.safetensors")
              and None), PREDICT, ("the adapter's base is missing", "pickle")),
    Case("an own form that is a pickle",
         both(change(META, loader="nlp_transfer", architecture={"kind": "vectors", "settings": {}, "encoder": {}}),
              write("model/own.bin", EVIL)), PREDICT, ("own.safetensors", "Pickled weights are refused")),
    Case("data that are a pickle", write("data.pkl", EVIL), make_run("data.pkl"),
         ("data.pkl", "A pickle runs code", ".csv")),
    Case("a folder of data that are pickles", make_folder("train.pkl", EVIL), make_run("data"), ("data", "train.csv")),
    Case("a script for data", make_folder("data.py", CODE.encode()), make_run("data"), ("data", "train.csv")),
]  # fmt: skip

OWN_CODE = [
    Case("an encoder with code of its own", bring_code("encoder", "own"), RUN,
         ("code from its repository", "encoder.trust_remote_code=true")),
    Case("an artefact with code of its own", bring_code("model", "own"), PREDICT, ("model", "train it again")),
    Case("code of its own to push", bring_code("model", "bert"), PUSH, ("evil.py", "move this file out")),
    Case("a config that asks for code, to push",
         change("model/config.json", auto_map={"AutoModel": "owner/evil--evil.M"}), PUSH,
         ("auto_map", "Remove the key")),
    Case("a tokenizer that asks for code, to push",
         change("model/tokenizer_config.json", auto_map={"AutoTokenizer": ["owner/evil--evil.T", None]}), PUSH,
         ("auto_map", "Remove the key")),
]  # fmt: skip

YAML = [
    Case(f"yaml: {name}", write("my.yaml", content), ["run", "my.yaml"], ("my.yaml", words))
    for name, content, words in (
        ("a call", f'data: !!python/object/apply:os.mkdir ["{RAN}"]\n', "not allowed"),
        ("a new object", "data: !!python/object/new:os.system [true]\n", "not allowed"),
        ("a name", "data: !!python/name:os.system\n", "not allowed"),
        ("a module", "data: !!python/module:os\n", "not allowed"),
        ("laughs", LAUGHS, "not allowed"),
        ("depth", "a: " + "[" * 5000 + "]" * 5000 + "\n", "levels deep"),
        ("size", "description: " + "x" * 2_000_000 + "\n", "characters"),
    )
] + [
    Case("yaml: a call on the command line", lambda _: None,
         [*RUN, f'data.text=!!python/object/apply:os.mkdir ["{RAN}"]'], ("data.text", "Name one of those")),
]  # fmt: skip

PLACES = [
    Case("a recipe's name that climbs", lambda _: None, ["copy", "../../cli", "x.yaml"], ("../../cli", "list")),
    Case("a repository's name that climbs", lambda _: None, ["push", "model", "../../x", "--dry-run"],
         ("'../../x'", "OWNER/NAME")),
    Case("a branch's name that climbs", lambda _: None, [*PUSH, "--revision", "../../x"], ("--revision", "another")),
    Case("an index that names files elsewhere",
         both(swap("model/model.safetensors", "outside/model.safetensors", b""), write("model/x.safetensors", claim()),
              write("model/model.safetensors.index.json",
                    json.dumps({"weight_map": {"w": "../outside/model.safetensors"}}))), PUSH,
         ("../outside/model.safetensors", "Copy it again")),
    Case("weights that are a link out of the folder", link("model/model.safetensors", "outside/secret.json"), PUSH,
         ("is a link to a file outside the folder", "Replace the link")),
    Case("a config that is a link out of the folder", link("model/config.json", "outside/secret.json"), PUSH,
         ("is a link to a file outside the folder", "Replace the link")),
    Case("a card that is a link to the system", link("model/README.md", "/etc/hosts"), PUSH,
         ("is a link to a file outside the folder", "Replace the link")),
    Case("a folder that is a link out of the folder", link("model/encoder", "outside"), PUSH,
         ("is a link to a file outside the folder", "Replace the link")),
    Case("a token in the card", write("model/README.md", "---\n---\nhf_" + "A" * 34), PUSH, ("a token", "Take it out")),
]  # fmt: skip

SIZES = [
    Case(f"weights: {name}", write("model/model.safetensors", content), PREDICT, ("model", "again"))
    for name, content in (
        ("a header longer than all memory", lie(2**63, b"{}")),
        ("a header longer than the file", lie(10**6, b"{}")),
        ("a tensor behind the end", claim(w={"dtype": "F32", "shape": [2], "data_offsets": [8, 16]})),
        ("a tensor that is larger than its bytes", claim(w={"dtype": "F32", "shape": [2**40], "data_offsets": [0, 8]})),
        ("tensors that overlap", claim(v={"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                                       w={"dtype": "F32", "shape": [2], "data_offsets": [0, 8]})),
        ("offsets before the start", claim(w={"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]})),
    )
] + [
    Case("settings nested without end", write(META, "[" * 200_000), PREDICT, (META, "again")),
    Case("a config nested without end", write("encoder/config.json", '{"a":' * 200_000), RUN, ("config.json", "again")),
    Case("rows nested without end", write("d.jsonl", '{"text":' * 200_000), make_run("d.jsonl"), ("d.jsonl", "line 1")),
]  # fmt: skip

BOMBS = [
    Case("a table that grows to 80 GB", make_parquet_bomb, make_run("d.parquet"), ("d.parquet", "in proportion")),
    Case("a zip archive", make_zip, make_run("data.zip"), ("data.zip", "Unpack it")),
    Case("a gzipped table", write("d.csv.gz", GZIPPED), make_run("d.csv.gz"), ("d.csv.gz", "two classes")),
    Case("a gzipped table by another name", write("d.csv", GZIPPED), RUN, ("d.csv", "a gzip file", "Name it d.csv.gz")),
    Case("a folder of gzipped tables", make_folder("train.csv.gz", GZIPPED), make_run("data"), ("data", "train.csv")),
]  # fmt: skip

CASES = [*PICKLES, *OWN_CODE, *YAML, *PLACES, *SIZES, *BOMBS]

FORMULAS = ("=1+1", "+1+cmd|' /C calc'!A0", "-1+1", "@SUM(1)", "\t=1", "\r=1", "\n=1", '=HYPERLINK("http://e.example")')

MARKUP = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    '"><iframe src="javascript:alert(1)"></iframe>',
    "</title></style></textarea><script>alert(1)</script>",
    "[click](javascript:alert(1))",
    "![pixel](http://evil.example/p.png)",
    "```\n</code></pre><script>alert(1)</script>\n```",
    "---\nlicense: evil\n---",
    "{{ 7 * 7 }}{% for x in y %}",
)

SECRETS = {
    "HF_TOKEN": "hf_plantedplantedplantedplantedplanted",
    "HUGGING_FACE_HUB_TOKEN": "hf_secondsecondsecondsecondsecondsec",
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "MLFLOW_TRACKING_PASSWORD": "planted-mlflow-password",
    "AWS_SECRET_ACCESS_KEY": "planted/aws/secret/access/key",
    "OPENAI_API_KEY": "sk-planted-planted-planted",
}


def test_at_least_forty_hostile_inputs_are_tried() -> None:
    assert len(CASES) + len(FORMULAS) + len(MARKUP) + len(SECRETS) >= 65
    assert len(CASES) >= 40


def test_every_hostile_input_has_its_test(request: pytest.FixtureRequest) -> None:
    check_counted(CASES, request, at_least=40)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Callable[..., Path]) -> Path:
    """A folder with an encoder, a table, and the artefact of a run."""
    folder = tmp_path_factory.mktemp("safety")
    report = run(
        {
            "encoder": {"name": str(tiny_encoder("bert"))},
            "training": {"max_steps": 1, "batch_size": 8, "device": "cpu"},
            "evaluation": {"resamples": 100, "tfidf": False},
            "data": {"max_length": 48},
        },
        data=make_splits(12, 2).tables,
        output_dir=folder / "run",
    )
    shutil.copytree(report.model_path, folder / "model")
    # Whoever means harm leaves the digests out, so the loaders must hold by themselves.
    unseal(folder / "model")
    shutil.copytree(tiny_encoder("bert"), folder / "encoder")
    write("d.csv", make_csv(make_rows()))(folder)
    return folder


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_hostile_input_is_refused_and_runs_nothing(
    case: Case, made: Path, work_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("model", "encoder"):
        shutil.copytree(made / name, work_dir / name)
    shutil.copy(made / "d.csv", work_dir)
    check_refused(case, work_dir, monkeypatch, capsys)
    assert not (work_dir / RAN).exists()


def test_the_payloads_would_run_and_the_artefact_is_accepted_as_it_is(
    made: Path, work_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the refusals are worth: the same inputs do harm elsewhere, and nothing is refused that is harmless."""
    pickle.loads(EVIL)
    assert (work_dir / RAN).exists()
    (work_dir / RAN).rmdir()
    exec(CODE)
    assert (work_dir / RAN).exists()
    shutil.copytree(made / "model", work_dir / "model")
    shutil.copy(made / "d.csv", work_dir)
    assert call_cli(PREDICT, monkeypatch, capsys).status == 0
    outcome = call_cli(PUSH, monkeypatch, capsys)
    assert outcome.status == 0, outcome
    assert "nothing was sent" in outcome.stdout


def test_no_cell_of_a_written_table_is_a_formula(tmp_path: Path) -> None:
    labels = [f"{formula}#" for formula in FORMULAS]
    table = Dataset.from_dict({"=text": list(FORMULAS), "predicted": labels, "n": [-1.5] * len(FORMULAS)})
    seen = 0
    for suffix, delimiter in ((".csv", ","), (".tsv", "\t")):
        write_table(table, tmp_path / f"o{suffix}", io.StringIO())
        with (tmp_path / f"o{suffix}").open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file, delimiter=delimiter))
        assert [row[2] for row in rows[1:]] == ["-1.5"] * len(FORMULAS)
        for cell in [rows[0][0], *(cell for row in rows[1:] for cell in row[:2])]:
            assert cell[0] == "'"
            seen += 1
    assert seen == 2 * (1 + 2 * len(FORMULAS))


class Page(HTMLParser):
    """Everything in a page that could act."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "iframe", "object", "embed", "form", "base", "link", "textarea"):
            self.found.append(tag)
        for name, value in attrs:
            is_place = name in ("href", "src", "action", "data", "xlink:href", "style")
            if name.startswith("on") or (is_place and re.match(r"\s*(javascript|https?):", value or "", re.I)):
                self.found.append(f"{tag} {name}={value}")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def list_actions(page: str) -> tuple[list[str], str]:
    reader = Page()
    reader.feed(page)
    return reader.found, "".join(reader.texts)


@pytest.mark.parametrize("payload", MARKUP)
def test_markup_in_texts_labels_and_names_stays_text(payload: str) -> None:
    record, predictions = make_record("classification", (payload, "b"), num=40)
    record["data"].update(source=payload, notes=[payload], warnings=[payload])
    record["recipe"]["report"]["title"] = payload
    record["recipe"]["description"] = payload
    predictions["text"] = payload
    plain, _ = list_actions(render_page(*make_record(num=40)))
    found, texts = list_actions(render_page(record, predictions))
    assert found == plain
    assert payload.split("\n", maxsplit=1)[0][:20] in texts
    card = render_card(record, format="transformers", kind="classification", labels=(payload, "b"))
    metadata = check_card(card)
    assert metadata["license"] == "apache-2.0"
    prose = re.sub(r"(`{3,})\w*\n.*?\n\1", "", card.partition("\n---\n")[2], flags=re.DOTALL)
    assert "<" not in prose
    assert not re.search(r"(?<!\\)\]\(", prose)
    assert "http://" not in prose


def test_markup_that_is_not_escaped_is_noticed() -> None:
    assert list_actions("<p onclick='x'><script>1</script><a href='javascript:1'>")[0] == [
        "p onclick=x",
        "script",
        "a href=javascript:1",
    ]


HOSTILE_LABELS = ("../../climbs", "=1+1", "<script>alert(1)</script>", "/etc/passwd", "a\\..\\b")

SECRET_RUN = """
import os, sys
import nlp_transfer as nt
nt.run(sys.argv[1], output_dir="run")
classifier = nt.Classifier.from_pretrained("run")
classifier.save_pretrained("copy")
"""


def test_a_run_leaves_no_secret_and_writes_nowhere_else_whatever_its_labels_are(
    work_dir: Path, tiny_encoder: Callable[..., Path]
) -> None:
    rows = make_rows(40, HOSTILE_LABELS)
    for split in ("train", "validation", "test"):
        frame = pd.DataFrame([(f"{split} {text}", label) for text, label in rows], columns=["text", "label"])
        (work_dir / "data").mkdir(exist_ok=True)
        frame.to_csv(work_dir / "data" / f"{split}.csv", index=False)
    recipe = {
        "encoder": {"name": str(tiny_encoder("bert"))},
        "data": {"path": "data", "max_length": 48},
        "training": {"max_steps": 2, "batch_size": 8, "device": "cpu", "checkpoint_every": 1},
        "evaluation": {"resamples": 100, "tfidf": False},
    }
    (work_dir / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    before = {path for path in work_dir.rglob("*") if path.is_file()}
    environment = os.environ | SECRETS | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", SECRET_RUN, "recipe.yaml"],
        env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    left = {path for path in work_dir.rglob("*") if path.is_file()} - before
    assert {path.relative_to(work_dir).parts[0] for path in left} == {"run", "copy"}
    assert len(left) >= 12
    contents = {path: path.read_bytes() for path in left}
    contents[Path("stdout")], contents[Path("stderr")] = done.stdout.encode(), done.stderr.encode()
    for name, secret in SECRETS.items():
        assert not [path for path, content in contents.items() if secret.encode() in content], name
    # The search would find one: the same bytes, planted.
    assert [path for path, content in contents.items() if b"climbs" in content]
    names = {path.name for path in left}
    assert not any("climbs" in name or "passwd" in name for name in names)
    found, _ = list_actions((work_dir / "run" / "report.html").read_text(encoding="utf-8"))
    plain, _ = list_actions(render_page(*make_record(num=40)))
    assert found == plain
