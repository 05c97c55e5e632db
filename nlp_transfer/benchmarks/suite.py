"""What a suite holds: jobs, and the contenders that do each of them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from nlp_transfer.errors import RecipeError
from nlp_transfer.recipe.fields import suggest_nearest
from nlp_transfer.recipe.section import PositiveInt, Section
from nlp_transfer.recipe.shipped import locate_shipped, read_recipe_file
from nlp_transfer.recipe.yaml12 import parse_yaml

__all__ = ["Contender", "Job", "Suite", "list_suites", "load_suite", "narrow_suite"]


class Contender(Section):
    """One way to do a job: a recipe or the classifier of this package, or the script of a peer."""

    recipe: str | None = Field(None, description="Shipped recipe or file.")
    overrides: list[str] = Field(default_factory=list, description="Dotted keys of the recipe, such as data.shots=8.")
    predictor: Literal["classifier"] | None = Field(None, description="Predicts with the job's model.")
    peer: Literal["setfit", "trainer", "pipeline"] | None = Field(None, description="Another library.")
    arguments: list[str] = Field(default_factory=list, description="Options of the peer's or the predictor's script.")
    processes: PositiveInt = Field(1, description="Processes that train together on the CPU, by accelerate launch.")
    size: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Where the contender stands on its job's axis, in a suite about sizes."
    )
    after: str | None = Field(
        None, description="Contender whose artefact of the same round takes the place of {after} in the overrides."
    )

    @model_validator(mode="after")
    def _is_one_thing(self) -> "Contender":
        """A contender is ours or another's."""
        if sum(each is not None for each in (self.recipe, self.predictor, self.peer)) != 1:
            raise ValueError("expected one of recipe, predictor and peer")
        return self

    @property
    def predicts(self) -> bool:
        """Whether it trains nothing, but needs the job's model."""
        return self.predictor is not None or self.peer == "pipeline"


class Job(Section):
    """The same rows for everyone."""

    data: str = Field(min_length=1, description="Folder of splits under --data.")
    rows: dict[Literal["validation", "test"], PositiveInt] = Field(
        default_factory=dict, description="First N rows of split.shuffle(seed=0); all of a split that is not named."
    )
    overrides: list[str] = Field(default_factory=list, description="Added for every recipe.")
    arguments: list[str] = Field(default_factory=list, description="Added for every peer.")
    model: Contender | None = Field(None, description="Trained once, with seed 0, for those that predict.")
    changes: dict[str, Contender] = Field(
        default_factory=dict, description="Contenders that are another recipe on this job, by their names."
    )
    skip: list[str] = Field(default_factory=list, description="Contenders that do not do this job.")


class Suite(Section):
    """Jobs and contenders; the first contender is what the others are held against."""

    description: str = Field(min_length=1)
    rounds: PositiveInt = Field(5, description="How often everything is run; round r is run with seed r.")
    contenders: dict[str, Contender] = Field(min_length=1)
    jobs: dict[str, Job] = Field(min_length=1)

    @model_validator(mode="after")
    def _knows_its_names(self) -> "Suite":
        """What a job says, it says of contenders there are."""
        for name, job in self.jobs.items():
            for other in (*job.changes, *job.skip):
                if other not in self.contenders:
                    raise ValueError(f"{other}: no contender, but job {name} names it")
            for other in self.contenders:
                if other not in job.skip and self.find(name, other).predicts and job.model is None:
                    raise ValueError(f"{other}: predicts, but job {name} has no model")
        names = list(self.contenders)
        for place, (name, contender) in enumerate(self.contenders.items()):
            if contender.after is not None and contender.after not in names[:place]:
                raise ValueError(f"{name}: expected after to name a contender that stands before it")
        return self

    def find(self, job: str, contender: str) -> Contender:
        """The contender as it does one job, the job's own options added."""
        held = self.jobs[job]
        own = held.changes.get(contender, self.contenders[contender])
        return own.model_copy(
            update={
                "overrides": [*held.overrides, *own.overrides],
                "arguments": [*held.arguments, *own.arguments],
            }
        )


def list_suites() -> list[str]:
    """Name the suites that come with the package.

    Example:
        >>> "few_shot_cpu" in list_suites()
        True
    """
    return sorted(path.stem for path in (locate_shipped() / "benchmarks").glob("*.yaml"))


def load_suite(name: str) -> Suite:
    """Read and check a suite.

    Args:
        name: Of a shipped suite, or a file that ends in ``.yaml``.

    Returns:
        The suite.

    Raises:
        RecipeError: There is no such suite, or it does not fit.

    Example:
        >>> list(load_suite("few_shot_cpu").contenders)
        ['few_shot', 'setfit']
    """
    known = list_suites()
    path = locate_shipped() / "benchmarks" / f"{name}.yaml" if name in known else Path(name).expanduser()
    if name not in known and not path.is_file():
        raise RecipeError(f'suite "{name}": no such suite. There are {", ".join(known)}.{suggest_nearest(name, known)}')
    content: Any = parse_yaml(read_recipe_file(path), source=name)
    if not isinstance(content, dict):
        raise RecipeError(["expected description, contenders and jobs."], source=name)
    try:
        return Suite.model_validate(content)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, each['loc'])) or 'suite'}: {each['msg']}." for each in error.errors()]
        raise RecipeError(problems, source=name) from None


def narrow_suite(suite: Suite, *, jobs: Iterable[str] | None = None, contenders: Iterable[str] | None = None) -> Suite:
    """Keep some jobs and contenders of a suite.

    Args:
        suite: The whole.
        jobs: Names to keep; all where absent.
        contenders: Names to keep; all where absent. The first of the suite is what is compared with if it is kept.

    Returns:
        A smaller suite, in the order of the whole.

    Raises:
        RecipeError: A name is not in the suite.
    """
    kept: dict[str, dict[str, Any]] = {}
    for option, names, there in (("--job", jobs, suite.jobs), ("--contender", contenders, suite.contenders)):
        wanted = list(there) if names is None else list(names)
        for name in wanted:
            if name not in there:
                raise RecipeError(f"{option} {name}: the suite has {', '.join(there)}.{suggest_nearest(name, there)}")
        kept[option] = {name: held for name, held in there.items() if name in wanted}
    return suite.model_copy(update={"jobs": kept["--job"], "contenders": kept["--contender"]})
