"""The stored pools give the learner what the generator draws, example by example."""

import pytest

from pefthelpers import kitchen
from pefthelpers.data import json_lines
from pefthelpers.paths import data_dir
from studies.kitchen_world import pools, summary_tasks, tasks


@pytest.mark.parametrize("name", ["elicit", "learn"])
def test_tasks_from_pools_are_the_generators_for_twenty_seeds(name):
    stored, drawn = getattr(kitchen, name), getattr(tasks, name)
    assert all(stored(seed) == drawn(seed) for seed in range(20))


def test_summaries_and_retention_are_the_generators():
    for seed in pools.SUMMARY_SEEDS:
        assert kitchen.summaries(seed) == summary_tasks.elicit(seed)
    assert kitchen.retention() == tasks.retention()
    assert list(kitchen.retention()) == list(tasks.retention())


def test_a_committed_pool_is_what_the_script_would_write():
    for name, rows in pools.pools().items():
        assert json_lines(data_dir() / "kitchen" / "pools" / name, tuple(rows[0])) == rows
