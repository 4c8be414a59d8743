"""The stored pools give the learner what the generator draws, example by example."""

import hashlib
import json

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


def test_the_tasks_are_those_that_every_record_was_measured_on():
    """The digest is of the tasks of before there were pools; a new one makes all records stale."""
    drawn = [[kitchen.elicit(seed), kitchen.learn(seed)] for seed in range(20)]
    drawn += [[kitchen.summaries(seed) for seed in range(3)], kitchen.retention()]
    digest = hashlib.sha256(json.dumps(drawn, ensure_ascii=False).encode()).hexdigest()
    assert digest.startswith("eac2a5bdc321142557c940b55ff53ab3")


def test_a_committed_pool_is_what_the_script_would_write():
    for name, rows in pools.pools().items():
        assert json_lines(data_dir() / "kitchen" / "pools" / name, tuple(rows[0])) == rows
