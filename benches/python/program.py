"""A whole program: has a system process so many records of P1, prints its peak memory in megabytes, and ends."""

import sys
from importlib import import_module


def peak_megabytes() -> float:
    """The most memory that was resident in this process so far."""
    with open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    raise OSError("/proc/self/status has no VmHWM")


if __name__ == "__main__":
    system, size = sys.argv[1], int(sys.argv[2])
    import_module(f"systems.{system}").CONTENDERS["p1"][system](range(size))
    print("peak", peak_megabytes())
