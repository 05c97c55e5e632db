"""What is slow to import waits until it is needed."""

from tests.test_architecture import run_python

LATER = ("peft", "bitsandbytes", "sklearn", "scipy.stats", "matplotlib", "evaluate", "transformers.pipelines")
"""What neither the first training step nor the first prediction needs, and is slow to import."""

LIST = f"print('later:', [name for name in {LATER!r} if name in sys.modules])"

TRAIN = f"""
import sys
from torch.optim.optimizer import register_optimizer_step_post_hook
import nlp_transfer
def look(*_):
    {LIST}
    hook.remove()
hook = register_optimizer_step_post_hook(look)
quick = ["encoder.name=" + sys.argv[1], "training.max_steps=1", "training.precision=fp32"]
nlp_transfer.run("quickstart", quick, output_dir=sys.argv[2], progress=False)
{LIST}
"""
PREDICT = f"""
import sys
import nlp_transfer
print(nlp_transfer.Classifier.from_pretrained(sys.argv[1]).predict(["a joy to watch"]))
{LIST}
"""


def test_the_first_step_and_the_first_prediction_wait_for_nothing_they_do_not_need(tmp_path, tiny_encoder):
    done = run_python(TRAIN, str(tiny_encoder("bert")), str(tmp_path / "run"))
    assert done.status == 0, done.err
    at_first_step, at_end = done.out.strip().splitlines()
    assert at_first_step == "later: []"
    # The rest of the run does need some of them, so that the list would show what was imported.
    assert "'evaluate'" in at_end
    done = run_python(PREDICT, str(tmp_path / "run" / "model"))
    assert done.status == 0, done.err
    assert done.out.strip().endswith("later: []")
