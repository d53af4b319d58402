"""The results page, created from the saved findings only."""

from pathlib import Path

from experiments.claims import catalog
from experiments.claims.claim import Choice, Finding, Power, Rows, Saved, load
from experiments.claims.conditions import judge, verdict
from experiments.claims.figure import draw
from experiments.claims.overview import overview, seeds
from experiments.files import write_text
from experiments.report.stats import show
from experiments.report.tables import markdown_table

CRITERIA = "**Success criteria.**"
HEAD = """# Claims of the papers, and what was found here

Written by `python -m experiments claims report`; do not edit. Tables show means over seeds with 95 % confidence
intervals (Student's t). A condition states that an effect, a paired difference over seeds, is above a bound. It *holds*
if its interval is above the bound. It *does not hold* if its interval reaches below the bound and stays below the
smallest effect of interest, which is 0 where a small loss is allowed. It is *undecided* if its interval contains both.
A seed at which a run diverged is left out; if more than a tenth of the seeds diverged, the condition is undecided. The
verdict depends only on the conditions of kind *paper*, which the paper states; those of kind *extra* are tested as well
and never change it. The intervals of the conditions of one kind in a claim are at Holm's levels, so that a claim
without any true effect finds one of that kind with a probability of at most 5 %; they are wider than those of the
tables. The p-value, after Holm, is that of the result: where a condition does not hold, a small one says that the
effect is below the smallest of interest. If all of the paper's hold, the verdict is *holds here*; if none holds and all
are decided, *does not hold here*; if none holds and some are undecided, *undecided here*; otherwise *holds partly*.
These are reproductions in small settings, not the tables of the papers. The seconds of a command do not include
trainings that existed before; the seconds of the trainings include all of them, and some trainings are shared by
several claims. Where time is measured, a seed is a repetition.

Columns of trained networks: *cost*, gradient evaluations relative to plain training for the epochs of the setting;
*test %*, after the last epoch, for a row that is stopped early at the peak; *validation %*, after the last epoch; *its
peak %*, the best of all epochs; *training %*, with the labels trained on, wrong ones included; *cos(g, g\\*)*, cosine
of the gradient and the perturbed one, mean over the epochs. Bands of the curves are 95 % intervals over seeds. The
seeds of a setting share its test examples: intervals are over training examples, starts and orders, not over test sets.
"""


def write(folder: Path) -> Path:
    """Draw every saved finding of the folder again and write `results.md` beside them."""
    found = [load(path) for path in sorted(folder.glob("*.json"))]
    for saved in found:
        draw(saved.finding.panels, folder / f"{saved.name}.png")
    path = folder / "results.md"
    write_text(path, "\n".join([HEAD, overview(found), *map(_section, found)]))
    return path


def table(rows: Rows) -> list[list[str]]:
    """The cells of a table, header first."""
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    return [["", *columns]] + [
        [name, *(show(row[c]) if c in row else "" for c in columns)] for name, row in rows.items()
    ]


def _section(saved: Saved) -> str:
    """Statement, verdict, table and figure, then the rest of the lab note with the criteria and the observations."""
    finding = saved.finding
    criteria = [
        f"- {judged.result} ({judged.condition.kind}): {judged.condition.statement} ({judged.numbers})"
        for judged in judge(finding.conditions)
    ]
    before, heading, after = catalog.note(saved.name).partition(CRITERIA)
    statement, _, setting = before.partition("\n\n")
    criterion, *observations = f"{heading}{after}".split("\n\n")
    return "\n".join(
        [
            f"## {saved.name}\n",
            f"{statement}\n",
            f"**{verdict(finding.conditions)}.** {finding.reading}\n",
            markdown_table(table(finding.rows)) + "\n",
            f"![{saved.name}]({saved.name}.png)\n",
            f"{setting.strip()}\n",
            *_chosen(finding),
            f"{criterion}\n",
            *criteria,
            "",
            *(f"{paragraph}\n" for paragraph in observations),
            f"Run: `{saved.command}`, {seeds(saved)}, {saved.seconds:.0f} s{_trainings(saved)}; {_machine(saved)}.\n",
        ]
    )


def _chosen(finding: Finding) -> list[str]:
    """The chosen hyperparameters, their grids, and the number of seeds required."""
    if not finding.choices:
        return []
    lines = [_power(power) for power in finding.powers]
    edges = [f"{c.setting}, {c.variant}: {', '.join(c.on_edge)}" for c in finding.choices if c.on_edge]
    if edges:
        lines.append(f"On an edge of the grid all the same: {'; '.join(edges)}.\n")
    return [markdown_table(_grids(finding)) + "\n", *lines]


def _grids(finding: Finding) -> list[list[str]]:
    """A row for each variant: the values tried for each hyperparameter, with the chosen one in bold."""
    names = list(dict.fromkeys(name for choice in finding.choices for name in choice.tried))
    return [["", *names, "validation % of the choice"]] + [
        [
            f"{choice.setting}: {choice.variant}",
            *(_values(choice, name) for name in names),
            show(choice.validation) if choice.validation else "",
        ]
        for choice in finding.choices
    ]


def _values(choice: Choice, name: str) -> str:
    chosen = choice.chosen.get(name)
    return " ".join(f"**{value:g}**" if value == chosen else f"{value:g}" for value in choice.tried.get(name, ()))


def _power(power: Power) -> str:
    setting, spread, wanted, most = power
    cap = f"; at most {most} were taken" if wanted > most else ""
    return (
        f"{setting}: paired differences on the choosing seeds have a standard deviation of {spread:.2g} points, which "
        f"asks for {wanted} seeds{cap}.\n"
    )


def _trainings(saved: Saved) -> str:
    if saved.trainings is None:
        return ""
    count, seconds, commits, _ = saved.trainings
    at = ", ".join(commit[:12] for commit in commits)
    return f"; {count} trainings, {seconds:.0f} s, at commit {at}{saved.trainings.where}"


def _machine(saved: Saved) -> str:
    about = saved.environment
    return (
        f"JAX {about['packages']['jax']}, {about['device']}, {about['cores']} cores, commit {str(about['commit'])[:12]}"
    )
