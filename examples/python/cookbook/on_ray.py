"""Functions that compute much, on a Ray cluster: the one that is there, or one that is begun on this machine.

    python on_ray.py
"""

from __future__ import annotations

from sage.ray import RayEnvironment


def primes_below(n: int) -> tuple[int, int]:
    """How many primes there are below a number."""
    return n, sum(all(k % d for d in range(2, int(k**0.5) + 1)) for k in range(2, n))


def main() -> None:
    # Each worker is an actor that takes half a processor.
    with RayEnvironment("primes", {"ray": {"num_cpus": 0.5}}) as env:
        counted = env.from_batch([10, 100, 1000, 10_000]).map(primes_below, parallelism=2).collect()
        job = env.submit(autostop=True)
    for n, primes in sorted(counted):
        print(f"{primes} primes below {n}")
    workers = job.report.data["workers"]
    print("worked on by", len(workers), "actors")


if __name__ == "__main__":
    main()
