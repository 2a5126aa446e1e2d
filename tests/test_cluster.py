"""Ray's actors as workers, on a real cluster of this machine with two nodes, one of which is killed."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest

from autoranger import Config, ConfigError
from autoranger.search.crew.crew import Crew, engine
from autoranger.search.engine.cluster import Actors, Cluster
from autoranger.search.engine.engine import Lost
from autoranger.search.engine.pool import Pool
from autoranger.search.population import Population
from autoranger.search.tasks import create
from autoranger.search.tune.training import Training
from autoranger.search.tune.trial import Job
from tests import trainings
from tests.test_workers import SLOW, TASK

ray = pytest.importorskip("ray", reason="Ray is not installed")

pytestmark = pytest.mark.slow
CONFIGS = [Config.preset("ranger21", lr=lr) for lr in np.logspace(-4, -1, 6)]


@pytest.fixture(scope="module")
def cluster():
    """A cluster whose head has no CPU for actors, and a node with one."""
    from ray.cluster_utils import Cluster as Nodes

    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes.add_node(num_cpus=1)
    try:
        yield nodes
    finally:
        ray.shutdown()
        nodes.shutdown()


def test_a_node_that_is_lost_costs_no_result(cluster, tmp_path):
    victim = cluster.add_node(num_cpus=1)
    (tmp_path / "slowly.py").write_text(TASK.replace("nn.ReLU()", "Slow()") + SLOW)
    task = create(str(tmp_path / "slowly.py"), "cpu", None)
    population, done, lost = Population(task, rows=1), list[Config](), list[str]()

    def report(part, scores):
        if not done:
            cluster.remove_node(victim, allow_graceful=False)
        done.extend(part)

    with closing(engine(task, "metric", cluster=Cluster(cluster.address))) as pool:
        assert pool.others == 2
        run = pool.run

        def noted(items, listener):
            for item, found in run(items, listener):
                lost.extend([found.why] if isinstance(found, Lost) else [])
                yield item, found

        pool.run = noted
        scores = Crew(population, pool).train(CONFIGS, [0], 8, report=report)["valid"]
    assert len(lost) == 1
    assert sorted(config.lr for config in done) == [config.lr for config in CONFIGS], "each once"
    np.testing.assert_allclose(scores, population.train(CONFIGS, [0], 8)["valid"], atol=1e-6)


def test_trainings_of_a_function_are_done_by_actors(cluster):
    class Deaf:
        def begun(self, item): ...
        def reported(self, item, *message): ...
        def pulse(self): ...

    jobs = [Job(CONFIGS[0], seed) for seed in range(3)]
    with closing(Pool([Actors(Training(trainings.draws), Cluster(cluster.address))])) as pool:
        found = dict(pool.run(jobs, Deaf()))
    assert {job.seed: result.failure for job, result in found.items()} == {0: "", 1: "", 2: ""}
    here = Training(trainings.draws)(jobs[1], 0, lambda told: None)
    assert found[jobs[1]].metrics == here.metrics


def test_what_does_not_fit_is_said(cluster):
    with pytest.raises(ConfigError, match="no worker fits: each needs 1 CPUs and 1 GPUs"):
        Actors(Training(trainings.draws), Cluster(cluster.address, gpus=1.0))
