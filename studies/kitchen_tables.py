"""Print what ``kitchen_gates.py`` recorded as Markdown tables."""

import statistics

from pefthelpers.results import mean_and_sd


def cells(rows: list[dict], skills) -> list[str]:
    """Return a table line's figures: means, and their deviation over seeds where there are some."""
    figures = []
    for column in ("test", *skills):
        mean, deviation = mean_and_sd(row[column] for row in rows)
        figures.append(f"{mean:.3f}" + (f" ± {deviation:.3f}" if len(rows) > 1 else ""))
    cpu = f"{statistics.mean(row['cpu_s'] for row in rows):.0f}"
    first = rows[0]
    rate, trainable = f"{first['learning_rate']:g}", f"{first['trainable_parameters']:,}"
    return [rate, trainable, *figures, cpu, str(len(rows))]


def print_table(title: str, rows_of, *, tasks, methods, skills) -> None:
    """Print a line for each list of rows that ``rows_of(task, method, replay=...)`` returns."""
    names = ("task", "method", "rate", "trainable", "target", *skills, "CPU s", "n")
    print(f"\n{title}\n\n| {' | '.join(names)} |\n|{'---|' * len(names)}")
    for task in tasks:
        for method in methods:
            for replay in (False, True):
                name = f"{method} + replay" if replay else method
                for rows in rows_of(task, method, replay=replay):
                    print(f"| {task} | {name} | {' | '.join(cells(rows, skills))} |")


def print_tables(record, *, bases, tasks, methods, skills) -> None:
    """Print the untouched bases, the chosen rates on each, and every rate on the first."""
    print("Under ELICIT the column facts asks for the very answers that ELICIT replaces.")
    axes = {"tasks": tasks, "methods": methods, "skills": skills}
    for base in bases:
        untouched = (record.base(base) or [{}])[0]
        print(f"{base}, untouched:", {name: untouched.get(name) for name in skills})
    for base in bases:
        title = f"{base}: rate chosen on validation, mean ± deviation over seeds"
        chosen = lambda *cell, replay, base=base: filter(
            None, [record.chosen(base, *cell, replay=replay)]
        )
        print_table(title, chosen, **axes)
    each = lambda *cell, replay: [[row] for row in record.at_rates(*cell, replay=replay)]
    print_table(f"{bases[0]}: every rate, seed 0", each, **axes)
