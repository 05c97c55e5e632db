"""Push and load through the real Hub client, over HTTP, against a Hub in this process: what works, and what fails."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard

from nlp_transfer.models.artifacts import load_artifact
from nlp_transfer.runs.pipeline import run
from tests.hub_client import TOKEN, HubClient, HubOutcome
from tests.hub_server import FakeHub, Fault
from tests.records import rewrite_record
from tests.tiny import make_splits

pytestmark = pytest.mark.xdist_group("hub")
"""One Hub and one client serve all of it."""

TEXTS = ["A superb and lovely hotel.", "awful, cold, rude", "the room"]
BASE = "someone/tiny-bert"
NAMES = ["it's", "good"]
PLAIN = "from transformers import AutoModelForSequenceClassification\n"
PLAIN += "model = AutoModelForSequenceClassification.from_pretrained({repo!r})"

STRANGER = """
import json, sys, torch
from transformers import AutoTokenizer
{load}
inputs = AutoTokenizer.from_pretrained({repo!r})({texts!r}, padding=True, return_tensors="pt")
with torch.no_grad():
    logits = model.eval()(**inputs).logits
print(json.dumps([logits.tolist(), [model.config.id2label[i] for i in range(2)]]))
assert not [name for name in sys.modules if name.startswith("nlp_transfer")]
"""


@pytest.fixture(scope="module")
def hub(tiny_encoder: Callable[..., Path]) -> Iterator[FakeHub]:
    """A Hub that has the encoder."""
    with FakeHub() as started:
        started.put(BASE, {path.name: path.read_bytes() for path in tiny_encoder("bert").iterdir() if path.is_file()})
        yield started


@pytest.fixture(scope="module")
def client(hub: FakeHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubClient]:
    with HubClient(hub.url, tmp_path_factory.mktemp("client")) as started:
        yield started


@pytest.fixture(scope="module")
def stranger(hub: FakeHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubClient]:
    with HubClient(hub.url, tmp_path_factory.mktemp("stranger"), path="") as started:
        yield started


@pytest.fixture(scope="module")
def runs(tiny_encoder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of which one leaves a plain model, one an adapter, one a form of its own; their encoder is on the Hub."""
    place = tmp_path_factory.mktemp("runs")
    for kind in ("full", "lora", "features"):
        run(
            {
                "encoder": {"name": str(tiny_encoder("bert"))},
                "strategy": {"kind": kind},
                "training": {"max_steps": 2, "batch_size": 8, "device": "cpu"},
                "evaluation": {"resamples": 100, "tfidf": False},
                "data": {"max_length": 48},
            },
            data=make_splits(24, 2, names=NAMES).tables,
            output_dir=place / kind,
        )
        # As if its encoder had come as the embedded one does: a folder here whose Hub id is known.
        path = place / kind / "model" / "nlp_transfer.json"
        metadata = json.loads(path.read_text(encoding="utf-8"))
        metadata["encoder"]["hub_id"] = BASE
        if "architecture" in metadata:
            metadata["architecture"]["encoder"]["hub_id"] = BASE
        rewrite_record(path, **metadata)
        (place / kind / "model" / "predictions.parquet").write_bytes(b"PAR1")
        (place / kind / "model" / "checkpoints").mkdir()
        (place / kind / "model" / "checkpoints" / "step-1.safetensors").write_bytes(b"x")
    return {kind: place / kind for kind in ("full", "lora", "features")}


@pytest.fixture(autouse=True)
def clean(hub: FakeHub) -> None:
    hub.reset()


def get_logits(folder: Path) -> torch.Tensor:
    artifact = load_artifact(folder)
    with torch.no_grad():
        return artifact.model(**artifact.tokenizer(TEXTS, padding=True, return_tensors="pt")).logits


def ask_stranger(stranger: HubClient, repo: str, load: str) -> tuple[torch.Tensor, list[str]]:
    outcome = stranger.run(STRANGER.format(load=load.format(repo=repo), repo=repo, texts=TEXTS))
    assert outcome.status == 0, outcome.err
    logits, names = json.loads(outcome.out.splitlines()[-1])
    return torch.tensor(logits), names


def read_call(hub: FakeHub, repo: str) -> str:
    """The Python of a pushed card that ends in a model."""
    blocks = re.findall(r"```python\n(.*?)```", hub.repos[repo].files["README.md"].decode(), flags=re.DOTALL)
    return next(block for block in blocks if "model = " in block)


def test_a_plain_model_is_pushed_whole_and_loads_elsewhere_to_the_same_logits(hub, client, stranger, runs):
    outcome = client.call("push", runs["full"], "me/full", "--private")
    assert outcome.status == 0, outcome.err
    repo = hub.repos["me/full"]
    assert repo.private
    assert len(repo.commits) == 2
    assert f"pushed to {hub.url}/me/full, commit {repo.branches['main']}" in outcome.out
    assert "stays here: checkpoints, predictions.parquet" in outcome.out
    folder = runs["full"] / "model"
    assert set(repo.files) == {path.name for path in folder.iterdir()} - {"checkpoints", "predictions.parquet"}
    for name, content in repo.files.items():
        assert f"{name} " in outcome.out
        assert f"{len(content):,}" in outcome.out
        assert str(folder.parent).encode() not in content, name
        assert TOKEN.encode() not in content
    assert repo.files["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    logits, names = ask_stranger(stranger, "me/full", PLAIN)
    assert torch.equal(logits, get_logits(folder))
    assert names == NAMES
    card = ModelCard(repo.files["README.md"].decode())
    assert card.data.library_name == "transformers"
    assert "'me/full'" in read_call(hub, "me/full")


def test_an_adapter_names_its_base_on_the_hub_and_loads_elsewhere_to_the_same_logits(hub, client, stranger, runs):
    outcome = client.call("push", runs["lora"] / "model", "me/lora", "--adapter-only")
    assert outcome.status == 0, outcome.err
    settings = json.loads(hub.repos["me/lora"].files["adapter_config.json"])
    head = hub.repos[BASE].branches["main"]
    assert (settings["base_model_name_or_path"], settings["revision"]) == (BASE, head)
    assert f"its encoder: {BASE} at {head}" in outcome.out
    kept = json.loads((runs["lora"] / "model" / "adapter_config.json").read_text(encoding="utf-8"))
    assert kept["base_model_name_or_path"].startswith("/")
    call = read_call(hub, "me/lora")
    assert "AutoPeftModelForSequenceClassification.from_pretrained('me/lora'" in call
    logits, names = ask_stranger(stranger, "me/lora", call.replace("{", "{{").replace("}", "}}"))
    assert torch.equal(logits, get_logits(runs["lora"]))
    assert names == NAMES


def test_a_merged_adapter_loads_elsewhere_as_a_plain_model(hub, client, stranger, runs):
    outcome = client.call("push", runs["lora"], "me/merged", "--merged")
    assert outcome.status == 0, outcome.err
    assert "adapter_config.json" not in hub.repos["me/merged"].files
    assert "its encoder" not in outcome.out
    logits, names = ask_stranger(stranger, "me/merged", PLAIN)
    expected = get_logits(runs["lora"])
    assert torch.allclose(logits, expected, atol=1e-5)
    assert names == NAMES
    # Any other place to which the update was folded in and saved gives the very same.
    assert client.call("push", runs["lora"], "me/merged-again", "--merged").status == 0
    assert hub.repos["me/merged-again"].files["model.safetensors"] == hub.repos["me/merged"].files["model.safetensors"]


def test_classifier_loads_what_was_pushed_by_branch_and_pushes_from_python(hub, client, runs):
    script = f"""
import json
import nlp_transfer as nt
report = nt.Report.load({str(runs["features"])!r})
done = report.push_to_hub("me/own", revision="v2")
classifier = nt.Classifier.from_pretrained("me/own", revision="v2", device="cpu", precision="fp32")
again = nt.Classifier.from_pretrained({str(runs["full"])!r}).push_to_hub("me/from-python")
plain = nt.Classifier.from_pretrained("me/from-python", revision=again.commit, device="cpu", precision="fp32")
# What came from the Hub can go on to another name.
onward = plain.push_to_hub("me/onward")
print(json.dumps([done.is_changed, classifier.predict_proba({TEXTS!r}).tolist(),
                  plain.predict_proba({TEXTS!r}).tolist(), onward.is_changed]))
"""
    outcome = client.run(script)
    assert outcome.status == 0, outcome.err
    is_changed, own, plain, is_onward = json.loads(outcome.out.splitlines()[-1])
    assert (is_changed, is_onward) == (True, True)
    assert hub.repos["me/own"].files == {}
    from nlp_transfer import Classifier

    for found, kind in ((own, "features"), (plain, "full")):
        classifier = Classifier.from_pretrained(runs[kind], device="cpu", precision="fp32")
        assert found == classifier.predict_proba(TEXTS).tolist()
    encoder = json.loads(hub.repos["me/own"].commits[hub.repos["me/own"].branches["v2"]]["nlp_transfer.json"][0])
    assert encoder["architecture"]["encoder"]["location"] == BASE
    # Of the encoder there, only the weights are held to be the same.
    assert set(encoder["digests"]["encoder"]) == {"model.safetensors"}
    saved = (runs["full"] / "model" / "model.safetensors").read_bytes()
    assert hub.repos["me/onward"].files["model.safetensors"] == saved
    missing = client.run('import nlp_transfer as nt\nnt.Classifier.from_pretrained("me/onward", revision="v9")')
    assert "me/onward at v9" in missing.err


def test_pushing_again_sends_nothing_and_another_form_replaces_the_first_in_one_commit(hub, client, runs):
    assert client.call("push", runs["lora"], "me/again").status == 0
    repo = hub.repos["me/again"]
    hub.reset()
    outcome = client.call("push", runs["lora"], "me/again")
    assert outcome.status == 0, outcome.err
    assert "nothing was sent" in outcome.out
    assert (hub.count("/commit/"), hub.count("PUT"), len(repo.commits)) == (0, 0, 2)
    hub.put("me/again", {"notes.txt": b"mine"})
    assert client.call("push", runs["lora"], "me/again", "--merged").status == 0
    assert len(repo.commits) == 4
    assert "adapter_config.json" not in repo.files
    assert "adapter_model.safetensors" not in repo.files
    assert {"model.safetensors", "config.json", "notes.txt"} <= set(repo.files)


def test_a_dry_run_says_what_the_push_then_does_and_asks_for_nothing_to_be_written(hub, client, runs):
    dry = client.call("push", runs["lora"], "me/dry", "--dry-run")
    assert dry.status == 0, dry.err
    assert hub.count("POST|PUT") == 0
    assert hub.count("GET") > 0
    assert "me/dry" not in hub.repos
    done = client.call("push", runs["lora"], "me/dry")
    assert done.out.splitlines()[:-1] == dry.out.splitlines()[:-1]
    assert "nothing was sent" in dry.out.splitlines()[-1]


@pytest.mark.parametrize("is_dry", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_offline_is_said_at_once_and_still_plans(is_dry, hub, runs, tmp_path):
    with HubClient(hub.url, tmp_path / "cache", offline=True) as offline:
        outcome = offline.call("push", runs["lora"], "me/offline", *(["--dry-run"] if is_dry else []))
    assert hub.requests == []
    assert outcome.status == (0 if is_dry else 2)
    assert is_dry or "HF_HUB_OFFLINE is set" in outcome.err
    assert not is_dry or f"its encoder: {BASE}, at its newest revision" in outcome.out


Snapshot = dict[str, Any]


def take_snapshot(hub: FakeHub, repo: str) -> Snapshot | None:
    held = hub.repos.get(repo)
    return held and {"branches": dict(held.branches), "files": held.files}


FAILURES: dict[str, tuple[list[Fault], int, str]] = {
    # Name: what goes wrong; exit status; what is said. Where 0, the push succeeds after further tries.
    "401 at the start": ([Fault("POST /api/repos/create", 401), Fault("GET /api/models/me", 401)], 2, "hf auth login"),
    "401 at the commit": ([Fault("/commit/", 401)], 2, "status 401"),
    "403 at the start": (
        [Fault("POST /api/repos/create", 403), Fault("GET /api/models/me", 403)],
        2,
        "no write access",
    ),
    "403 before the upload": ([Fault("preupload", 403)], 2, "no write access to me"),
    "403 at the commit": ([Fault("/commit/", 403)], 2, "no write access to me"),
    "404 before the upload": ([Fault("preupload", 404)], 2, "no such repository"),
    "409 at the commit": ([Fault("/commit/", 409)], 2, "somebody else changed"),
    "412 at the commit": ([Fault("/commit/", 412)], 2, "somebody else changed"),
    "400 at the commit": ([Fault("/commit/", 400)], 2, "planted 400"),
    "422 at the upload": ([Fault("PUT /objects", 422)], 2, "refuses"),
    "429 once": ([Fault("/commit/", 429, 1)], 0, "too many requests"),
    "429 forever": ([Fault("/commit/", 429)], 1, "too many requests"),
    "429 forever at the batch": ([Fault("batch", 429)], 1, "too many requests"),
    "500 once": ([Fault("/commit/", 500, 1)], 0, "the Hub has trouble"),
    "500 forever at the commit": ([Fault("/commit/", 500)], 1, "the Hub has trouble"),
    "500 forever at the start": ([Fault("POST /api/repos/create", 500)], 1, "the Hub has trouble"),
    "503 forever at the upload": ([Fault("PUT /objects", 503)], 1, "the Hub has trouble"),
    "500 as a page": ([Fault("validate-yaml", "page")], 1, "no JSON"),
    "500 as a page once": ([Fault("validate-yaml", "page", 1)], 0, "no JSON"),
    "dropped at the start once": ([Fault("POST /api/repos/create", "drop", 1)], 0, "connection"),
    "dropped at the start": ([Fault("POST /api/repos/create", "drop")], 1, "connection"),
    "dropped in the middle of the upload once": ([Fault("PUT /objects", "drop", 1)], 0, ""),
    "dropped in the middle of the upload": ([Fault("PUT /objects", "drop")], 1, "connection"),
    "dropped in the middle of the commit once": ([Fault("/commit/", "drop", 1)], 0, "connection"),
    "dropped in the middle of the commit": ([Fault("/commit/", "drop")], 1, "connection"),
    "dropped after the commit": ([Fault("/commit/", "late", 1)], 0, "connection"),
    "wrong hash": ([Fault("PUT /objects", "corrupt")], 2, "sha256"),
    "upload lost before it is verified": ([Fault("POST /verify", 404)], 2, "status 404"),
}

SOME = [
    "401 at the commit",
    "403 at the start",
    "409 at the commit",
    "429 once",
    "500 forever at the commit",
    "dropped in the middle of the upload once",
    "dropped in the middle of the commit",
    "wrong hash",
]
"""One of each kind, for the default run."""


def check_failure(outcome: HubOutcome, name: str) -> None:
    _, status, words = FAILURES[name]
    assert outcome.status == status, (name, outcome.err)
    assert words in " ".join(outcome.err.split()), (name, outcome.err)
    assert "Traceback" not in outcome.err
    assert TOKEN not in outcome.err + outcome.out
    assert sum(outcome.slept) < 1500, name


@pytest.mark.parametrize(
    ("state", "names"),
    [
        ("held", SOME),
        *(pytest.param(state, list(FAILURES), marks=pytest.mark.slow) for state in ("new", "held")),
    ],
    ids=["held, some", "new", "held"],
)
def test_every_failure_is_told_and_leaves_the_repository_complete_or_untouched(
    state, names, hub, client, runs, tmp_path
):
    shutil.copytree(runs["full"] / "model", tmp_path / "model")
    hub.reset()
    assert client.call("push", tmp_path / "model", f"me/{state}-whole").status == 0
    whole = hub.repos[f"me/{state}-whole"].files.keys()
    counts = {"complete": 0, "untouched": 0}
    for number, name in enumerate(names):
        repo = f"me/{state}-{len(names)}-{number}"
        if state == "held":
            # Of an earlier push; the weights differ, so that there is something to send.
            hub.put(repo, {"nlp_transfer.json": b"{}", "model.safetensors": b"old", "vocab.json": b"{}"})
        before = take_snapshot(hub, repo)
        # What an earlier case uploaded is not sent again.
        hub.objects.clear()
        hub.reset(*(Fault(fault.where, fault.what, fault.times) for fault in FAILURES[name][0]))
        outcome = client.call("push", tmp_path / "model", repo)
        check_failure(outcome, name)
        now = take_snapshot(hub, repo)
        if outcome.status == 0:
            assert now is not None
            assert now["files"].keys() == whole, name
            weights = (tmp_path / "model" / "model.safetensors").read_bytes()
            assert now["files"]["model.safetensors"] == weights, name
            assert len(hub.repos[repo].commits) == (3 if state == "held" else 2), name
            counts["complete"] += 1
        else:
            assert now == before or (before is None and now is not None and now["files"] == {}), name
            counts["untouched"] += 1
            # Started again when the trouble is over, it goes on.
            hub.reset()
            assert client.call("push", tmp_path / "model", repo).status == 0, name
    assert counts["complete"] + counts["untouched"] == len(names)
    assert min(counts.values()) > 0
    assert len(names) < len(FAILURES) or counts == {"complete": 7, "untouched": 21}


def test_a_push_that_broke_off_sends_only_what_is_not_there_yet(hub, client, runs):
    hub.objects.clear()
    hub.reset(Fault("/commit/", 403))
    assert client.call("push", runs["full"], "me/resumed").status == 2
    assert hub.count("PUT /objects") == 1
    hub.reset()
    assert client.call("push", runs["full"], "me/resumed").status == 0
    assert (hub.count("PUT /objects"), hub.count("/commit/")) == (0, 1)


def test_what_somebody_else_writes_meanwhile_is_not_overwritten(hub, client, runs):
    assert client.call("push", runs["full"], "me/shared").status == 0
    hub.put("me/shared", {"README.md": b"theirs", "model.safetensors": b"older"})
    hub.before_commit = lambda: hub.put("me/shared", {"README.md": b"theirs, newer"}) and None
    outcome = client.call("push", runs["full"], "me/shared")
    assert outcome.status == 2
    assert "somebody else changed the repository" in outcome.err
    assert hub.repos["me/shared"].files["README.md"] == b"theirs, newer"


def test_retries_are_bounded_and_wait_as_long_as_the_hub_asks(hub, client, runs):
    hub.reset(Fault("/commit/", 500))
    outcome = client.call("push", runs["full"], "me/bounded")
    assert outcome.status == 1
    assert hub.count("/commit/") == 4
    assert [pause for pause in outcome.slept if pause >= 2] == [2.0, 10.0, 30.0]


REFUSED: dict[str, tuple[tuple[object, ...], str]] = {
    "no owner": (("full", "name"), "expected OWNER/NAME"),
    "a path for a name": (("full", "../../etc"), "expected OWNER/NAME"),
    "two slashes": (("full", "a/b/c"), "expected OWNER/NAME"),
    "a dot too many": (("full", "me/a..b"), "expected OWNER/NAME"),
    "a branch that climbs": (("full", "me/x", "--revision", "../main"), "--revision"),
    "an adapter asked of a plain model": (("full", "me/x", "--adapter-only"), "--adapter-only"),
    "a plain model to merge": (("full", "me/x", "--merged"), "--merged"),
    "both at once": (("lora", "me/x", "--merged", "--adapter-only"), "one of the two"),
    "another's repository": (("full", "them/model"), "did not push"),
}


def test_what_cannot_be_is_refused_and_nothing_is_written(hub, client, runs):
    hub.put("them/model", {"config.json": b"{}", "pytorch_model.safetensors": b"theirs"})
    hub.reset()
    for name, ((kind, *rest), words) in REFUSED.items():
        outcome = client.call("push", runs[str(kind)], *rest)
        assert outcome.status == 2, (name, outcome)
        assert words in outcome.err, (name, outcome.err)
    assert len(REFUSED) == 9
    assert hub.count("PUT|/commit/") == 0


def test_an_adapter_whose_base_the_hub_lacks_or_has_otherwise_is_refused(hub, client, runs, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(runs["lora"] / "model", folder)
    path = folder / "nlp_transfer.json"
    metadata = json.loads(path.read_text(encoding="utf-8"))
    hub.put("someone/other", {"model.safetensors": b"other weights"})
    cases = {None: "on this machine only", "someone/gone": "no such repository", "someone/other": "differ from those"}
    for hub_id, words in cases.items():
        rewrite_record(path, encoder=metadata["encoder"] | {"hub_id": hub_id})
        outcome = client.call("push", folder, "me/baseless")
        assert outcome.status == 2, outcome
        assert words in outcome.err, outcome.err
    assert "me/baseless" not in hub.repos
