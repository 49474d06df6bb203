"""On a Ray cluster that begins nodes when they are needed: workers wait for these, and that is told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import ray
from elsewhere import failed
from ray.cluster_utils import Cluster

from sage.ray import RayEnvironment

#: By these, Ray takes its nodes for those of an autoscaler; the tests are that.
AUTOSCALED = {"RAY_enable_autoscaler_v2": "1", "RAY_NODE_TYPE_NAME": "heads", "RAY_CLOUD_INSTANCE_ID": "head"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        with pytest.MonkeyPatch.context() as of_head:
            for name, value in AUTOSCALED.items():
                of_head.setenv(name, value)
            made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        ray.init(address=made.address, log_to_driver=False, logging_level="error")
        yield made
        ray.shutdown()
        made.shutdown()


def test_workers_wait_for_a_node_that_is_begun_for_them(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    env = RayEnvironment("grows")
    records = env.from_batch(range(4)).map(lambda n: n + 1, name="f", ray={"num_cpus": 2}).collect()
    job = env.submit()
    (said,) = [record.getMessage() for record in caplog.records if record.name == "sage.grows"]
    assert said.startswith("a worker of `f` takes CPU 2, which no node has; the cluster has CPU 1; it grows by itself")
    cluster.add_node(num_cpus=2)
    job.wait()
    assert records == [1, 2, 3, 4]


def test_nodes_that_do_not_come_in_time_fail_the_job(cluster: Cluster) -> None:
    env = RayEnvironment("does not grow", {"timeouts": {"setup": 1.5}})
    env.from_batch(range(4)).map(lambda n: n + 1, name="f", ray={"num_gpus": 1}).collect()
    told = "Ray has not placed a worker within 1.5 s: a worker of `f` takes CPU 1, GPU 1, which no node has"
    assert told in str(failed(env))
