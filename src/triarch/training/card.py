"""The model card: README.md of a model's folder, as the hub reads it.

Mitchell et al. 2019, https://arxiv.org/abs/1810.03993. What is not known is said to be unknown.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triarch import __version__
from triarch.errors import show
from triarch.files import write_text
from triarch.kinds import Features, Medium
from triarch.tasks import task_class, tasks
from triarch.training.facts import Data, Facts, duration, flat

if TYPE_CHECKING:
    from triarch.tasks._base import Task

UNKNOWN = "unknown"


def task_of(medium: Medium, scores: type) -> str | None:
    """The first task with an example that a model can do; one that takes any head is for the trunk alone."""
    for name in tasks():
        made = task_class(name)
        if made.TRY is not None and made.serves(medium, scores) and (made.NEEDS or scores is Features):
            return name
    return None


def tag_of(task: str) -> str | None:
    """The hub's name of a task, if it has one."""
    tag = task_class(task).TAG
    return task if tag is None else tag or None


def _in_python(made: type[Task]) -> str:
    return json.dumps(made.TRY, ensure_ascii=False)


def _in_shell(made: type[Task]) -> str:
    """The input of the first row; what the row has besides is given as options."""
    first = made.TRY[0] if isinstance(made.TRY, list) else made.TRY
    row = dict(first) if isinstance(first, dict) else {made.field(): first}
    given = json.dumps(row.pop(made.field()), ensure_ascii=False)
    options = (f"--{name.replace('_', '-')} {json.dumps(row[name], ensure_ascii=False)}" for name in row)
    return " ".join([given, *options])


def write_card(folder: Path, facts: Facts) -> Path:
    """Write `README.md` into `folder`. Returns where it is; raises TriarchError when it cannot be written."""
    path = folder / "README.md"
    write_text(path, render(facts))
    return path


def render(facts: Facts) -> str:
    """The card: YAML between two lines of dashes, then Markdown."""
    parts = [_what(facts), _use(facts), _training(facts), _results(facts), _data(facts)]
    return f"---\n{front_matter(facts)}\n---\n\n" + "\n\n".join(parts) + "\n"


def front_matter(facts: Facts) -> str:
    """What the hub files the model under, as YAML."""
    from huggingface_hub import ModelCardData

    tag = None if facts.task is None else tag_of(facts.task)
    # The hub takes a results table only for a task that it knows, and with the data that was measured on
    measured = facts.measured_on is not None and tag is not None and facts.metrics
    return ModelCardData(
        license=facts.license.lower() if facts.license else UNKNOWN,
        base_model=facts.base_model,
        language=list(facts.languages) or None,
        pipeline_tag=tag,
        library_name=facts.library,
        tags=["triarch"],
        metrics=[_plain(name) for name in facts.metrics] or None,
        model_name=_plain(facts.name) if measured else None,
        eval_results=_eval_results(facts, facts.measured_on, tag) if measured else None,
    ).to_yaml()


def _eval_results(facts: Facts, data: Data | None, tag: str | None) -> list[Any]:
    from huggingface_hub import EvalResult

    assert data is not None
    assert tag is not None
    return [
        EvalResult(
            task_type=tag,
            dataset_type=_plain(data.name),
            dataset_name=_plain(data.name),
            dataset_split=data.part,
            metric_type=_plain(name),
            metric_value=round(float(value), 6),
        )
        for name, value in facts.metrics.items()
        if math.isfinite(value)
    ]


def _what(facts: Facts) -> str:
    began = f"[{_md(facts.base_model)}](https://huggingface.co/{facts.base_model})" if facts.base_model else None
    languages = ", ".join(facts.languages) or UNKNOWN
    return f"""# {_md(facts.name)}

A {_md(facts.architecture)}, trained by triarch on {_md(facts.objective)}, beginning with
{began or _md(facts.started)}. Languages: {_md(languages)}."""


def _use(facts: Facts) -> str:
    where = f"path/to/{re.sub(r'[^A-Za-z0-9._-]', '-', facts.name)}"
    if facts.task is None:
        return f"""## How to use it

```python
import triarch

model = triarch.load("{where}")
```

```sh
triarch inspect {where}
```"""
    made = task_class(facts.task)
    return f"""## How to use it

```python
import triarch

ask = triarch.pipeline("{facts.task}", model="{where}")
ask({_in_python(made)})
```

```sh
triarch run {facts.task} {_in_shell(made)} -m {where}
```"""


def _training(facts: Facts) -> str:
    spent = {
        "steps": f"{facts.steps:,}",
        "tokens": f"{facts.tokens:,}",
        "time": duration(facts.seconds),
        "seed": UNKNOWN if facts.seed is None else str(facts.seed),
        "kept": f"step {facts.best_step:,}, best in {facts.metric}" if facts.best_step is not None else "the last step",
    }
    rows = list((spent | dict(facts.hardware) | dict(facts.software)).items())
    settings = _table(["setting", "value"], list(flat(facts.settings).items()))
    return f"""## How it was trained

{_table(["", ""], rows)}

<details><summary>All settings</summary>

{settings}

</details>"""


def _results(facts: Facts) -> str:
    if not facts.metrics or facts.measured_on is None:
        return "## Results\n\nNothing was measured."
    data = facts.measured_on
    rows = [(name, f"{value:.4g}") for name, value in facts.metrics.items()]
    on = f"{_md(data.name)} ({_md(data.part)}, {data.rows:,} rows{_md('; ' + data.note if data.note else '')})"
    seen = " The best step was chosen on these same rows, so the numbers flatter the model." if _chosen(facts) else ""
    return f"## Results\n\nMeasured on {on}.{seen}\n\n{_table(['metric', 'value'], rows)}"


def _chosen(facts: Facts) -> bool:
    return facts.best_step is not None and facts.measured_on is not None and facts.measured_on.part == "validation"


def _data(facts: Facts) -> str:
    rows = [(one.part, one.name, f"{one.rows:,}", one.license or UNKNOWN, one.note) for one in facts.data]
    listed = (
        _table(["part", "data", "rows", "licence", ""], rows) if rows else "Which data it was trained on is unknown."
    )
    licences = [f"The licence of this model is {_md(facts.license or UNKNOWN)}."]
    if facts.base_model:
        licences.append(
            f"That of {_md(facts.base_model)}, on which it builds, is {_md(facts.base_license or UNKNOWN)}."
        )
    return f"""## Data and licences

{listed}

{" ".join(licences)}

Written by triarch {__version__}, from what the run recorded. What it is fit for, and whom it may fail, only those who
chose the data can say; write it here."""


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *([_md(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _md(text: object) -> str:
    """Text from outside as one line of Markdown that means nothing but itself."""
    return re.sub(r"([\\`*_{}\[\]<>#|~$&])", r"\\\1", show(text, 300))


def _plain(text: str) -> str:
    """Text from outside for the front matter: one line, and not endless."""
    return show(text, 100)
