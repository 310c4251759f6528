"""The command `capsule-bench`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from capsule_bench import bridge, capabilities, execute, jupyter, pool, records, serve, table
from capsule_bench.harness import run_area

if TYPE_CHECKING:
    from capsule_bench.model import Area, Result

AREAS = {
    area.name: area for area in (execute.AREA, pool.AREA, serve.AREA, bridge.AREA, jupyter.AREA, capabilities.AREA)
}
RESULTS = Path("bench/results")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Measure Capsule against what else runs Python for other programs."""


@main.command("list")
def list_areas() -> None:
    """Show the areas, their contenders and their measures."""
    for area in AREAS.values():
        click.echo(f"{area.name}: {area.title}")
        for contender in area.contenders:
            click.echo(f"  contender {contender.name}")
        for measure in area.measures:
            must = table.must_text(measure, area.contenders[1].name if len(area.contenders) > 1 else "")
            click.echo(f"  measure {measure.name}: {measure.title}, in {measure.unit}{must and f'; must be {must}'}")


@main.command("table")
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def show_table(file: Path | None) -> None:
    """Print the newest results of FILE (default: of all files in bench/results) as Markdown."""
    files = [file] if file else sorted(RESULTS.glob("*.jsonl"))
    if not files:
        raise click.ClickException(f"no results in {RESULTS}; `capsule-bench execute` makes some")
    try:
        results = [result for each in files for result in records.read(each)]
    except ValueError as problem:
        raise click.ClickException(str(problem)) from problem
    click.echo(_tables(records.latest(results)), nl=False)


def area_command(area: Area) -> click.Command:
    """The command that measures one area."""

    @click.command(area.name, help=f"Measure {area.title}; results go to {RESULTS}/{area.name}.jsonl.")
    @click.option("--quick", is_flag=True, help="One short round, to see that it works; saved only with --save.")
    @click.option("--rounds", type=click.IntRange(min=1), help="Processes for each contender and measure.")
    @click.option("--only", multiple=True, type=click.Choice([each.name for each in area.measures]), help="A measure.")
    @click.option("--contender", multiple=True, type=click.Choice([each.name for each in area.contenders]))
    @click.option("--save", type=click.Path(dir_okay=False, path_type=Path), help="Append the results to this file.")
    def command(
        *, quick: bool, rounds: int | None, only: tuple[str, ...], contender: tuple[str, ...], save: Path | None
    ) -> None:
        chosen = replace(
            area,
            measures=tuple(each for each in area.measures if not only or each.name in only),
            contenders=tuple(each for each in area.contenders if not contender or each.name in contender),
        )
        file = save or (None if quick else RESULTS / f"{area.name}.jsonl")
        results = []
        for result in run_area(chosen, quick=quick, rounds=rounds, tell=_tell):
            results.append(result)
            if file:
                records.append(file, [result])
        click.echo(_tables(results), nl=False)

    return command


def _tell(line: str) -> None:
    click.echo(line, err=True)


def _tables(results: list[Result]) -> str:
    unknown = {result.area for result in results} - set(AREAS)
    if unknown:
        raise click.ClickException(f"no such area: {', '.join(sorted(unknown))}; known: {', '.join(AREAS)}")
    areas = [area for area in AREAS.values() if any(result.area == area.name for result in results)]
    return "\n".join(table.markdown(area, results) for area in areas)


for _area in AREAS.values():
    main.add_command(area_command(_area))

if __name__ == "__main__":
    main()
